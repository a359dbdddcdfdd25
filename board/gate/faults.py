"""A gate that does not do what it is told: counted, said, closed, and believed again only after a while."""

from __future__ import annotations

from board.condition import Complaint
from board.log import say

DISTRUST_NS = 500_000_000  # after a fault the gate opens for nobody for so long
SHOWN_NS = 10_000_000_000  # so that people see it
STUCK_NS = 300_000_000  # a gate that could not be closed for so long


class Faults:
    def __init__(self) -> None:
        self.count = 0
        self._what = ""
        self._since_ns: int | None = None  # when it could first not be closed; None while it can
        self._last_ns: int | None = None

    def note(self, what: str, now_ns: int) -> None:
        """A movement failed: where the gate stands is not known, and it has to be closed before anything else."""
        self.count += 1
        if self._since_ns is None:
            self._since_ns = now_ns
            say(f"the gate failed ({what}): closing it", level="ERROR", gate_faults=self.count)
        self._what, self._last_ns = what, now_ns

    def note_closed(self) -> None:
        if self._since_ns is not None:
            say("the gate is closed", level="WARNING")
        self._since_ns = None

    @property
    def must_close(self) -> bool:
        return self._since_ns is not None

    def is_distrusted(self, now_ns: int) -> bool:
        return self._last_ns is not None and now_ns < self._last_ns + DISTRUST_NS

    def complaint(self, now_ns: int) -> Complaint | None:
        if self._last_ns is None or now_ns > self._last_ns + SHOWN_NS:
            return None
        if self._since_ns is not None and now_ns > self._since_ns + STUCK_NS:
            return Complaint("stopped", f"the gate cannot be closed ({self._what}): stop the belt, check [gate]")
        return Complaint("degraded", f"the gate failed ({self._what}) and was closed: check what [gate] names")
