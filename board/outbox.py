"""Verdicts that the broker has not yet acknowledged, in SQLite: they survive a crash and an outage.

One thread owns an Outbox. Write-ahead log with `synchronous = NORMAL`: a killed process loses nothing that was
committed; a power cut may lose the commits since the last checkpoint, never the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import InputError, SinkError

SCHEMA = "CREATE TABLE IF NOT EXISTS verdict (seq INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB NOT NULL)"
BUSY_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Entry:
    seq: int  # order of publication
    payload: bytes


class Outbox:
    def __init__(self, path: Path) -> None:
        """Raises: InputError if the file cannot be opened as an outbox."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(SCHEMA)
            self.count = int(self._db.execute("SELECT COUNT(*) FROM verdict").fetchone()[0])
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"outbox {path}: {error}: make its folder writable, or move the file away") from None

    def add(self, payloads: list[bytes]) -> None:
        """Store in order, in one commit. Raises: SinkError; then nothing of it is stored."""
        self.count += self._write("INSERT INTO verdict (payload) VALUES (?)", [(payload,) for payload in payloads])

    def remove(self, seqs: Iterable[int]) -> None:
        """Those that are still there: one may have been dropped before the broker acknowledged it."""
        self.count -= self._write("DELETE FROM verdict WHERE seq = ?", [(seq,) for seq in seqs])

    def drop_oldest(self, count: int) -> int:
        """How many there were to drop."""
        oldest = "SELECT seq FROM verdict ORDER BY seq LIMIT ?"
        dropped = self._write(f"DELETE FROM verdict WHERE seq IN ({oldest})", [(count,)])  # noqa: S608 - our own text
        self.count -= dropped
        return dropped

    def read_after(self, seq: int, limit: int) -> list[Entry]:
        """The oldest entries beyond `seq`, in order."""
        query = "SELECT seq, payload FROM verdict WHERE seq > ? ORDER BY seq LIMIT ?"
        try:
            return [Entry(*row) for row in self._db.execute(query, (seq, limit))]
        except sqlite3.Error as error:
            raise SinkError(f"outbox: {error}") from None

    def last_seq(self) -> int:
        """Of the newest entry, 0 when there is none."""
        return int(self._db.execute("SELECT COALESCE(MAX(seq), 0) FROM verdict").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
        """How many entries it changed."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            changed = self._db.executemany(statement, rows).rowcount
            self._db.execute("COMMIT")
            return max(changed, 0)  # SQLite says -1 of no rows at all
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise SinkError(f"outbox: {error}: free some disk space") from None
