"""Verdicts that the broker has not yet acknowledged, in SQLite: they survive a crash, an outage and a power cut.

Write-ahead log, one commit for all that is stored and removed together. A killed process loses nothing that was
committed. A power cut may lose the commits since the last synced one (`store(..., sync=True)`), never the file. A file
that is damaged all the same is kept beside the new one, into which goes whatever can still be read of it.

One station owns the file (board/records/owner.py). What other programs do to it all the same is no damage.

The newest part ever stored is remembered in the same commit: after a crash the station knows which part came last.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from board.records.owner import Owner
from board.seams import LastPart
from protocol.errors import InputError, SinkError

# Small pages: a commit writes whole ones, and a verdict of about 700 bytes fits into one.
PAGE_BYTES = 1024
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS verdict (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS newest (only INTEGER PRIMARY KEY, seq INTEGER, run TEXT, part_id INTEGER)",
)
BUSY_TIMEOUT_S = 2.0
# subtle: a message of SQLite that quotes bytes of a damaged file fails to decode, which is no sqlite3.Error
DATABASE_TROUBLE = (sqlite3.Error, UnicodeDecodeError)


@dataclass(frozen=True)
class Item:
    """A verdict to store, and the part it is of."""

    payload: bytes
    part: LastPart


@dataclass(frozen=True)
class Entry:
    seq: int  # order of publication
    payload: bytes


class Outbox:
    """Not for two threads at once. `count` entries are stored; `set_aside` names a damaged file that was replaced."""

    def __init__(self, path: Path) -> None:
        """Raises: InputError if the file cannot be opened or made, or belongs to another program."""
        path = path.resolve()  # one file has one lock, whatever its names
        self._path = path
        self._next_seq = 1
        self.count = 0
        self.last_part: LastPart | None = None
        self.set_aside: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._owner = Owner(path)
            self._open_owned()
        except (*DATABASE_TROUBLE, OSError) as error:
            raise InputError(f"outbox {path}: {error}: make its folder writable, or move the file away") from None

    def store(self, items: Sequence[Item], removed: Iterable[int] = (), *, sync: bool = False) -> None:
        """Store in order, and remove what the broker acknowledged, in one commit; with `sync`, it is on the disk.

        Raises: SinkError; then nothing of it is done.
        """
        removals = [(seq,) for seq in removed]
        rows = [(self._next_seq + index, item.payload) for index, item in enumerate(items)]
        with self._commit(sync=sync):
            gone = self._db.executemany("DELETE FROM verdict WHERE seq = ?", removals).rowcount if removals else 0
            self._db.executemany("INSERT INTO verdict VALUES (?, ?)", rows)
            if items:
                self._remember(rows[-1][0], items[-1].part)
        self.count += len(rows) - gone
        if items:
            self._next_seq += len(rows)
            self.last_part = items[-1].part

    def sync(self) -> None:
        """What was committed is on the disk. Raises: SinkError."""
        with self._commit(sync=True):
            self._db.execute("UPDATE newest SET only = only")  # a commit of nothing would not be written

    def drop_oldest(self, count: int) -> int:
        """How many there were to drop. Raises: SinkError."""
        with self._commit(sync=False):
            oldest = "SELECT seq FROM verdict ORDER BY seq LIMIT ?"
            delete = f"DELETE FROM verdict WHERE seq IN ({oldest})"  # noqa: S608 - our own text
            dropped = self._db.execute(delete, (count,)).rowcount
        self.count -= dropped
        return dropped

    def read_after(self, seq: int, limit: int) -> list[Entry]:
        """The oldest entries beyond `seq`, in order. Raises: SinkError."""
        query = "SELECT seq, payload FROM verdict WHERE seq > ? ORDER BY seq LIMIT ?"
        try:
            return [Entry(*row) for row in self._db.execute(query, (seq, limit))]
        except DATABASE_TROUBLE as error:
            raise self._trouble(error) from None

    @property
    def last_seq(self) -> int:
        """Of the newest entry ever stored; its number is not given again."""
        return self._next_seq - 1

    def close(self) -> None:
        self._db.close()
        self._owner.release()

    def _open_owned(self) -> None:
        try:
            self._open_or_renew()
        except (*DATABASE_TROUBLE, OSError):
            self._owner.release()
            raise

    def _open_or_renew(self) -> None:
        try:
            self._open()
        except DATABASE_TROUBLE as error:
            if not is_damage(error, self._path):
                raise
            self._renew()

    def _open(self) -> None:
        self._db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self._db.execute("PRAGMA journal_mode = WAL")
        (finding,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if finding != "ok":
            raise sqlite3.DatabaseError(finding)
        for table in SCHEMA:
            self._db.execute(table)
        self._db.execute("SELECT seq, payload FROM verdict LIMIT 0")  # finds a damaged schema before it takes more
        self._db.execute("UPDATE newest SET only = only WHERE FALSE")  # writes nothing, and finds that it could not
        self._take_stock()

    def _take_stock(self) -> None:
        self.count, newest = self._db.execute("SELECT COUNT(*), COALESCE(MAX(seq), 0) FROM verdict").fetchone()
        seq, run, part_id = self._db.execute("SELECT seq, run, part_id FROM newest").fetchone() or (0, None, 0)
        self._next_seq = max(newest, seq) + 1
        self.last_part = None if run is None else LastPart(run, part_id)

    def _count_again(self) -> None:
        """What another program stored has taken the next number."""
        with contextlib.suppress(*DATABASE_TROUBLE):
            self._take_stock()

    def _renew(self) -> None:
        """Keep the damaged file under another name; begin a new one with what can still be read.

        Raises: DATABASE_TROUBLE or OSError.
        """
        last_seq, last_part = self._next_seq - 1, self.last_part
        self._db.close()
        entries = read_readable(self._path)
        if entries:
            last_seq = max(last_seq, entries[-1].seq)
            last_part = last_part or part_of(entries[-1].payload)
        self.set_aside = move_aside(self._path)
        self._open()
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO verdict VALUES (?, ?)", [(entry.seq, entry.payload) for entry in entries])
        if last_part:
            self._remember(last_seq, last_part)
        self._db.execute("COMMIT")
        self._take_stock()

    def _remember(self, seq: int, part: LastPart) -> None:
        self._db.execute("INSERT OR REPLACE INTO newest VALUES (0, ?, ?, ?)", (seq, part.run, part.part_id))

    @contextlib.contextmanager
    def _commit(self, *, sync: bool) -> Iterator[None]:
        """One commit. With `sync` it and all before it are on the disk; without, a power cut may undo them."""
        try:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except DATABASE_TROUBLE as error:
            with contextlib.suppress(*DATABASE_TROUBLE):
                self._db.execute("ROLLBACK")
            raise self._trouble(error) from None

    def _trouble(self, error: sqlite3.Error | UnicodeDecodeError) -> SinkError:
        """The error to raise; a damaged file is replaced first."""
        if isinstance(error, sqlite3.IntegrityError):
            self._count_again()
            return SinkError(f"outbox: another program writes to it ({error}): stop it, or give it a file of its own")
        if not is_damage(error, self._path):
            advice = "make it and its folder writable" if READ_ONLY in str(error) else "free some disk space"
            return SinkError(f"outbox: {error}: {advice}")
        try:
            self._renew()
        except (*DATABASE_TROUBLE, OSError) as second:
            return SinkError(f"outbox: {error}, and no new one can be made ({second}): make its folder writable")
        return SinkError(f"outbox: {error}: kept as {self.set_aside}, a new one is begun")


# What SQLite says of a file that cannot be used now, and may be whole (Python 3.10 does not pass on its error codes).
OBSTACLES = ("locked", "is full", "disk I/O error", "unable to open")
READ_ONLY = "readonly"


def is_damage(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> bool:
    """Whether it speaks of the file's bytes. Of a file that we may write, SQLite says that it is read-only when its
    header names a newer format (SQLite file format, 1.3.3).
    """
    if READ_ONLY in str(error):
        return is_writable(path)
    return not any(obstacle in str(error) for obstacle in OBSTACLES)


def is_writable(path: Path) -> bool:
    """The database with its write-ahead log, and their folder."""
    files = [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))]
    return path.exists() and all(os.access(place, os.W_OK) for place in (path.parent, *files) if place.exists())


def move_aside(path: Path) -> Path:
    """Rename a database with its write-ahead log, and return its new name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def read_readable(path: Path) -> list[Entry]:
    """The entries of a damaged file that can be read, from either end up to the damage."""
    entries: dict[int, bytes] = {}
    for order in ("ASC", "DESC"):
        with (
            contextlib.suppress(*DATABASE_TROUBLE),
            contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as db,
        ):
            for seq, payload in db.execute(f"SELECT seq, payload FROM verdict ORDER BY seq {order}"):  # noqa: S608 - our own text
                if isinstance(payload, bytes) and part_of(payload):
                    entries.setdefault(seq, payload)
    return [Entry(seq, entries[seq]) for seq in sorted(entries)]


def part_of(payload: bytes) -> LastPart | None:
    """The part that a verdict is of, None for bytes that are no verdict."""
    try:
        record = json.loads(payload)
        return LastPart(str(record["run"]), int(record["part_id"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
