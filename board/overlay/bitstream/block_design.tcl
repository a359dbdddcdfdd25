# The block design: the processing system, its reset, the overlay, and a converter on each side (the ports of the
# processing system speak AXI3).

proc beltsight_block_design {name clock_mhz register_address} {
    create_bd_design $name
    beltsight_processing_system $clock_mhz
    create_bd_cell -type ip -vlnv xilinx.com:ip:proc_sys_reset:5.0 reset
    create_bd_cell -type module -reference beltsight_overlay_axi overlay
    create_bd_cell -type ip -vlnv xilinx.com:ip:axi_protocol_converter:2.1 registers
    set_property -dict [list CONFIG.SI_PROTOCOL {AXI3} CONFIG.MI_PROTOCOL {AXI4LITE}] [get_bd_cells registers]
    create_bd_cell -type ip -vlnv xilinx.com:ip:axi_protocol_converter:2.1 memory
    set_property -dict [list CONFIG.SI_PROTOCOL {AXI4} CONFIG.MI_PROTOCOL {AXI3}] [get_bd_cells memory]

    connect_bd_net [get_bd_pins ps7/FCLK_CLK0] \
        [get_bd_pins ps7/M_AXI_GP0_ACLK] [get_bd_pins ps7/S_AXI_HP0_ACLK] [get_bd_pins reset/slowest_sync_clk] \
        [get_bd_pins overlay/aclk] [get_bd_pins registers/aclk] [get_bd_pins memory/aclk]
    connect_bd_net [get_bd_pins ps7/FCLK_RESET0_N] [get_bd_pins reset/ext_reset_in]
    connect_bd_net [get_bd_pins reset/peripheral_aresetn] \
        [get_bd_pins overlay/aresetn] [get_bd_pins registers/aresetn] [get_bd_pins memory/aresetn]
    connect_bd_intf_net [get_bd_intf_pins ps7/M_AXI_GP0] [get_bd_intf_pins registers/S_AXI]
    connect_bd_intf_net [get_bd_intf_pins registers/M_AXI] [get_bd_intf_pins overlay/s_axi]
    connect_bd_intf_net [get_bd_intf_pins overlay/m_axi] [get_bd_intf_pins memory/S_AXI]
    connect_bd_intf_net [get_bd_intf_pins memory/M_AXI] [get_bd_intf_pins ps7/S_AXI_HP0]
    connect_bd_net [get_bd_pins overlay/irq] [get_bd_pins ps7/IRQ_F2P]

    create_bd_intf_port -mode Master -vlnv xilinx.com:interface:ddrx_rtl:1.0 DDR
    create_bd_intf_port -mode Master -vlnv xilinx.com:display_processing_system7:fixedio_rtl:1.0 FIXED_IO
    connect_bd_intf_net [get_bd_intf_ports DDR] [get_bd_intf_pins ps7/DDR]
    connect_bd_intf_net [get_bd_intf_ports FIXED_IO] [get_bd_intf_pins ps7/FIXED_IO]
    create_bd_port -dir O -from 3 -to 0 leds
    create_bd_port -dir I -from 3 -to 0 buttons
    create_bd_port -dir I barrier
    create_bd_port -dir I passage
    create_bd_port -dir I -from 1 -to 0 encoder
    create_bd_port -dir O gate
    foreach pin {leds buttons barrier passage encoder gate} {
        connect_bd_net [get_bd_ports $pin] [get_bd_pins overlay/$pin]
    }

    assign_bd_address -offset $register_address -range 4K -force \
        -target_address_space [get_bd_addr_spaces ps7/Data] [get_bd_addr_segs overlay/s_axi/reg0]
    assign_bd_address -offset 0x00000000 -range 512M -force \
        -target_address_space [get_bd_addr_spaces overlay/m_axi] [get_bd_addr_segs ps7/S_AXI_HP0/HP0_DDR_LOWOCM]
    validate_bd_design
    save_bd_design
}
