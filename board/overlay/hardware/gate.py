"""The gate: closed at rest, open for windows that were programmed ahead, and closed at their end whatever the processor
does.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed

from board.overlay.hardware.component import Elaboratable
from board.overlay.hardware.windows import WINDOWS, Windows

PLACE_BITS = 64  # of a time in cycles, or of a position in counts, with its sign
CYCLE_BITS = 32
AHEAD_CYCLES = 8  # a window takes a few through the queue
NOWHERE = -(1 << PLACE_BITS - 1)


class Gate(Elaboratable):
    """`add` queues (start, cycles): open from `start` on for so many cycles, or, with 0 cycles, closed from `start` on.
    With `by_position` the same in counts of the belt: open where start ≤ position < start + cycles.

    A window is refused when it is not ahead, does not begin behind the end of the one queued before it (it might be
    another part that passes between them), is longer than `limit`, finds the queue full, or the position not to be
    believed. Where a closing is refused, the gate closes at once and the queue is dropped: a part that must not pass
    may be there. `limit` is in cycles, and ends a window of positions as well: the belt may stand.
    """

    def __init__(self) -> None:
        self.time, self.position = Signal(PLACE_BITS), Signal(signed(PLACE_BITS))
        self.by_position = Signal()
        self.by_positions = [Signal(name=f"by_position{i}", attrs={"keep": "true"}) for i in range(4)]  # the same
        self.distrusted = Signal()
        self.start, self.cycles, self.add = Signal(PLACE_BITS), Signal(CYCLE_BITS), Signal()
        self.limit, self.shut = Signal(CYCLE_BITS), Signal()  # whoever changes limit or by_position shuts too
        self.pin = Signal()
        self.queued, self.missed = Signal(range(WINDOWS + 1)), Signal(16)
        self.refused = Signal(5)  # for a cycle each: the bits of GATE_REFUSED
        self.overran = Signal()  # a window of positions has been open for `limit`
        # of the window that is open, or was the last
        self.is_open, self.left = Signal(), Signal(CYCLE_BITS)
        self.begins, self.ends = Signal(signed(PLACE_BITS)), Signal(signed(PLACE_BITS))
        self.here = Signal(signed(PLACE_BITS))  # where the pin will be two cycles from now
        self.windows = Windows(2 * PLACE_BITS + 1)  # start, end, and whether it opens

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        shutting = Signal()
        m.submodules.windows = self.windows
        m.d.comb += [
            shutting.eq(self.shut | self.distrusted | self.overran),
            self.windows.drop.eq(shutting),
            self.queued.eq(self.windows.level),
        ]
        late, reasons = self._move(m, shutting), self._judge(m, shutting)
        m.d.comb += self.refused.eq(reasons | late)
        m.d.sync += self.missed.eq(self.missed + self.refused.any())
        return m

    def _judge(self, m: Module, shutting: Signal) -> Any:
        """Why what was added a cycle ago is refused."""
        windows = self.windows
        soon = Signal(signed(PLACE_BITS))
        begun, end = (Signal(signed(PLACE_BITS), init=NOWHERE, name=name) for name in ("last_begun", "last_end"))
        judged, closes, reasons = Signal(), Signal(), Signal(5)
        past, behind_begun, behind_end, long = Signal(), Signal(), Signal(), Signal()
        start, new_end = Signal(signed(PLACE_BITS)), Signal(signed(PLACE_BITS))
        added = self.start.as_signed()
        m.d.comb += windows.new.eq(Cat(start, new_end, ~closes))
        m.d.sync += [
            soon.eq(_choose(self.by_positions[:2], self.position, self.time + AHEAD_CYCLES)),
            judged.eq(self.add & ~self.shut),
            start.eq(added),
            new_end.eq(added + self.cycles),
            closes.eq(self.cycles == 0),
            past.eq(added <= soon),
            behind_begun.eq(added > begun),
            behind_end.eq(added > end),
            # counts are no cycles; but without a limit there is no window of either kind
            long.eq(Mux(self.by_position, self.limit == 0, self.cycles > self.limit)),
        ]
        with m.If(judged):
            overlaps = ~Mux(closes, behind_begun, behind_end)
            m.d.comb += reasons.eq(Cat(past, overlaps, long & ~closes, ~windows.room, self.distrusted))
            with m.If(~reasons.any()):
                m.d.comb += windows.add.eq(1)
                m.d.sync += [begun.eq(start), end.eq(new_end)]
            with m.Elif(closes):
                m.d.comb += shutting.eq(1)
        with m.If(shutting):
            m.d.sync += [begun.eq(NOWHERE), end.eq(NOWHERE)]
        return reasons

    def _move(self, m: Module, shutting: Signal) -> Any:
        """Whether a window comes to the head of the queue too late: the next part would meet it."""
        windows, here = self.windows, self.here
        start, end = windows.oldest[:PLACE_BITS].as_signed(), windows.oldest[PLACE_BITS:-1].as_signed()
        # compared a cycle before they are needed: 64 bits are long
        comes, in_time, has_length = Signal(), Signal(), Signal()
        # the same in many registers, each for the pins that lie near it
        dues = [Signal(name=f"due{i}", attrs={"keep": "true"}) for i in range(14)]
        due, due_left = dues[:2]
        begins, ends = _choose(dues[2:4], start, self.begins), _choose(dues[4:6], end, self.ends)
        # once more: a comparison has two look-up tables for each bit
        begins_here, ends_here = _choose(dues[6:10], start, self.begins), _choose(dues[10:14], end, self.ends)
        before, behind = Signal(), Signal()  # of the open window: before its start (the belt went back), behind its end
        is_open, left = self.is_open, self.left
        opens, goes_on, late = Signal(), Signal(), Signal()
        m.d.comb += [
            comes.eq(windows.any & ~due & ~shutting & (here >= start)),
            windows.take.eq(due),
            late.eq(due & ~in_time & windows.oldest[-1]),
            opens.eq(due & in_time & has_length),
            goes_on.eq(is_open & ~due & ~behind & (left != 1)),
            self.overran.eq(is_open & self.by_position & ~behind & (left == 1)),
        ]
        m.d.sync += [
            here.eq(_choose(self.by_positions[2:], self.position, self.time + 2)),
            *(copy.eq(comes) for copy in dues),
            in_time.eq(here == start),
            has_length.eq(here < end),
            self.begins.eq(begins),
            self.ends.eq(ends),
            before.eq(here < begins_here),
            behind.eq(here >= ends_here),
            left.eq(Mux(due_left, self.limit, left - 1)),
            is_open.eq((opens | goes_on) & ~shutting),
            self.pin.eq((opens | goes_on & ~before) & ~shutting),
        ]
        return late


def _choose(first: list[Any], one: Any, other: Any) -> Any:
    """`one` where `first` is 1, which is a register for each part of the bits."""
    bits = PLACE_BITS // len(first)
    parts = (slice(bits * part, bits * (part + 1)) for part in range(len(first)))
    return Cat(Mux(select, one[part], other[part]) for select, part in zip(first, parts, strict=True)).as_signed()
