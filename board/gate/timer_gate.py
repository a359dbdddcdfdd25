"""The gate on the overlay's timer, which closes it at the end of each window whatever becomes of us."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from board.gate.ahead import Driver
from board.gate.keeper import Keeper, Opening
from board.gate.timer import LineTimer
from board.log import say
from protocol.errors import EngineError
from protocol.units import NS_PER_S

FAR_NS = 10_000_000_000  # for so long ahead windows are programmed
SOON_NS = 30_000_000  # what may still grow is programmed so late
MOST_QUEUED = 6  # of the timer's 8: a window that is cut in two needs two
AHEAD_CYCLES = 16  # a window must lie so far ahead
AHEAD_NS = 300_000
SLACK_NS = 1_000_000  # by which an estimate of the belt may be off before the timer is programmed anew
RETRY_NS = 5_000_000


@dataclass(frozen=True)
class Window:
    start_ns: int
    end_ns: int


class TimerGate(Driver):
    """Keeps the timer's queue as the keeper wants the gate from now on; what has become wrong is shut at once."""

    plans_ahead = True

    def __init__(
        self, keeper: Keeper, timer: LineTimer, limit_ns: int, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`limit_ns`: for no longer than this the timer ever opens the gate at once. Raises: EngineError."""
        super().__init__(keeper, now_ns)
        self._timer = timer
        self._limit_ns = limit_ns
        self._limit = max(1, round(limit_ns * timer.clock_hz / NS_PER_S))
        self._queued: list[Window] = []
        self._last_cycle = 0  # of the last window, in the timer's cycles
        self._refused = 0
        self._given_up_ns = 0  # what lies before it was refused
        self._generation = 0
        self._prepare()

    def turn(self) -> int:
        now_ns = self._now_ns()
        with self._wake:
            self._has_news = False
            self._keeper.look(now_ns)
            wanted = [] if self._is_held else self._keeper.openings(now_ns, now_ns + FAR_NS)
            next_ns = self._keeper.next_look_ns(now_ns)
        if self._faults.is_distrusted(now_ns):
            wanted = []
        try:
            self._program(now_ns, wanted)
            if self._is_held and wanted:  # subtle: it was shut for that while we programmed it
                self._program(now_ns, [])
        except EngineError as error:
            self._faults.note(str(error), now_ns)
            return now_ns + RETRY_NS
        self._faults.note_closed()
        return min([next_ns, *(window.end_ns for window in self._queued), *self._soon(now_ns, wanted)])

    def hold(self, is_held: bool) -> None:
        """subtle: what is queued is forgotten by the next turn, if there is one."""
        self._is_held = is_held
        if is_held:
            with contextlib.suppress(EngineError):  # then the end of its window closes it
                self._timer.write(GATE_SHUT=1)

    def counters(self) -> dict[str, int | float]:
        return {**super().counters(), "gate_refused": self._refused}

    def close(self) -> None:
        self._end()
        with contextlib.suppress(EngineError):  # then the end of its window closes it
            self._timer.write(GATE_SHUT=1)

    def _prepare(self) -> None:
        """After the start, and when the overlay was loaded anew: without a limit the timer opens for nobody."""
        self._generation = self._timer.look()
        self._timer.write(GATE_SHUT=1, GATE_LIMIT=self._limit)
        self._queued, self._last_cycle = [], 0

    def _program(self, now_ns: int, wanted: list[Opening]) -> None:
        with self._timer.lock:
            if self._timer.look() != self._generation:
                self._prepare()
            self._queued = [window for window in self._queued if window.end_ns > now_ns]
            if not self._is_right(now_ns, wanted):
                self._timer.write(GATE_SHUT=1)
                self._queued, self._last_cycle = [], 0
            for window in self._missing(now_ns, wanted):
                if not self._queue(window):
                    return

    def _is_right(self, now_ns: int, wanted: list[Opening]) -> bool:
        """Nothing is queued that is not wanted, and nothing is wanted between what is queued."""
        if not all(any(_is_within(window, opening, now_ns) for opening in wanted) for window in self._queued):
            return False
        end_ns = self._queued[-1].end_ns if self._queued else now_ns
        asked_ns = sum(_overlap_ns(opening, now_ns, end_ns) for opening in wanted)
        return asked_ns <= sum(_overlap_ns(window, now_ns, end_ns) for window in self._queued) + SLACK_NS

    def _missing(self, now_ns: int, wanted: list[Opening]) -> list[Window]:
        """The next windows behind what is queued."""
        end_ns = max([self._given_up_ns, *(window.end_ns for window in self._queued)])
        found: list[Window] = []
        for opening in wanted:
            start_ns = max(opening.start_ns, end_ns)
            if not opening.is_whole and start_ns > now_ns + SOON_NS:
                break
            while start_ns < opening.end_ns:
                found.append(Window(start_ns, min(opening.end_ns, start_ns + self._limit_ns)))
                start_ns = found[-1].end_ns
        return found[: max(0, MOST_QUEUED - len(self._queued))]

    def _queue(self, window: Window) -> bool:
        moment = self._timer.now()
        rate = self._timer.clock_hz / NS_PER_S
        start, end = (moment.cycles + round((t_ns - moment.t_ns) * rate) for t_ns in (window.start_ns, window.end_ns))
        soonest = moment.cycles + AHEAD_CYCLES + round((self._now_ns() - moment.t_ns + AHEAD_NS) * rate)
        start = max(start, soonest, self._last_cycle + 1)  # subtle: the timer wants one cycle between two windows
        if start >= end:
            return True
        why = self._timer.queue_window(start, min(end - start, self._limit))
        if not why:
            self._queued.append(window)
            self._last_cycle = start + min(end - start, self._limit)
            return True
        self._refused += 1
        self._given_up_ns = window.end_ns
        say(f"the gate stays closed for a part: {why}", level="WARNING")
        return False

    def _soon(self, now_ns: int, wanted: list[Opening]) -> list[int]:
        """When something has to be programmed that is not yet."""
        end_ns = max([self._given_up_ns, *(window.end_ns for window in self._queued)])
        return [
            max(now_ns + SLACK_NS, max(opening.start_ns, end_ns) - SOON_NS // 2)
            for opening in wanted
            if opening.end_ns > end_ns
        ]


def _overlap_ns(span: Window | Opening, from_ns: int, until_ns: int) -> int:
    return max(0, min(span.end_ns, until_ns) - max(span.start_ns, from_ns))


def _is_within(window: Window, opening: Opening, now_ns: int) -> bool:
    slack_ns = 0 if opening.is_whole else SLACK_NS
    starts = opening.start_ns - slack_ns <= max(window.start_ns, now_ns)
    return starts and window.end_ns <= opening.end_ns + slack_ns
