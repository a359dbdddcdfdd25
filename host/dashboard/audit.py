"""Who asked for what, when, and what came of it. What cannot be written here first is not done."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from host.dashboard.tables import AUDIT
from protocol.messages import rfc3339_now

MAX_ENTRIES = 100_000  # then the oldest go of whoever has the most: nobody flushes what others did
LOOK_EVERY = 100  # entries
ASKED = "asked"  # the outcome of what was not answered, if the page was stopped meanwhile


class Audit:
    def __init__(self, engine: Engine, most: int = MAX_ENTRIES) -> None:
        self._engine, self._most = engine, most

    def begin(self, user: str, address: str, action: str, details: dict[str, Any]) -> int:
        """The entry's number, for its outcome. Raises: SQLAlchemyError."""
        row = {
            "time": rfc3339_now(),
            "user": user,
            "address": address,
            "action": action,
            "details": json.dumps(details),
            "outcome": ASKED,
        }
        with self._engine.begin() as connection:
            (number,) = connection.execute(insert(AUDIT).values(row)).inserted_primary_key or (0,)
            if number % LOOK_EVERY == 0:
                _make_room(connection, self._most)
        return int(number)

    def finish(self, number: int, outcome: str) -> None:
        """Raises: SQLAlchemyError."""
        with self._engine.begin() as connection:
            connection.execute(update(AUDIT).where(AUDIT.c.seq == number).values(outcome=outcome[:500]))

    def latest(self, count: int) -> list[dict[str, Any]]:
        """The newest first. Raises: SQLAlchemyError."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(AUDIT).order_by(AUDIT.c.seq.desc()).limit(count)).mappings()
            return [{**row, "details": json.loads(row["details"])} for row in rows]

    def count(self) -> int:
        """Raises: SQLAlchemyError."""
        with self._engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(AUDIT)).scalar_one()


def _make_room(connection: Connection, most: int) -> None:
    by_user = select(AUDIT.c.user, func.count().label("entries")).group_by(AUDIT.c.user)
    counts = {user: int(entries) for user, entries in connection.execute(by_user)}
    while (surplus := sum(counts.values()) - most) > 0:
        user = max(counts, key=lambda one: counts[one])
        others = [entries for one, entries in counts.items() if one != user]
        removed = min(surplus, max(1, counts[user] - max(others, default=0)))
        oldest = select(AUDIT.c.seq).where(AUDIT.c.user == user).order_by(AUDIT.c.seq).limit(removed)
        connection.execute(delete(AUDIT).where(AUDIT.c.seq.in_(oldest)))
        counts[user] -= removed
