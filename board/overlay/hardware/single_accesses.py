"""Bursts of AXI3 become accesses of AXI4-Lite, for the open flow: Vivado has a converter of its own.

The processing system makes a burst where a program copies several registers with one instruction.
"""

from __future__ import annotations

from amaranth.back import verilog
from amaranth.hdl import Cat, Const, Module, Mux, Signal

from board.overlay.hardware.axi_lite import ADDRESS_BITS, READ_SIGNALS, WRITE_SIGNALS, AxiLitePorts
from board.overlay.hardware.component import Elaboratable, data

MODULE = "beltsight_single_accesses"
ID_BITS = 12
FIXED, WRAPS = 0, 2  # AXI3, table 4-3; 1 is of rising addresses


class BurstAddress(Elaboratable):
    """What a master asks for, and where each beat of it lies."""

    def __init__(self, way: str) -> None:
        self.id, self.address = Signal(ID_BITS, name=f"{way}id"), Signal(ADDRESS_BITS, name=f"{way}addr")
        self.length, self.size = Signal(4, name=f"{way}len"), Signal(2, name=f"{way}size")
        self.burst = Signal(2, name=f"{way}burst")
        self.begin, self.next = Signal(), Signal()
        self.owner, self.place = data(ID_BITS), data(ADDRESS_BITS)  # of this beat
        self.last = Signal()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        left, within, moves = data(4), data(3), data(ADDRESS_BITS)  # `moves`: bits of the address that change
        behind = Signal(ADDRESS_BITS)
        m.d.comb += [behind.eq((self.place | within) + 1), self.last.eq(left == 0)]
        bytes_but_one = (Const(1, 4) << self.size) - 1
        wrapping = self.length << self.size  # begins at a whole beat, so its lower bits are 0
        with m.If(self.begin):
            m.d.sync += [self.owner.eq(self.id), self.place.eq(self.address), left.eq(self.length)]
            m.d.sync += within.eq(bytes_but_one)
            m.d.sync += moves.eq(Mux(self.burst == WRAPS, wrapping, (self.burst != FIXED).replicate(ADDRESS_BITS)))
        with m.Elif(self.next):
            m.d.sync += [self.place.eq((self.place & ~moves) | (behind & moves)), left.eq(left - 1)]
        return m


class SingleAccesses(Elaboratable):
    """One burst of each direction at a time."""

    def __init__(self) -> None:
        self.reads, self.writes = BurstAddress("ar"), BurstAddress("aw")
        self.arvalid, self.arready = Signal(), Signal()
        self.rdata, self.rresp, self.rlast = Signal(32), Signal(2), Signal()
        self.rvalid, self.rready = Signal(), Signal()
        self.awvalid, self.awready = Signal(), Signal()
        self.wdata, self.wstrb, self.wvalid, self.wready = Signal(32), Signal(4), Signal(), Signal()
        self.bresp, self.bvalid, self.bready = Signal(2), Signal(), Signal()
        self.slave = AxiLitePorts()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.reads, m.submodules.writes = self.reads, self.writes
        self._read(m)
        self._write(m)
        return m

    def _read(self, m: Module) -> None:
        slave, burst = self.slave, self.reads
        m.d.comb += [
            slave.araddr.eq(Cat(Const(0, 2), burst.place[2:])),  # a narrow beat is taken out of its word
            self.rdata.eq(slave.rdata),
            self.rresp.eq(slave.rresp),
            self.rlast.eq(burst.last),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.arready.eq(1), burst.begin.eq(self.arvalid)]
                with m.If(self.arvalid):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += slave.arvalid.eq(1)
                with m.If(slave.arready):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [self.rvalid.eq(slave.rvalid), slave.rready.eq(self.rready)]
                with m.If(slave.rvalid & self.rready):
                    m.d.comb += burst.next.eq(1)
                    m.next = "ASK"
                    with m.If(burst.last):
                        m.next = "IDLE"

    def _write(self, m: Module) -> None:
        slave, burst = self.slave, self.writes
        m.d.comb += [
            slave.awaddr.eq(Cat(Const(0, 2), burst.place[2:])),
            slave.wdata.eq(self.wdata),
            slave.wstrb.eq(self.wstrb),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.awready.eq(1), burst.begin.eq(self.awvalid)]
                m.d.sync += self.bresp.eq(0)
                with m.If(self.awvalid):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += slave.awvalid.eq(1)
                with m.If(slave.awready):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [slave.wvalid.eq(self.wvalid), self.wready.eq(slave.wready)]
                with m.If(self.wvalid & slave.wready):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += slave.bready.eq(1)
                with m.If(slave.bvalid):
                    m.d.comb += burst.next.eq(1)
                    m.d.sync += self.bresp.eq(self.bresp | slave.bresp)
                    m.next = "ASK"
                    with m.If(burst.last):
                        m.next = "TELL"
            with m.State("TELL"):
                m.d.comb += self.bvalid.eq(1)
                with m.If(self.bready):
                    m.next = "IDLE"


def emit_single_accesses() -> str:
    """As Verilog: `gp_` is the side of the processing system, `s_axi_` that of the overlay."""
    part = SingleAccesses()
    ports = {f"s_axi_{name}": getattr(part.slave, name) for name in (*READ_SIGNALS, *WRITE_SIGNALS)}
    ports |= {
        f"gp_{name}": getattr(part, name)
        for name in (*READ_SIGNALS, "rlast", *WRITE_SIGNALS)
        if not name.endswith("addr")
    }
    for burst, way, answer in ((part.reads, "ar", "rid"), (part.writes, "aw", "bid")):
        asked = (burst.id, burst.address, burst.length, burst.size, burst.burst)
        ports |= {
            f"gp_{way}{name}": signal
            for name, signal in zip(("id", "addr", "len", "size", "burst"), asked, strict=True)
        }
        ports[f"gp_{answer}"] = burst.owner
    named = {name: (signal, None) for name, signal in ports.items()}
    text: str = verilog.convert(part, name=MODULE, ports=named, strip_internal_attrs=True)
    return text
