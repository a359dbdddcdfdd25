"""Has no part come for longer than is usual? How long that is, the line learns from the times between its parts."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

from board.condition import Complaint

UNLEARNED_S = 60.0  # before enough parts were seen
FEWEST_GAPS = 20
KEPT_GAPS = 200
# Parts that come at random have gaps of more than 20 medians once in a million (e^-13.9).
MEDIANS = 20.0
LEAST_S, MOST_S = 10.0, 600.0


class Idle:
    def __init__(self, after_s: float, now_s: Callable[[], float]) -> None:
        """`after_s`: configured; 0: learned."""
        self._after_s, self._now_s = after_s, now_s
        self._gaps_s: deque[float] = deque(maxlen=KEPT_GAPS)
        self._limit_s = after_s or UNLEARNED_S
        self._last_s = now_s()
        self._is_first = True

    def note(self) -> None:
        """A part has come."""
        now_s = self._now_s()
        gap_s, self._last_s = now_s - self._last_s, now_s
        if gap_s <= self._limit_s and not self._is_first:  # a pause is no rhythm
            self._gaps_s.append(gap_s)
        self._is_first = False

    def complaint(self) -> Complaint | None:
        if self._now_s() - self._last_s <= self._limit_s:
            self._learn()
            return None
        since = "since the start" if self._is_first else f"for more than {self._limit_s:.0f} s"
        return Complaint("idle", f"no part has come {since}: does the belt run, and does the light barrier see it?")

    def _learn(self) -> None:
        """subtle: between two parts, so that a longer gap is not measured with what it made of the limit."""
        if not self._after_s and len(self._gaps_s) >= FEWEST_GAPS:
            self._limit_s = min(max(MEDIANS * statistics.median(self._gaps_s), LEAST_S), MOST_S)
