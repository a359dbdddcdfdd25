"""The gate on the overlay's timer, which closes it at the end of each window whatever becomes of us."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from board.gate.ahead import Driver
from board.gate.keeper import Keeper, Opening
from board.gate.timer import LineTimer
from board.gate.tracks import Track, Window
from board.log import say
from protocol.errors import EngineError

MOST_QUEUED = 6  # of the timer's 8: a window that is cut in two needs two
RETRY_NS = 5_000_000
NOWHERE = -(1 << 62)


class TimerGate(Driver):
    """Keeps the timer's queue as the keeper wants the gate from now on; what has become wrong is shut at once."""

    plans_ahead = True

    def __init__(
        self, keeper: Keeper, timer: LineTimer, track: Track, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Raises: EngineError."""
        super().__init__(keeper, now_ns)
        self._timer, self._track = timer, track
        self._queued: list[Window] = []
        self._last = NOWHERE  # end of the last window, in the timer's cycles or counts
        self._refused = 0
        self._given_up = NOWHERE  # what lies before it was refused
        self._generation = 0
        self._prepare()

    def turn(self) -> int:
        now_ns = self._now_ns()
        with self._wake:
            self._has_news = False
            self._keeper.look(now_ns)
            wanted = [] if self._is_held else self._track.wanted(self._keeper, now_ns)
            next_ns = self._keeper.next_look_ns(now_ns)
        if self._faults.is_distrusted(now_ns):
            wanted = []
        try:
            here = self._program(now_ns, wanted)
            if self._is_held and wanted:  # subtle: it was shut for that while we programmed it
                here = self._program(now_ns, [])
        except EngineError as error:
            self._faults.note(str(error), now_ns)
            return now_ns + RETRY_NS
        self._faults.note_closed()
        if here is None:
            return min(next_ns, now_ns + RETRY_NS)
        return min([next_ns, *self._track.times(self._due(wanted), here, now_ns)])

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
        self._timer.write(GATE_SHUT=1, **self._track.registers(self._timer))
        self._queued, self._last = [], NOWHERE

    def _program(self, now_ns: int, wanted: list[Opening]) -> int | None:
        """Where on its track the gate is; None where the timer opens for nobody."""
        with self._timer.lock:
            if self._timer.look() != self._generation:
                self._prepare()
            if self._track.has_dropped(self._timer):
                self._queued, self._last = [], NOWHERE
            here = self._track.here(self._timer, now_ns)
            if here is None:
                return None
            self._queued = [window for window in self._queued if window.end > here]
            if not self._is_right(here, wanted) or self._is_clumsy(here, wanted):
                self._timer.write(GATE_SHUT=1)
                self._queued, self._last = [], NOWHERE
            for window in self._missing(here, wanted):
                if not self._queue(window):
                    break
            return here

    def _is_right(self, here: int, wanted: list[Opening]) -> bool:
        """Nothing is queued that is not wanted, and nothing is wanted between what is queued."""
        if not all(any(self._is_within(window, opening, here) for opening in wanted) for window in self._queued):
            return False
        end = self._queued[-1].end if self._queued else here
        asked = sum(_overlap(opening, here, end) for opening in wanted)
        return asked <= sum(_overlap(window, here, end) for window in self._queued) + self._track.slack

    def _is_clumsy(self, here: int, wanted: list[Opening]) -> bool:
        """A window ends at somebody's middle, and it is known now that another follows: here it can be mended."""
        slack = self._track.slack
        return not self._track.is_hurt(here, 2 * slack) and any(
            self._track.is_hurt(window.end, slack // 4) and opening.start < window.end < opening.end
            for window in self._queued
            for opening in wanted
        )

    def _is_within(self, window: Window, opening: Opening, here: int) -> bool:
        is_exact = opening.is_whole and not self._track.is_estimated
        slack = self._track.rounded if is_exact else self._track.slack
        return opening.start - slack <= max(window.start, here) and window.end <= opening.end + slack

    def _missing(self, here: int, wanted: list[Opening]) -> list[Window]:
        """The next windows behind what is queued."""
        found: list[Window] = []
        for opening in wanted:
            start = max(opening.start, self._end_of_queue)
            if not opening.is_whole and start > here + self._track.soon:
                break
            while opening.end - start > self._track.rounded:
                window = Window(start, min(opening.end, start + self._track.most))
                if window.end < opening.end or not opening.is_whole:
                    window = self._track.cut(window)
                found.append(window)
                start = window.end
        return found[: max(0, MOST_QUEUED - len(self._queued))]

    def _queue(self, window: Window) -> bool:
        start, end = self._track.place(self._timer, window, self._now_ns)
        start = max(start, self._last + 1)  # subtle: the timer wants one cycle between two windows
        if start >= end:
            return True
        why = self._timer.queue_window(start, end - start)
        if not why:
            self._queued.append(window)
            self._last = end
            return True
        self._refused += 1
        self._given_up = window.end
        say(f"the gate stays closed for a part: {why}", level="WARNING")
        return False

    @property
    def _end_of_queue(self) -> int:
        return max([self._given_up, *(window.end for window in self._queued)])

    def _due(self, wanted: list[Opening]) -> list[int]:
        """Where something has to be programmed that is not yet, and where the queue becomes shorter."""
        end = self._end_of_queue
        starts = [max(opening.start, end) - self._track.soon // 2 for opening in wanted if opening.end > end]
        return [*starts, *(window.end for window in self._queued)]


def _overlap(span: Window | Opening, begin: int, end: int) -> int:
    return max(0, min(span.end, end) - max(span.start, begin))
