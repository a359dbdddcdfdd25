"""A model of the overlay's queue of windows, fast enough for 200,000 parts; a test holds it to the Verilog."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from board.gate.timer import REASONS, Moment
from board.overlay.registers import REFUSED_FULL, REFUSED_LONG, REFUSED_OVERLAP, REFUSED_PAST
from protocol.units import NS_PER_S

AHEAD_CYCLES = 8
WINDOWS = 8


@dataclass
class FabricQueue:
    """Stands in for `LineTimer`. Its cycles are those of the clock that the test moves on."""

    clock_hz: float
    cycle: int = 0
    moves: list[tuple[int, bool]] = field(default_factory=list)  # cycle, is open
    lock: threading.RLock = field(default_factory=threading.RLock)
    _limit: int = 0
    _queue: list[tuple[int, int]] = field(default_factory=list)
    _end: int | None = None  # of the window that is open
    _last: tuple[int, int] = (-1, -1)  # begin and end of the last one queued

    def run_to(self, cycle: int) -> None:
        while True:
            if self._end is not None and self._end <= cycle and not (self._queue and self._queue[0][0] < self._end):
                self.moves.append((self._end, False))
                self._end = None
            elif self._queue and self._queue[0][0] <= cycle:
                begin, end = self._queue.pop(0)
                if self._end is None:
                    self.moves.append((begin, True))
                self._end = end
            else:
                break
        self.cycle = cycle

    def look(self) -> int:
        return 1

    def now(self) -> Moment:
        return Moment(self.cycle, round(self.cycle * NS_PER_S / self.clock_hz), 0)

    def write(self, **values: int) -> None:
        if "GATE_LIMIT" in values:
            self._limit = values["GATE_LIMIT"]
        if "GATE_SHUT" in values or "GATE_LIMIT" in values:
            self._queue.clear()
            self._last = (-1, -1)
            if self._end is not None:
                self.moves.append((self.cycle, False))
                self._end = None

    def queue_window(self, start: int, cycles: int) -> str:
        refused = REFUSED_PAST * (start <= self.cycle + AHEAD_CYCLES) | REFUSED_OVERLAP * (start <= self._last[1])
        refused |= REFUSED_LONG * (cycles > self._limit) | REFUSED_FULL * (len(self._queue) >= WINDOWS)
        if not refused:
            self._queue.append((start, start + cycles))
            self._last = (start, start + cycles)
        return ", ".join(text for bit, text in REASONS.items() if refused & bit)
