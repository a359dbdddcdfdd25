// The overlay beside the processing system, without Vivado: for the open tools, which have no block design.
// The processing system's ports speak AXI3. The overlay's bursts have at most 16 beats and need no change; bursts to its
// registers become single accesses.
module pynq_z2 (
    output [3:0] leds,
    input  [3:0] buttons,
    input        barrier,
    input        passage,
    input  [1:0] encoder,
    output       gate
);
  wire [3:0] fclk, fclk_reset_n;
  wire clk;
  BUFG clock (.I(fclk[0]), .O(clk));
  // Flip-flops: a shift register in a look-up table does not settle. The last one alone drives what is everywhere.
  (* ASYNC_REG = "TRUE", shreg_extract = "no", keep *) reg [1:0] settles = 2'b11;
  (* shreg_extract = "no", keep *) reg rst = 1'b1;
  always @(posedge clk) {rst, settles} <= {settles, ~fclk_reset_n[0]};

  // registers
  wire [31:0] gp_araddr, gp_awaddr, gp_wdata, gp_rdata;
  wire [11:0] gp_arid, gp_awid, gp_rid, gp_bid;
  wire [3:0] gp_arlen, gp_awlen, gp_wstrb;
  wire [1:0] gp_arsize, gp_awsize, gp_arburst, gp_awburst, gp_rresp, gp_bresp;
  wire gp_arvalid, gp_arready, gp_rvalid, gp_rready, gp_rlast, gp_awvalid, gp_awready;
  wire gp_wvalid, gp_wready, gp_bvalid, gp_bready;
  wire [11:0] s_araddr, s_awaddr;
  wire [31:0] s_wdata, s_rdata;
  wire [3:0] s_wstrb;
  wire [1:0] s_rresp, s_bresp;
  wire s_arvalid, s_arready, s_rvalid, s_rready, s_awvalid, s_awready, s_wvalid, s_wready, s_bvalid, s_bready;
  beltsight_single_accesses single_accesses (
      .clk(clk), .rst(rst),
      .gp_arid(gp_arid), .gp_araddr(gp_araddr[11:0]), .gp_arlen(gp_arlen), .gp_arsize(gp_arsize),
      .gp_arburst(gp_arburst), .gp_arvalid(gp_arvalid), .gp_arready(gp_arready),
      .gp_rid(gp_rid), .gp_rdata(gp_rdata), .gp_rresp(gp_rresp), .gp_rlast(gp_rlast), .gp_rvalid(gp_rvalid),
      .gp_rready(gp_rready),
      .gp_awid(gp_awid), .gp_awaddr(gp_awaddr[11:0]), .gp_awlen(gp_awlen), .gp_awsize(gp_awsize),
      .gp_awburst(gp_awburst), .gp_awvalid(gp_awvalid), .gp_awready(gp_awready),
      .gp_wdata(gp_wdata), .gp_wstrb(gp_wstrb), .gp_wvalid(gp_wvalid), .gp_wready(gp_wready),
      .gp_bid(gp_bid), .gp_bresp(gp_bresp), .gp_bvalid(gp_bvalid), .gp_bready(gp_bready),
      .s_axi_awaddr(s_awaddr), .s_axi_awvalid(s_awvalid), .s_axi_awready(s_awready),
      .s_axi_wdata(s_wdata), .s_axi_wstrb(s_wstrb), .s_axi_wvalid(s_wvalid), .s_axi_wready(s_wready),
      .s_axi_bresp(s_bresp), .s_axi_bvalid(s_bvalid), .s_axi_bready(s_bready),
      .s_axi_araddr(s_araddr), .s_axi_arvalid(s_arvalid), .s_axi_arready(s_arready),
      .s_axi_rdata(s_rdata), .s_axi_rresp(s_rresp), .s_axi_rvalid(s_rvalid), .s_axi_rready(s_rready)
  );

  // memory
  wire [31:0] hp_araddr, hp_awaddr;
  wire [7:0] hp_arlen, hp_awlen, hp_wstrb;
  wire [2:0] hp_arsize, hp_awsize, hp_arprot, hp_awprot;
  wire [1:0] hp_arburst, hp_awburst, hp_rresp, hp_bresp;
  wire [3:0] hp_arcache, hp_awcache;
  wire [63:0] hp_rdata, hp_wdata;
  wire hp_arvalid, hp_arready, hp_rvalid, hp_rready, hp_rlast, hp_awvalid, hp_awready;
  wire hp_wvalid, hp_wready, hp_wlast, hp_bvalid, hp_bready, irq;

  beltsight_overlay overlay (
      .clk(clk), .rst(rst), .irq(irq), .leds(leds), .buttons(buttons), .barrier(barrier), .passage(passage),
      .encoder(encoder), .gate(gate),
      .s_axi_awaddr(s_awaddr), .s_axi_awvalid(s_awvalid), .s_axi_awready(s_awready),
      .s_axi_wdata(s_wdata), .s_axi_wstrb(s_wstrb), .s_axi_wvalid(s_wvalid), .s_axi_wready(s_wready),
      .s_axi_bresp(s_bresp), .s_axi_bvalid(s_bvalid), .s_axi_bready(s_bready),
      .s_axi_araddr(s_araddr), .s_axi_arvalid(s_arvalid), .s_axi_arready(s_arready),
      .s_axi_rdata(s_rdata), .s_axi_rresp(s_rresp), .s_axi_rvalid(s_rvalid), .s_axi_rready(s_rready),
      .m_axi_araddr(hp_araddr), .m_axi_arlen(hp_arlen), .m_axi_arsize(hp_arsize), .m_axi_arburst(hp_arburst),
      .m_axi_arcache(hp_arcache), .m_axi_arprot(hp_arprot), .m_axi_arvalid(hp_arvalid), .m_axi_arready(hp_arready),
      .m_axi_rdata(hp_rdata), .m_axi_rresp(hp_rresp), .m_axi_rlast(hp_rlast), .m_axi_rvalid(hp_rvalid),
      .m_axi_rready(hp_rready),
      .m_axi_awaddr(hp_awaddr), .m_axi_awlen(hp_awlen), .m_axi_awsize(hp_awsize), .m_axi_awburst(hp_awburst),
      .m_axi_awcache(hp_awcache), .m_axi_awprot(hp_awprot), .m_axi_awvalid(hp_awvalid), .m_axi_awready(hp_awready),
      .m_axi_wdata(hp_wdata), .m_axi_wstrb(hp_wstrb), .m_axi_wlast(hp_wlast), .m_axi_wvalid(hp_wvalid),
      .m_axi_wready(hp_wready), .m_axi_bresp(hp_bresp), .m_axi_bvalid(hp_bvalid), .m_axi_bready(hp_bready)
  );

  PS7 ps7 (
      .FCLKCLK(fclk), .FCLKRESETN(fclk_reset_n), .IRQF2P({19'b0, irq}),
      .MAXIGP0ACLK(clk),
      .MAXIGP0ARADDR(gp_araddr), .MAXIGP0ARID(gp_arid), .MAXIGP0ARLEN(gp_arlen), .MAXIGP0ARSIZE(gp_arsize),
      .MAXIGP0ARBURST(gp_arburst), .MAXIGP0ARVALID(gp_arvalid), .MAXIGP0ARREADY(gp_arready),
      .MAXIGP0RDATA(gp_rdata), .MAXIGP0RID(gp_rid), .MAXIGP0RRESP(gp_rresp), .MAXIGP0RLAST(gp_rlast),
      .MAXIGP0RVALID(gp_rvalid), .MAXIGP0RREADY(gp_rready),
      .MAXIGP0AWADDR(gp_awaddr), .MAXIGP0AWID(gp_awid), .MAXIGP0AWLEN(gp_awlen), .MAXIGP0AWSIZE(gp_awsize),
      .MAXIGP0AWBURST(gp_awburst), .MAXIGP0AWVALID(gp_awvalid), .MAXIGP0AWREADY(gp_awready),
      .MAXIGP0WDATA(gp_wdata), .MAXIGP0WSTRB(gp_wstrb), .MAXIGP0WVALID(gp_wvalid), .MAXIGP0WREADY(gp_wready),
      .MAXIGP0BID(gp_bid), .MAXIGP0BRESP(gp_bresp), .MAXIGP0BVALID(gp_bvalid), .MAXIGP0BREADY(gp_bready),
      .SAXIHP0ACLK(clk), .SAXIHP0RDISSUECAP1EN(1'b0), .SAXIHP0WRISSUECAP1EN(1'b0),
      .SAXIHP0ARADDR(hp_araddr), .SAXIHP0ARLEN(hp_arlen[3:0]), .SAXIHP0ARSIZE(hp_arsize[1:0]),
      .SAXIHP0ARBURST(hp_arburst), .SAXIHP0ARCACHE(hp_arcache), .SAXIHP0ARPROT(hp_arprot), .SAXIHP0ARLOCK(2'b0),
      .SAXIHP0ARQOS(4'b0), .SAXIHP0ARID(6'b0), .SAXIHP0ARVALID(hp_arvalid), .SAXIHP0ARREADY(hp_arready),
      .SAXIHP0RDATA(hp_rdata), .SAXIHP0RRESP(hp_rresp), .SAXIHP0RLAST(hp_rlast), .SAXIHP0RVALID(hp_rvalid),
      .SAXIHP0RREADY(hp_rready),
      .SAXIHP0AWADDR(hp_awaddr), .SAXIHP0AWLEN(hp_awlen[3:0]), .SAXIHP0AWSIZE(hp_awsize[1:0]),
      .SAXIHP0AWBURST(hp_awburst), .SAXIHP0AWCACHE(hp_awcache), .SAXIHP0AWPROT(hp_awprot), .SAXIHP0AWLOCK(2'b0),
      .SAXIHP0AWQOS(4'b0), .SAXIHP0AWID(6'b0), .SAXIHP0AWVALID(hp_awvalid), .SAXIHP0AWREADY(hp_awready),
      .SAXIHP0WDATA(hp_wdata), .SAXIHP0WSTRB(hp_wstrb), .SAXIHP0WID(6'b0), .SAXIHP0WLAST(hp_wlast),
      .SAXIHP0WVALID(hp_wvalid), .SAXIHP0WREADY(hp_wready),
      .SAXIHP0BRESP(hp_bresp), .SAXIHP0BVALID(hp_bvalid), .SAXIHP0BREADY(hp_bready)
  );
endmodule
