"""An AXI4-Lite slave: every access becomes one strobe on a plain bus of 32-bit registers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Module, Mux, Signal

from board.overlay.hardware.component import Elaboratable, data

ADDRESS_BITS = 12
READ_SIGNALS = ("araddr", "arvalid", "arready", "rdata", "rresp", "rvalid", "rready")
WRITE_SIGNALS = ("awaddr", "awvalid", "awready", "wdata", "wstrb", "wvalid", "wready", "bresp", "bvalid", "bready")


class AxiLitePorts:
    def __init__(self) -> None:
        self.awaddr, self.awvalid, self.awready = Signal(ADDRESS_BITS), Signal(), Signal()
        self.wdata, self.wstrb, self.wvalid, self.wready = Signal(32), Signal(4), Signal(), Signal()
        self.bresp, self.bvalid, self.bready = Signal(2), Signal(), Signal()
        self.araddr, self.arvalid, self.arready = Signal(ADDRESS_BITS), Signal(), Signal()
        self.rdata, self.rresp, self.rvalid, self.rready = Signal(32), Signal(2), Signal(), Signal()


class AxiLite(AxiLitePorts, Elaboratable):
    """Writes: `write` with `write_address`, `write_data`. Reads: `read_address`, in the next cycle `read`,
    answered in that cycle."""

    def __init__(self) -> None:
        super().__init__()
        self.write = Signal()
        self.write_address = Signal(ADDRESS_BITS)
        self.write_data = Signal(32)
        self.read = Signal()
        self.read_address = Signal(ADDRESS_BITS)
        self.read_data = Signal(32)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        have_address, have_data, whole = Signal(), Signal(), Signal()
        m.d.comb += [
            self.awready.eq(~have_address),
            self.wready.eq(~have_data),
            self.bresp.eq(0),
            self.rresp.eq(0),
            # a write of less than 32 bits does nothing
            self.write.eq(have_address & have_data & ~self.bvalid & whole),
        ]
        with m.If(self.awvalid & self.awready):
            m.d.sync += [self.write_address.eq(self.awaddr), have_address.eq(1)]
        with m.If(self.wvalid & self.wready):
            m.d.sync += [self.write_data.eq(self.wdata), whole.eq(self.wstrb.all()), have_data.eq(1)]
        with m.If(self.bvalid & self.bready):
            m.d.sync += self.bvalid.eq(0)
        with m.If(have_address & have_data & ~self.bvalid):
            m.d.sync += [have_address.eq(0), have_data.eq(0), self.bvalid.eq(1)]

        asked, reads = Signal(), Signal()
        m.d.comb += [self.arready.eq(~asked & ~reads & ~self.rvalid), self.read.eq(reads)]
        m.d.sync += reads.eq(asked)
        with m.If(self.arvalid & self.arready):
            m.d.sync += [self.read_address.eq(self.araddr), asked.eq(1)]
        with m.If(asked):
            m.d.sync += asked.eq(0)
        with m.If(reads):
            m.d.sync += [self.rdata.eq(self.read_data), self.rvalid.eq(1)]
        with m.If(self.rvalid & self.rready):
            m.d.sync += self.rvalid.eq(0)
        return m


def choose_register(m: Module, address: Signal, registers: Mapping[int, Any]) -> Signal:
    """The value of the register whose offset was `address` a cycle ago, else 0."""
    value = Signal(32)
    parts = []
    for offset, register in registers.items():
        chosen = data(name=f"chosen_{offset:x}")  # for 32 pins; the address itself would have hundreds
        m.d.sync += chosen.eq(address == offset)
        parts.append(Mux(chosen, register, 0))
    m.d.comb += value.eq(reduce(or_, parts))
    return value
