"""AXI4 writes: a burst is asked for only when all its beats are here, so that it can always be finished.

Address and data of a burst are offered at the same time, and neither waits for the other to be taken (AXI4, A3.3.1).
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.fifo import SyncFIFO

from board.overlay.hardware.component import Elaboratable, Skid, Stream, data
from board.overlay.hardware.fifo import Fifo
from board.overlay.hardware.reader import ADDRESS_BITS, REQUEST, BurstSplitter


class WritePort:
    """The write half of an AXI4 port."""

    def __init__(self) -> None:
        self.awaddr = data(ADDRESS_BITS)
        self.awlen = data(8)
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
        m.submodules.buffer = buffer = Fifo(64, self.ROOM)
        m.submodules.lengths = lengths = SyncFIFO(width=5, depth=self.BURSTS)
        m.submodules.skid = skid = Skid(64 + 1)
        under_way = Signal(range(self.BURSTS + 1))  # bursts asked for and not answered
        waiting = Signal(range(self.ROOM + 2))  # beats in the buffer that no burst has claimed
        holding, asks, enough, room = Signal(), Signal(), Signal(), Signal()
        arrives, answered = buffer.w_en & buffer.w_rdy, Signal()
        leaves, last = skid.source.valid & skid.source.ready, Signal()

        # of what is free now, one place may be taken before this is seen
        m.d.sync += self.beats.ready.eq(buffer.level < self.ROOM - 1)
        m.d.sync += enough.eq(splitter.burst & ~asks & (splitter.beats <= waiting))
        m.d.sync += room.eq(~asks & (under_way < self.BURSTS))
        m.d.comb += asks.eq(enough & room & ~holding & ~self.stop & lengths.w_rdy)
        with m.If(~holding):
            m.d.sync += holding.eq(asks)
            m.d.sync += [port.awaddr.eq(Cat(Const(0, 3), splitter.address)), port.awlen.eq(splitter.beats - 1)]
        with m.Elif(port.awready):
            m.d.sync += holding.eq(0)
        m.d.sync += answered.eq(port.bvalid)
        m.d.sync += under_way.eq(under_way + asks - answered)
        m.d.sync += waiting.eq(waiting + arrives - Mux(asks, splitter.beats, 0))

        m.d.sync += self.failed.eq(port.bvalid & (port.bresp != 0))
        sent = Signal(5, init=1)
        m.d.comb += last.eq(sent == lengths.r_data)
        with m.If(leaves):
            m.d.sync += sent.eq(Mux(last, 1, sent + 1))
        m.d.comb += [
            splitter.request.valid.eq(self.request.valid),
            splitter.request.payload.eq(self.request.payload),
            self.request.ready.eq(splitter.request.ready),
            splitter.taken.eq(asks),
            buffer.w_data.eq(self.beats.payload),
            buffer.w_en.eq(self.beats.valid & self.beats.ready),
            port.awvalid.eq(holding),
            lengths.w_en.eq(asks),
            lengths.w_data.eq(splitter.beats),
            skid.source.valid.eq(lengths.r_rdy & buffer.r_rdy),
            skid.source.payload.eq(Cat(buffer.r_data, last)),
            buffer.r_en.eq(leaves),
            lengths.r_en.eq(leaves & last),
            Cat(port.wdata, port.wlast).eq(skid.sink.payload),
            port.wvalid.eq(skid.sink.valid),
            skid.sink.ready.eq(port.wready),
            port.wstrb.eq(0xFF),
            port.bready.eq(1),
            self.beat.eq(leaves),
            self.quiet.eq(~holding & (under_way == 0)),
            self.idle.eq(self.quiet & ~splitter.active & ~self.request.valid),
        ]
        return m
