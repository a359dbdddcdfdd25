"""The history's tables, in SQLite or PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    Column,
    Double,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from protocol.errors import InputError

CONNECT_WITHIN_S = 5
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # which alone counts up by itself there

TABLES = MetaData()
PARTS = Table(
    "parts",
    TABLES,
    Column("seq", _NUMBER, primary_key=True, autoincrement=True),  # order of arrival
    Column("key", String(32), nullable=False, unique=True),  # see `identity.part_key`
    Column("event_id", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("line", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("part_id", BigInteger, nullable=False),
    Column("decision", String(8), nullable=False),
    Column("score", Double),
    Column("threshold", Double, nullable=False),
    Column("reason", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("degraded", Boolean, nullable=False),
    Column("missed_deadline", Boolean, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("time", String(24), nullable=False),  # RFC 3339 with milliseconds, UTC: sorts as text
    Column("latency_ms", Double, nullable=False),
    Column("more", Text, nullable=False),  # JSON: stages_ms, readings, location
    Index("parts_by_line", "site", "line", "decision", "seq"),
    Index("parts_by_decision_and_score", "site", "line", "decision", "score", "seq"),
)
# What a line's parts of a range of `seq` have: a question passes over ranges that cannot answer it (blocks.py). Each
# begins where the one before ended; the newest parts are in none yet.
BLOCKS = Table(
    "blocks",
    TABLES,
    Column("site", Text, primary_key=True),
    Column("line", Text, primary_key=True),
    Column("first_seq", BigInteger, primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
    Column("begin", String(24), nullable=False),  # the least time
    Column("end", String(24), nullable=False),
    Column("ok", BigInteger, nullable=False),  # bits, one for each range of scores that there are
    Column("reject", BigInteger, nullable=False),
    Column("unknown", BigInteger, nullable=False),
    Column("models", Text, nullable=False),  # each between two line ends
    sqlite_with_rowid=False,  # they lie in their order, and are read in it
)
# When parts came, by the clock of this machine: all from `seq` on came in this hour or later.
ARRIVALS = Table(
    "arrivals",
    TABLES,
    Column("site", Text, primary_key=True),
    Column("line", Text, primary_key=True),
    Column("hour", String(24), primary_key=True),  # as `time` above
    Column("seq", BigInteger, nullable=False),
)
TOTALS = Table(
    "totals",
    TABLES,
    Column("site", Text, primary_key=True),
    Column("line", Text, primary_key=True),
    Column("shift", String(24), primary_key=True),  # when it began, as `time` above
    Column("decision", String(8), primary_key=True),
    Column("parts", BigInteger, nullable=False),
)
OPINIONS = Table(
    "opinions",
    TABLES,
    Column("key", String(32), primary_key=True),  # of the part
    Column("decision", String(8), nullable=False),
    Column("score", Double, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("time", String(24), nullable=False),
)
AUDIT = Table(
    "audit",
    TABLES,
    Column("seq", _NUMBER, primary_key=True, autoincrement=True),
    Column("time", String(24), nullable=False),
    Column("user", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("details", Text, nullable=False),  # JSON
    Column("outcome", Text, nullable=False),  # "asked" until the answer is in
)


def open_database(url: str | URL) -> Engine:
    """Make the tables where they are missing. Raises: InputError."""
    try:
        engine = create_engine(url, pool_pre_ping=True, connect_args=_timeouts(str(url)))
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
        TABLES.create_all(engine)
    except (ArgumentError, NoSuchModuleError):
        raise InputError("--database is no URL for SQLite or PostgreSQL: use postgresql+psycopg://…") from None
    except ModuleNotFoundError as error:
        raise InputError(
            f"--database needs the package {error.name}: pip install '.[postgresql]' in the clone"
        ) from None
    except SQLAlchemyError as error:
        raise InputError(f"the database does not open ({first_line(error)}): correct --database, or start it") from None
    return engine


def first_line(error: SQLAlchemyError) -> str:
    """What went wrong, without the statement. The password of a URL is in none of it."""
    return str(error).partition("\n")[0][:200]


def _timeouts(url: str) -> dict[str, object]:
    """So that no query waits for ever: for a lock in SQLite, for the other machine in PostgreSQL."""
    if url.startswith("sqlite"):
        return {"timeout": CONNECT_WITHIN_S}
    return {"connect_timeout": CONNECT_WITHIN_S, "options": "-c statement_timeout=20000"}


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=FULL")  # what the broker may forget is on the disk
    cursor.close()
