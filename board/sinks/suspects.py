"""Verdicts on whose way a connection broke. A broker that does not say its limits hangs up on what is too long for it:
each suspect goes alone, so that the one to blame is found and holds up no other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from board.records.outbox import Entry

GUILTY_AFTER = 3  # connections that broke while it alone was on its way
RETRY_S = 2.0  # after each of these the next one comes so much later


@dataclass
class Suspect:
    due_s: float
    breaks: int = 0


class Suspects:
    """By their number in the outbox."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._suspects: dict[int, Suspect] = {}
        self._longest_taken = 0  # bytes of the longest verdict that the broker has acknowledged
        self.seqs = self._suspects.keys()

    def note_broken(self, on_their_way: list[Entry]) -> Entry | None:
        """A connection broke. The one that is to blame for it without doubt, which is then no suspect any more."""
        now_s = self._clock_s()
        for entry in on_their_way:
            self._suspects.setdefault(entry.seq, Suspect(now_s))
        if len(on_their_way) != 1:
            return None
        (alone,) = on_their_way
        suspect = self._suspects[alone.seq]
        suspect.breaks += 1
        suspect.due_s = now_s + RETRY_S * (suspect.breaks - 1)
        if suspect.breaks < GUILTY_AFTER or len(alone.payload) <= self._longest_taken or not self._longest_taken:
            return None
        del self._suspects[alone.seq]
        return alone

    def note_acknowledged(self, entry: Entry) -> None:
        self._suspects.pop(entry.seq, None)
        self._longest_taken = max(self._longest_taken, len(entry.payload))

    def forget(self, seq: int) -> None:
        self._suspects.pop(seq, None)

    def next(self) -> int | None:
        """To be sent alone now; those that broke least come first."""
        due = [(one.breaks, seq) for seq, one in self._suspects.items() if one.due_s <= self._clock_s()]
        return min(due, default=(0, None), key=lambda item: (item[0], item[1] or math.inf))[1]
