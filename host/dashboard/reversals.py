"""Changes of the model that were obeyed and did not hold: a model on trial may go back many parts after its answer."""

from __future__ import annotations

import contextlib
import threading
from collections import deque

from sqlalchemy.exc import SQLAlchemyError

from host.dashboard.audit import Audit
from protocol.commands import Answer

KEPT = 32  # of the latest orders


class Reversals:
    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._obeyed: deque[str] = deque(maxlen=KEPT)  # ids
        self._entries: dict[str, int] = {}  # of the audit log, by the order's id
        self._waiting: deque[Answer] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self.latest = ""  # why the last one went back; empty once another change was obeyed

    def expect(self, order_id: str, entry: int) -> None:
        """An order of this page, before it is sent."""
        with self._lock:
            self._entries[order_id] = entry
            if len(self._entries) > KEPT:
                del self._entries[next(iter(self._entries))]

    def hear(self, answer: Answer) -> None:
        """Any answer of the line, to whomever. Never waits."""
        if answer.command not in ("model", "rollback"):
            return
        with self._lock:
            if answer.obeyed:
                self._obeyed.append(answer.id)
                self.latest = ""
            elif answer.id in self._obeyed:
                self.latest = answer.reason[:500]
                self._waiting.append(answer)

    def write_down(self) -> None:
        """In the audit log, from a thread that may wait for the database; what that does not take stays "done"."""
        while self._waiting:
            answer = self._waiting.popleft()
            entry = self._entries.get(answer.id)
            if entry is not None:
                with contextlib.suppress(SQLAlchemyError):
                    self._audit.finish(entry, f"done, and taken back: {answer.reason}")
