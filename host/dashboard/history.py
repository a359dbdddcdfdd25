"""Every part's verdict, once, and the shifts' totals. Bounded in days; totals stay."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, time, timedelta, timezone
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ColumnElement

from host.dashboard.identity import part_key
from host.dashboard.incoming import parse_time, stored_time
from host.dashboard.shifts import shift_start
from host.dashboard.tables import OPINIONS, PARTS, TOTALS
from protocol.messages import Decision, Opinion, Verdict, rfc3339

DELETED_AT_ONCE = 5000  # rows of one transaction, so that no other waits for long
SHIFTS_SHOWN = 12
_PAGE = 1000  # rows read at once for an export

Row = dict[str, Any]  # a part as JSON


@dataclass(frozen=True)
class Filter:
    decisions: tuple[Decision, ...] = ()  # empty: all
    begin: str = ""  # times in the history's form, begin <= time < end
    end: str = ""
    lowest: float | None = None  # score
    highest: float | None = None
    model_id: str = ""


class History:
    def __init__(self, engine: Engine, site: str, line: str, shifts: Sequence[time]) -> None:
        self._engine, self._site, self._line, self._shifts = engine, site, line, shifts
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    def add(self, verdicts: Sequence[Verdict]) -> list[Row]:
        """Those that were not there yet, in one transaction. Raises: SQLAlchemyError."""
        added = []
        with self._engine.begin() as connection:
            for verdict in verdicts:
                row = self._as_row(verdict)
                statement = self._insert(PARTS).values(row).on_conflict_do_nothing(index_elements=["key"])
                if connection.execute(statement.returning(PARTS.c.seq)).first() is not None:
                    self._count(connection, verdict)
                    added.append(_as_json(row))
        return added

    def add_opinion(self, opinion: Opinion) -> None:
        """Raises: SQLAlchemyError."""
        row = {
            "key": part_key(opinion.event_id),
            "decision": opinion.decision,
            "score": opinion.score,
            "threshold": opinion.threshold,
            "model_id": opinion.model_id,
            "time": stored_time(opinion.time),
        }
        with self._engine.begin() as connection:
            connection.execute(self._insert(OPINIONS).values(row).on_conflict_do_nothing(index_elements=["key"]))

    def latest(self, count: int, model_id: str = "") -> list[Row]:
        """The last parts, oldest first; of one model, where it is named. Raises: SQLAlchemyError."""
        return self.search(Filter(model_id=model_id), count)[::-1]

    def search(self, wanted: Filter, count: int, before: int | None = None) -> list[Row]:
        """The newest first; `before`: only those of a lower `seq`. Raises: SQLAlchemyError."""
        conditions = self._conditions(wanted)
        if before is not None:
            conditions.append(PARTS.c.seq < before)
        query = select(PARTS).where(and_(*conditions)).order_by(PARTS.c.seq.desc()).limit(count)
        with self._engine.connect() as connection:
            return [_as_json(dict(row)) for row in connection.execute(query).mappings()]

    def walk(self, wanted: Filter) -> Iterator[Row]:
        """All of them, the newest first, read in pages. Raises: SQLAlchemyError."""
        before: int | None = None
        while rows := self.search(wanted, _PAGE, before):
            yield from rows
            before = rows[-1]["seq"]

    def part(self, key: str) -> Row | None:
        """With the server's opinion, where it gave one. Raises: SQLAlchemyError."""
        with self._engine.connect() as connection:
            found = connection.execute(select(PARTS).where(self._own(), PARTS.c.key == key)).mappings().first()
            opinion = connection.execute(select(OPINIONS).where(OPINIONS.c.key == key)).mappings().first()
        return None if found is None else {**_as_json(dict(found)), "opinion": dict(opinion) if opinion else None}

    def shifts(self) -> list[Row]:
        """Totals of the last shifts, the present one first. Raises: SQLAlchemyError."""
        own = and_(TOTALS.c.site == self._site, TOTALS.c.line == self._line)
        newest = select(TOTALS.c.shift).where(own).distinct().order_by(TOTALS.c.shift.desc()).limit(SHIFTS_SHOWN)
        query = select(TOTALS).where(own, TOTALS.c.shift.in_(newest)).order_by(TOTALS.c.shift.desc())
        totals: dict[str, Row] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(query).mappings():
                shift = totals.setdefault(row["shift"], {"shift": row["shift"], "OK": 0, "REJECT": 0, "UNKNOWN": 0})
                shift[row["decision"]] = row["parts"]
        return list(totals.values())

    def current_shift(self) -> str:
        return rfc3339(shift_start(datetime.now(timezone.utc), self._shifts))

    def delete_older(self, days: float) -> int:
        """How many parts were deleted. Raises: SQLAlchemyError."""
        limit = rfc3339(datetime.now(timezone.utc) - timedelta(days=days))
        old = select(PARTS.c.seq).where(self._own(), PARTS.c.time < limit).limit(DELETED_AT_ONCE)
        deleted = 0
        while True:
            with self._engine.begin() as connection:
                count = connection.execute(delete(PARTS).where(PARTS.c.seq.in_(old))).rowcount
            deleted += count
            if count < DELETED_AT_ONCE:
                break
        with self._engine.begin() as connection:
            connection.execute(delete(OPINIONS).where(OPINIONS.c.time < limit))
        return deleted

    def _own(self) -> ColumnElement[bool]:
        return and_(PARTS.c.site == self._site, PARTS.c.line == self._line)

    def _conditions(self, wanted: Filter) -> list[ColumnElement[bool]]:
        conditions = [self._own()]
        if wanted.decisions:
            conditions.append(PARTS.c.decision.in_(wanted.decisions))
        if wanted.begin:
            conditions.append(PARTS.c.time >= wanted.begin)
        if wanted.end:
            conditions.append(PARTS.c.time < wanted.end)
        if wanted.lowest is not None:
            conditions.append(PARTS.c.score >= wanted.lowest)
        if wanted.highest is not None:
            conditions.append(PARTS.c.score <= wanted.highest)
        if wanted.model_id:
            conditions.append(PARTS.c.model_id == wanted.model_id)
        return conditions

    def _as_row(self, verdict: Verdict) -> Row:
        row = {name: value for name, value in asdict(verdict).items() if name in PARTS.c}
        more = {"stages_ms": verdict.stages_ms, "readings": verdict.readings}
        if verdict.location:
            more["location"] = asdict(verdict.location)
        key = part_key(verdict.event_id)
        return {**row, "key": key, "time": stored_time(verdict.time), "more": json.dumps(more)}

    def _count(self, connection: Connection, verdict: Verdict) -> None:
        shift = rfc3339(shift_start(parse_time(verdict.time), self._shifts))
        row = {"site": self._site, "line": self._line, "shift": shift, "decision": verdict.decision, "parts": 1}
        connection.execute(
            self._insert(TOTALS)
            .values(row)
            .on_conflict_do_update(
                index_elements=["site", "line", "shift", "decision"], set_={"parts": TOTALS.c.parts + 1}
            )
        )


def _as_json(row: Row) -> Row:
    more = json.loads(row.pop("more"))
    return {**row, **more}
