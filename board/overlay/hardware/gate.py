"""The gate: closed at rest, open for windows that were programmed ahead, and closed at their end whatever the processor
does.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib.fifo import SyncFIFOBuffered

from board.overlay.hardware.component import Elaboratable

TIME_BITS = 64
CYCLE_BITS = 32
WINDOWS = 8
AHEAD_CYCLES = 8  # a window takes a few through the queue


class Gate(Elaboratable):
    """`add` queues (start, cycles): open from `start` on for so many cycles, or, with 0 cycles, closed from `start` on.

    A window is refused when it is not ahead, does not begin behind the end of the one queued before it (it might be
    another part that passes between them), is longer than `limit`, or finds the queue full. Where a closing is
    refused, the gate closes at once and the queue is dropped: a part that must not pass may be there.
    """

    def __init__(self) -> None:
        self.time = Signal(TIME_BITS)
        self.start, self.cycles, self.add = Signal(TIME_BITS), Signal(CYCLE_BITS), Signal()
        self.limit, self.shut = Signal(CYCLE_BITS), Signal()
        self.pin = Signal()
        self.queued, self.missed = Signal(range(WINDOWS + 2)), Signal(16)
        self.refused = Signal(4)  # for a cycle each: the bits of GATE_REFUSED

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        shutting = Signal()
        windows = SyncFIFOBuffered(width=TIME_BITS + CYCLE_BITS, depth=WINDOWS)
        m.submodules.windows = ResetInserter(shutting)(windows)
        m.d.comb += [self.queued.eq(windows.level), shutting.eq(self.shut)]
        late, reasons = self._move(m, windows, shutting), self._judge(m, windows, shutting)
        m.d.comb += self.refused.eq(reasons | late)
        m.d.sync += self.missed.eq(self.missed + self.refused.any())
        return m

    def _judge(self, m: Module, windows: Any, shutting: Signal) -> Any:
        """Why what was added a cycle ago is refused."""
        soon, begun, end = Signal(TIME_BITS), Signal(TIME_BITS), Signal(TIME_BITS)  # begun, end: of the last one queued
        judged, closes, reasons = Signal(), Signal(), Signal(4)
        past, behind_begun, behind_end, long = Signal(), Signal(), Signal(), Signal()
        held, new_end = Signal(TIME_BITS + CYCLE_BITS), Signal(TIME_BITS)
        m.d.comb += windows.w_data.eq(held)
        m.d.sync += [
            soon.eq(self.time + AHEAD_CYCLES),
            judged.eq(self.add & ~shutting),
            held.eq(Cat(self.start, self.cycles)),
            new_end.eq(self.start + self.cycles),
            closes.eq(self.cycles == 0),
            past.eq(self.start <= soon),
            behind_begun.eq(self.start > begun),
            behind_end.eq(self.start > end),
            long.eq(self.cycles > self.limit),
        ]
        with m.If(judged):
            m.d.comb += reasons.eq(Cat(past, ~Mux(closes, behind_begun, behind_end), long, ~windows.w_rdy))
            with m.If(~reasons.any()):
                m.d.comb += windows.w_en.eq(1)
                m.d.sync += [begun.eq(held[:TIME_BITS]), end.eq(new_end)]
            with m.Elif(closes):
                m.d.comb += shutting.eq(1)
        with m.If(shutting):
            m.d.sync += [begun.eq(0), end.eq(0)]
        return reasons

    def _move(self, m: Module, windows: Any, shutting: Signal) -> Any:
        """Whether a window comes to the head of the queue too late: the next part would meet it."""
        left, late = Signal(CYCLE_BITS), Signal()
        # compared a cycle before they are needed: 64 bits are long
        following, due, in_time, opens = Signal(TIME_BITS), Signal(), Signal(), Signal()
        start, cycles = windows.r_data[:TIME_BITS], windows.r_data[TIME_BITS:]
        m.d.comb += [windows.r_en.eq(due), late.eq(due & ~in_time & opens)]
        m.d.sync += [
            following.eq(self.time + 2),
            due.eq(windows.r_rdy & ~due & ~shutting & (following >= start)),
            in_time.eq(following == start),
            opens.eq(cycles != 0),
            left.eq(left - 1),
        ]
        with m.If(left == 1):
            m.d.sync += self.pin.eq(0)
        with m.If(due & ~late):
            m.d.sync += [self.pin.eq(opens), left.eq(cycles)]
        with m.If(shutting):
            m.d.sync += self.pin.eq(0)
        return late
