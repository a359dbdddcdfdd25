"""A memory with two ports that both write and read, in the form that Vivado and Yosys make block RAMs of."""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import ClockSignal, Instance, Module, Signal
from amaranth.lib.memory import Memory

from board.overlay.hardware.component import Elaboratable, data

VERILOG = (
    "verilog"  # the platform for which the text below is taken; without one, Amaranth's simulator can run the part
)
MODULE = "beltsight_two_port"
# UG901, "True Dual-Port Block RAM", read first: a block for each port. Amaranth writes two, which Vivado may refuse.
TEXT = f"""
module {MODULE} #(parameter WIDTH = 32, parameter ADDRESS_BITS = 12) (
  input clk,
  input enable_a, input [ADDRESS_BITS-1:0] address_a, input [WIDTH-1:0] write_a, output reg [WIDTH-1:0] word_a,
  input enable_b, input [ADDRESS_BITS-1:0] address_b, input [WIDTH-1:0] write_b, output reg [WIDTH-1:0] word_b
);
  (* ram_style = "block" *)
  reg [WIDTH-1:0] content [0:(1 << ADDRESS_BITS)-1];
  reg [WIDTH-1:0] read_a, read_b;
  always @(posedge clk) begin
    if (enable_a) content[address_a] <= write_a;
    read_a <= content[address_a];
  end
  always @(posedge clk) begin
    if (enable_b) content[address_b] <= write_b;
    read_b <= content[address_b];
  end
  always @(posedge clk) begin
    word_a <= read_a;
    word_b <= read_b;
  end
endmodule
"""


class Port(NamedTuple):
    address: Any
    enable: Any  # write
    write: Any
    word: Any  # what was there, two cycles later


class TwoPort(Elaboratable):
    """Words of `width` bits. Nobody may use what a port reads where it, or the other, writes."""

    def __init__(self, width: int, depth: int) -> None:
        self.width, self.depth = width, depth
        address_bits = (depth - 1).bit_length()
        self.ports = [
            Port(
                Signal(address_bits, name=f"address_{side}"),
                Signal(name=f"enable_{side}"),
                Signal(width, name=f"write_{side}"),
                data(width, name=f"word_{side}"),
            )
            for side in "ab"
        ]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if platform == VERILOG:
            m.submodules.words = self._instance()
            return m
        m.submodules.words = memory = Memory(shape=self.width, depth=self.depth, init=[])
        for port in self.ports:
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [write.addr.eq(port.address), write.en.eq(port.enable), write.data.eq(port.write)]
            m.d.comb += [read.addr.eq(port.address), read.en.eq(1)]
            m.d.sync += port.word.eq(read.data)
        return m

    def _instance(self) -> Any:
        pins: dict[str, Any] = {"p_WIDTH": self.width, "p_ADDRESS_BITS": (self.depth - 1).bit_length()}
        for side, port in zip("ab", self.ports, strict=True):
            pins |= {f"i_address_{side}": port.address, f"i_enable_{side}": port.enable}
            pins |= {f"i_write_{side}": port.write, f"o_word_{side}": port.word}
        return Instance(MODULE, i_clk=ClockSignal(), **pins)
