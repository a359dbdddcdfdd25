"""AXI4 writes: a burst is asked for only when all its beats are here, so that it can always be finished."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered

from board.overlay.hardware.component import Elaboratable, Stream
from board.overlay.hardware.reader import ADDRESS_BITS, REQUEST, BurstSplitter


class WritePort:
    """The write half of an AXI4 port."""

    def __init__(self) -> None:
        self.awaddr = Signal(ADDRESS_BITS)
        self.awlen = Signal(8)
        self.awvalid = Signal()
        self.awready = Signal()
        self.wdata = Signal(64)
        self.wstrb = Signal(8)
        self.wlast = Signal()
        self.wvalid = Signal()
        self.wready = Signal()
        self.bresp = Signal(2)
        self.bvalid = Signal()
        self.bready = Signal()


class Writer(Elaboratable):
    """`request` and `beats` in. `stop` keeps new bursts back."""

    BURSTS = 4
    ROOM = 64  # beats in the buffer

    def __init__(self) -> None:
        self.port = WritePort()
        self.request = Stream(REQUEST, "write_request")
        self.beats = Stream(64, "write_beats")
        self.stop = Signal()
        self.idle = Signal()  # every burst was answered and no request is left
        self.quiet = Signal()  # no burst is under way, though requests may be left
        self.failed = Signal()
        self.beat = Signal()  # a beat leaves

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        port = self.port
        m.submodules.splitter = splitter = BurstSplitter()
        m.submodules.buffer = buffer = SyncFIFOBuffered(width=64, depth=self.ROOM)
        m.submodules.lengths = lengths = SyncFIFO(width=8, depth=self.BURSTS)
        under_way = Signal(range(self.BURSTS + 1))  # bursts asked for and not answered
        waiting = Signal(range(self.ROOM + 2))  # beats in the buffer that no burst has claimed
        accepted, leaves = port.awvalid & port.awready, port.wvalid & port.wready
        answered = port.bvalid & port.bready
        arrives = buffer.w_en & buffer.w_rdy
        holding = Signal()

        # of what is free now, one place may be taken before this is seen
        m.d.sync += self.beats.ready.eq(buffer.level < self.ROOM - 1)
        enough = Signal()
        m.d.sync += enough.eq(splitter.burst & ~accepted & (splitter.beats <= waiting))
        with m.If(~holding), m.If(enough & ~self.stop & lengths.w_rdy & (under_way != self.BURSTS)):
            m.d.sync += holding.eq(1)
        with m.Elif(accepted):
            m.d.sync += holding.eq(0)
        m.d.sync += under_way.eq(under_way + accepted - answered)
        m.d.sync += waiting.eq(waiting + arrives - Mux(accepted, splitter.beats, 0))

        m.d.sync += self.failed.eq(answered & (port.bresp != 0))
        sent = Signal(8)
        with m.If(leaves):
            m.d.sync += sent.eq(Mux(port.wlast, 0, sent + 1))
        m.d.comb += [
            splitter.request.valid.eq(self.request.valid),
            splitter.request.payload.eq(self.request.payload),
            self.request.ready.eq(splitter.request.ready),
            splitter.taken.eq(accepted),
            buffer.w_data.eq(self.beats.payload),
            buffer.w_en.eq(self.beats.valid & self.beats.ready),
            port.awaddr.eq(Cat(Const(0, 3), splitter.address)),
            port.awlen.eq(splitter.beats - 1),
            port.awvalid.eq(holding),
            lengths.w_en.eq(accepted),
            lengths.w_data.eq(port.awlen),
            port.wdata.eq(buffer.r_data),
            port.wstrb.eq(0xFF),
            port.wvalid.eq(lengths.r_rdy & buffer.r_rdy),
            port.wlast.eq(sent == lengths.r_data),
            lengths.r_en.eq(leaves & port.wlast),
            buffer.r_en.eq(leaves),
            port.bready.eq(1),
            self.beat.eq(leaves),
            self.quiet.eq(~holding & (under_way == 0)),
            self.idle.eq(self.quiet & ~splitter.active & ~self.request.valid),
        ]
        return m
