"""Brings the tables of an older version up to this one, while the page runs: what is missing is slow, and not wrong.

No Alembic: there is one step, and the indexes that are there say whether it was done. It runs in the writer's thread;
until it is done the broker keeps what comes.
"""

from __future__ import annotations

from sqlalchemy import Engine, inspect, text

from host.dashboard.tables import PARTS

OBSOLETE = "parts_by_time"  # of version 0.2: blocks have the times


def migrate(engine: Engine) -> bool:
    """Whether there was something to do. Raises: SQLAlchemyError."""
    there = {str(index["name"]) for index in inspect(engine).get_indexes(PARTS.name)}
    missing = [index for index in PARTS.indexes if index.name not in there]
    if not missing and OBSOLETE not in there:
        return False
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        for index in missing:
            index.create(connection)
        connection.execute(text(f"DROP INDEX IF EXISTS {OBSOLETE}"))
    return True
