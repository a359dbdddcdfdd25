"""Verdicts into the history. The broker is told that one has arrived when it is on the disk, and not before."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    SQLAlchemyError,
    StatementError,
)

from host.aside import Aside
from host.dashboard.history import History, Row
from host.dashboard.retention import Retention
from host.dashboard.tables import first_line
from protocol.broker import MAX_UNANSWERED
from protocol.console import STDERR
from protocol.messages import Opinion, Verdict, encode_json
from protocol.supervision import SUPERVISOR, Supervised, Supervisor, describe

GATHER_S = 0.05  # verdicts of this time share one commit
RETRY_S = 1.0
SILENT_S = RETRY_S + 1.0
COMMIT_WITHIN_S = 60.0  # a database that cleans up, or deletes a day of a busy line
MIGRATE_WITHIN_S = 3600.0  # an index over a hundred million parts
TIDY_S = 0.5  # at a time: a block takes a hundredth of it, and an older file has thousands to make
DELETE_EVERY_S = 3600.0
# What a message of a broker's user may bring about in a program that thought of everything else.
OF_THE_MESSAGE = (ValueError, ArithmeticError, LookupError, TypeError)


@dataclass(frozen=True)
class Item:
    message: Verdict | Opinion
    stored: Callable[[], None]  # acknowledges it


class Writer:
    """One thread. The broker sends no more than `MAX_UNANSWERED` ahead, so the queue has a bound."""

    def __init__(
        self,
        history: History,
        retention: Retention,
        aside: Aside,
        show: Callable[[list[Row]], None],
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        self._history, self._retention, self._aside, self._show = history, retention, aside, show
        self._queue: queue.Queue[Item] = queue.Queue(2 * MAX_UNANSWERED)
        self._stop = threading.Event()
        self._delete_at_s = 0.0
        self._is_migrated = False
        self._obstacle = ""
        self.stored = self.duplicates = self.dropped = 0
        self._thread = supervisor.start("writer", self._run, silent_s=SILENT_S)

    @property
    def trouble(self) -> str:
        """Why nothing is stored at present, or what was set aside; else empty."""
        return self._obstacle or self._aside.trouble

    @property
    def is_stopped(self) -> bool:
        """Nothing is stored at present."""
        return bool(self._obstacle)

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
            with supervised.busy(COMMIT_WITHIN_S if self._is_migrated else MIGRATE_WITHIN_S):
                items = self._store(items)
                self._tidy()
            if items and self._stop.wait(RETRY_S):
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

    def _store(self, items: list[Item]) -> list[Item]:
        """Those that have to be tried again. Where one of several does not fit, each half is tried by itself."""
        if not items:
            return []
        try:
            added = self._add([item.message for item in items])
        except OF_THE_MESSAGE as error:
            return self._divide(items, describe(error))
        except SQLAlchemyError as error:
            if is_of_the_message(error):
                return self._divide(items, first_line(error))
            self._say(f"the history cannot be written ({first_line(error)}): free the disk, or start the database")
            return items
        self._say("")
        for item in items:
            item.stored()
        if added:
            self._show(added)
        return []

    def _add(self, messages: list[Verdict | Opinion]) -> list[Row]:
        """Raises: SQLAlchemyError; whatever a message may bring about."""
        verdicts = [message for message in messages if isinstance(message, Verdict)]
        added = self._history.add(verdicts)
        self.stored += len(added)
        self.duplicates += len(verdicts) - len(added)
        for message in messages:
            if isinstance(message, Opinion):
                self._history.add_opinion(message)
        return added

    def _divide(self, items: list[Item], reason: str) -> list[Item]:
        if len(items) > 1:
            half = len(items) // 2
            return self._store(items[:half]) + self._store(items[half:])
        (item,) = items
        if not self._aside.take(encode_json(item.message), reason):
            return items
        item.stored()
        return []

    def _tidy(self) -> None:
        """What may wait: an older file is brought up to this version, blocks are made, old parts go."""
        if self._obstacle:
            return
        try:
            self._is_migrated = self._is_migrated or self._history.migrate()
            until_s = time.monotonic() + TIDY_S
            while self._history.is_block_due and time.monotonic() < until_s:
                self._history.summarize()
            if time.monotonic() >= self._delete_at_s:
                self._delete_at_s = time.monotonic() + DELETE_EVERY_S
                self._retention.delete_old()
        except SQLAlchemyError as error:
            self._say(f"the history cannot be tidied ({first_line(error)}): free the disk, or start the database")

    def _say(self, obstacle: str) -> None:
        """In the log, when it is news."""
        if obstacle != self._obstacle:
            self._obstacle = obstacle
            STDERR.write(f"beltsight: {obstacle or 'the history is written again'}")


def is_of_the_message(error: SQLAlchemyError) -> bool:
    """Rather than of the database, which the next message would meet too."""
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
        return True  # a value that its type does not take
    return isinstance(error, (DataError, IntegrityError, NotSupportedError))
