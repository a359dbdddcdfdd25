"""How long parts stay: by days since they came, by the clock of this machine, and by bytes. Totals stay for good.

A station's own clock may stand at 1970 or be years ahead, and decides nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from sqlalchemy import Connection, Engine, and_, delete, func, select, text
from sqlalchemy.sql import ColumnElement

from host.dashboard.blocks import DECISIONS, Line
from host.dashboard.search import ENDLESS, of_line
from host.dashboard.tables import ARRIVALS, BLOCKS, OPINIONS, PARTS
from protocol.messages import rfc3339

DELETED_AT_ONCE = 5000  # rows of one transaction, so that no other waits for long
FIRST_YEAR = 2026  # a clock that is behind has not been set, and says nothing of when a part came
ROW_BYTES = 700  # of PostgreSQL, with indexes: what its tables take does not shrink when rows go


def now_utc() -> datetime:
    return datetime.now(timezone.utc)


def arrival_hour(now: datetime) -> str:
    """In the history's form; empty for a clock that was never set."""
    return rfc3339(now.replace(minute=0, second=0, microsecond=0)) if now.year >= FIRST_YEAR else ""


def note_arrival(connection: Connection, line: Line, seq: int, hour: str) -> None:
    """Parts from `seq` on, up to the next note, came in this hour; or nobody knows when, where it is empty."""
    name = hour or f"unset-{seq}"
    own = (ARRIVALS.c.site == line[0], ARRIVALS.c.line == line[1])
    if connection.execute(select(ARRIVALS.c.seq).where(*own, ARRIVALS.c.hour == name)).first() is None:
        connection.execute(ARRIVALS.insert().values(site=line[0], line=line[1], hour=name, seq=seq))


class Retention:
    """Owned by the writer's thread."""

    def __init__(
        self, engine: Engine, line: Line, *, keep_days: float, keep_bytes: int, now: Callable[[], datetime] = now_utc
    ) -> None:
        self._engine, self._line, self._now = engine, line, now
        self._keep_days, self._keep_bytes = keep_days, keep_bytes
        self.is_short = False  # the bound in bytes has been met: parts go before their days are over

    def delete_old(self) -> int:
        """How many parts were deleted. Raises: SQLAlchemyError."""
        deleted = self._delete_below(self._first_of_days())
        too_many = self._too_many()
        self.is_short = self.is_short or too_many > 0
        if too_many:
            deleted += self._delete_below(self._first_seq() + too_many)
        with self._engine.begin() as connection:  # opinions on parts that never came
            limit = rfc3339(self._now() - timedelta(days=self._keep_days))
            part = select(PARTS.c.seq).where(PARTS.c.key == OPINIONS.c.key).exists()
            connection.execute(delete(OPINIONS).where(OPINIONS.c.time < limit, ~part))
        return deleted

    def used_bytes(self) -> int:
        """Of the whole database. Raises: SQLAlchemyError."""
        with self._engine.connect() as connection:
            if self._engine.dialect.name != "sqlite":
                first, last = connection.execute(select(func.min(PARTS.c.seq), func.max(PARTS.c.seq))).one()
                return ROW_BYTES * (last - first + 1) if last else 0
            pages, free, size = (
                int(connection.execute(text(f"PRAGMA {name}")).scalar() or 0)
                for name in ("page_count", "freelist_count", "page_size")
            )
            return (pages - free) * size

    def _first_of_days(self) -> int:
        """Parts below it came before the days that are kept. Those that nobody knows of go with the next ones."""
        limit = rfc3339(self._now() - timedelta(days=self._keep_days, hours=1))
        own = (ARRIVALS.c.site == self._line[0], ARRIVALS.c.line == self._line[1])
        with self._engine.connect() as connection:
            newest = connection.execute(select(func.max(ARRIVALS.c.seq)).where(*own, ARRIVALS.c.hour <= limit)).scalar()
            if newest is None:
                return 0
            follows = select(func.min(ARRIVALS.c.seq)).where(*own, ARRIVALS.c.seq > newest)
            return int(connection.execute(follows).scalar() or ENDLESS)

    def _too_many(self) -> int:
        """How many numbers of parts, from the first one, take more than is kept."""
        used = self.used_bytes()
        if used <= self._keep_bytes:
            return 0
        with self._engine.connect() as connection:
            first, last = connection.execute(select(func.min(PARTS.c.seq), func.max(PARTS.c.seq))).one()
        return 0 if last is None else int((last - first + 1) * (used - self._keep_bytes) / used) + 1

    def _first_seq(self) -> int:
        """Of any line."""
        with self._engine.connect() as connection:
            return int(connection.execute(select(func.min(PARTS.c.seq))).scalar() or 0)

    def _delete_below(self, seq: int) -> int:
        deleted = sum(self._delete_each(decision_is, seq) for decision_is in self._decisions())
        with self._engine.begin() as connection:
            for table, column in ((BLOCKS, BLOCKS.c.last_seq), (ARRIVALS, ARRIVALS.c.seq)):
                own = and_(table.c.site == self._line[0], table.c.line == self._line[1])
                connection.execute(delete(table).where(own, column < seq))
        return deleted

    def _decisions(self) -> list[ColumnElement[bool]]:
        return [and_(of_line(self._line), PARTS.c.decision == decision) for decision in DECISIONS]

    def _delete_each(self, condition: ColumnElement[bool], seq: int) -> int:
        """A few at a time, each with the opinion on it."""
        deleted = count = 0
        query = select(PARTS.c.seq, PARTS.c.key).where(condition, PARTS.c.seq < seq).order_by(PARTS.c.seq)
        while deleted == 0 or count == DELETED_AT_ONCE:
            with self._engine.begin() as connection:
                old = connection.execute(query.limit(DELETED_AT_ONCE)).all()
                count = len(old)
                if not old:
                    break
                connection.execute(delete(OPINIONS).where(OPINIONS.c.key.in_([key for _, key in old])))
                connection.execute(delete(PARTS).where(condition, PARTS.c.seq <= old[-1][0]))
            deleted += count
        return deleted
