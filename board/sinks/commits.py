"""When verdicts go to the disk: several share a commit, several commits share a sync, removals go along with them."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable

from board.records.outbox import Item, Outbox
from board.sinks.connection import drain
from board.sinks.delivery import Delivery
from protocol.errors import SinkError

REMOVE_WITHIN_S = 1.0  # acknowledged verdicts leave with the next commit, or after this one of their own
MAX_UNREMOVED = 256


class Commits:
    """The line's thread hands verdicts over; all the rest is the outbox's thread's."""

    def __init__(self, outbox: Outbox, delivery: Delivery, *, commit_every_s: float, sync_every_s: float) -> None:
        """`commit_every_s` 0: each verdict at once, and synced."""
        self._outbox, self._delivery = outbox, delivery
        self._each_is_synced = commit_every_s == 0
        self._commit_every_s, self._sync_every_s = commit_every_s, sync_every_s
        self._commit_due_s = math.inf
        self._incoming: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._uncommitted: list[Item] = []
        self._unsynced_since_s: float | None = None
        self._unremoved_since_s = 0.0
        self._committed = threading.Condition()
        self._handed_over = self._stored = 0

    @property
    def unstored(self) -> int:
        """Verdicts handed over and not committed."""
        return self._handed_over - self._stored

    def hand_over(self, item: Item) -> None:
        self._incoming.put(item)
        self._handed_over += 1

    def await_stored(self, is_in_vain: Callable[[], bool], within_s: float) -> bool:
        """Whether all that was handed over is committed."""
        number = self._handed_over
        with self._committed:
            self._committed.wait_for(lambda: self._stored >= number or is_in_vain(), within_s)
        return self._stored >= number

    def store(self, *, is_last: bool) -> None:
        """Commit what came and what can go, when there is reason to. Raises: SinkError."""
        self._uncommitted += drain(self._incoming)
        if self._uncommitted and self._is_too_early() and not is_last:
            return
        if not self._delivery.acknowledged:
            self._unremoved_since_s = time.monotonic()
        if not self._uncommitted and not self._must_remove(len(self._delivery.acknowledged), is_last):
            self._sync_when_due(is_last)
            return
        try:
            self._commit(self._uncommitted, is_last)
        except SinkError:
            self._commit([], is_last)  # on a full disk this may make room; what came waits for the next turn
            raise
        with self._committed:
            self._stored += len(self._uncommitted)
            self._uncommitted = []
            self._committed.notify_all()

    def _is_too_early(self) -> bool:
        """Others that come before it is time go into the same commit."""
        now_s = time.monotonic()
        self._commit_due_s = min(self._commit_due_s, now_s + self._commit_every_s)
        if now_s < self._commit_due_s:
            return True
        self._commit_due_s = math.inf
        return False

    def _must_remove(self, count: int, is_last: bool) -> bool:
        overdue = time.monotonic() - self._unremoved_since_s > REMOVE_WITHIN_S
        return count > 0 and (is_last or overdue or count >= MAX_UNREMOVED)

    def _commit(self, items: list[Item], is_last: bool) -> None:
        is_synced = bool(items) and (self._each_is_synced or self._is_sync_due(is_last))
        removable, self._delivery.acknowledged = self._delivery.acknowledged, []
        try:
            self._outbox.store(items, removable, sync=is_synced)
        except SinkError:
            self._delivery.acknowledged = removable
            raise
        if is_synced:
            self._unsynced_since_s = None
        elif items and self._unsynced_since_s is None:
            self._unsynced_since_s = time.monotonic()

    def _is_sync_due(self, is_last: bool) -> bool:
        since_s = self._unsynced_since_s
        if since_s is None:
            return self._sync_every_s == 0
        return is_last or time.monotonic() - since_s >= self._sync_every_s

    def _sync_when_due(self, is_last: bool) -> None:
        if self._unsynced_since_s is not None and self._is_sync_due(is_last):
            self._outbox.sync()
            self._unsynced_since_s = None
