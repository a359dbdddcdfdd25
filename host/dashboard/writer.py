"""Verdicts into the history. The broker is told that one has arrived when it is on the disk, and not before."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from host.dashboard.history import History, Row
from host.dashboard.tables import first_line
from protocol.broker import MAX_UNANSWERED
from protocol.console import STDERR
from protocol.messages import Opinion, Verdict
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

GATHER_S = 0.05  # verdicts of this time share one commit
RETRY_S = 1.0
SILENT_S = RETRY_S + 1.0
COMMIT_WITHIN_S = 60.0  # a database that cleans up, or deletes a day of a busy line
DELETE_EVERY_S = 3600.0


@dataclass(frozen=True)
class Item:
    message: Verdict | Opinion
    stored: Callable[[], None]  # acknowledges it


class Writer:
    """One thread. The broker sends no more than `MAX_UNANSWERED` ahead, so the queue has a bound."""

    def __init__(
        self,
        history: History,
        keep_days: float,
        show: Callable[[list[Row]], None],
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        self._history, self._keep_days, self._show = history, keep_days, show
        self._queue: queue.Queue[Item] = queue.Queue(2 * MAX_UNANSWERED)
        self._stop = threading.Event()
        self._delete_at_s = 0.0
        self.trouble = ""  # why nothing is stored at present, else empty
        self.stored = self.duplicates = self.dropped = 0
        self._thread = supervisor.start("writer", self._run, silent_s=SILENT_S)

    def put(self, item: Item) -> None:
        """Never waits. What does not fit is not acknowledged: the broker sends it again at the next connection."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        self._thread.stop(self._stop.set, 10.0)

    def _run(self, supervised: Supervised) -> None:
        items: list[Item] = []
        while not self._stop.is_set() or not self._queue.empty():
            supervised.beat()
            items += self._gather()
            with supervised.busy(COMMIT_WITHIN_S):
                is_stored = self._try(items)
            if is_stored:
                items = []
            elif self._stop.wait(RETRY_S):
                return  # they were not acknowledged, and come again

    def _gather(self) -> list[Item]:
        items = []
        try:
            items.append(self._queue.get(timeout=0.2))
            time.sleep(GATHER_S)
            while len(items) < MAX_UNANSWERED:
                items.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return items

    def _try(self, items: list[Item]) -> bool:
        verdicts = [item.message for item in items if isinstance(item.message, Verdict)]
        try:
            added = self._history.add(verdicts) if verdicts else []
            for item in items:
                if isinstance(item.message, Opinion):
                    self._history.add_opinion(item.message)
            self._delete_when_due()
        except SQLAlchemyError as error:
            self._say(f"the history cannot be written ({first_line(error)}): free the disk, or start the database")
            return False
        self._say("")
        for item in items:
            item.stored()
        self.stored += len(added)
        self.duplicates += len(verdicts) - len(added)
        if added:
            self._show(added)
        return True

    def _delete_when_due(self) -> None:
        if time.monotonic() >= self._delete_at_s:
            self._delete_at_s = time.monotonic() + DELETE_EVERY_S
            self._history.delete_older(self._keep_days)

    def _say(self, trouble: str) -> None:
        """In the log, when it is news."""
        if trouble != self.trouble:
            self.trouble = trouble
            STDERR.write(f"beltsight: {trouble or 'the history is written again'}")
