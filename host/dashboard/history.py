"""Every part's verdict, once, and the shifts' totals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, time
from typing import Any

from sqlalchemy import Connection, Engine, and_, select
from sqlalchemy.dialects import postgresql, sqlite

from host.dashboard.blocks import BLOCK_PARTS, next_block
from host.dashboard.identity import part_key
from host.dashboard.incoming import parse_time, stored_time
from host.dashboard.migration import migrate
from host.dashboard.retention import arrival_hour, note_arrival, now_utc
from host.dashboard.search import Filter, find_parts, of_line, read_rows
from host.dashboard.shifts import shift_start
from host.dashboard.tables import BLOCKS, OPINIONS, PARTS, TOTALS
from protocol.messages import Opinion, Verdict, rfc3339

SHIFTS_SHOWN = 12
_PAGE = 1000  # rows read at once for an export

Row = dict[str, Any]  # a part as JSON


class History:
    def __init__(
        self, engine: Engine, site: str, line: str, shifts: Sequence[time], now: Callable[[], datetime] = now_utc
    ) -> None:
        self._engine, self._shifts, self._now = engine, shifts, now
        self._line = (site, line)
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        self._hour: str | None = None  # in which the latest part came
        self._unsummarized = BLOCK_PARTS  # parts that may be in no block: of those before the start nobody has counted

    def add(self, verdicts: Sequence[Verdict]) -> list[Row]:
        """Those that were not there yet, in one transaction. Raises: SQLAlchemyError."""
        if not verdicts:
            return []
        rows: dict[str, Row] = {}
        for row in map(self._as_row, verdicts):
            rows.setdefault(row["key"], row)
        with self._engine.begin() as connection:
            statement = self._insert(PARTS).on_conflict_do_nothing(index_elements=["key"])
            result = connection.execute(statement.returning(PARTS.c.key, PARTS.c.seq), list(rows.values()))
            numbers = {row.key: row.seq for row in result}
            added = [row for key, row in rows.items() if key in numbers]
            if added:
                self._count(connection, added)
                hour = self._note_arrival(connection, min(numbers.values()))
        if added:
            self._hour = hour
            self._unsummarized += len(added)
        return [_as_json(row) for row in added]

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

    def summarize(self) -> bool:
        """Make the next block of parts, where there are enough: whether it did. Raises: SQLAlchemyError."""
        with self._engine.begin() as connection:
            block = next_block(connection, self._line)
            if block:
                columns = ["site", "line", "first_seq"]
                connection.execute(self._insert(BLOCKS).values(block).on_conflict_do_nothing(index_elements=columns))
        self._unsummarized = BLOCK_PARTS if block else 0
        return block is not None

    @property
    def is_block_due(self) -> bool:
        """There may be parts for another one."""
        return self._unsummarized >= BLOCK_PARTS

    def migrate(self) -> bool:
        """Bring an older version's tables up to this one: True when done. Raises: SQLAlchemyError."""
        migrate(self._engine)
        return True

    def latest(self, count: int, model_id: str = "") -> list[Row]:
        """The last parts, oldest first; of one model, where it is named. Raises: SQLAlchemyError."""
        return self.search(Filter(model_id=model_id), count)[::-1]

    def search(self, wanted: Filter, count: int, before: int | None = None) -> list[Row]:
        """The newest first; `before`: only those of a lower `seq`. Raises: SQLAlchemyError."""
        with self._engine.connect() as connection:
            seqs = find_parts(connection, self._line, wanted, count, before)
            return [_as_json(row) for row in read_rows(connection, seqs)]

    def walk(self, wanted: Filter) -> Iterator[Row]:
        """All of them, the newest first, read in pages. Raises: SQLAlchemyError."""
        before: int | None = None
        while rows := self.search(wanted, _PAGE, before):
            yield from rows
            before = rows[-1]["seq"]

    def part(self, key: str) -> Row | None:
        """With the server's opinion, where it gave one. Raises: SQLAlchemyError."""
        with self._engine.connect() as connection:
            query = select(PARTS).where(of_line(self._line), PARTS.c.key == key)
            found = connection.execute(query).mappings().first()
            opinion = connection.execute(select(OPINIONS).where(OPINIONS.c.key == key)).mappings().first()
        return None if found is None else {**_as_json(dict(found)), "opinion": dict(opinion) if opinion else None}

    def shifts(self) -> list[Row]:
        """Totals of the last shifts, the present one first. Raises: SQLAlchemyError."""
        own = and_(TOTALS.c.site == self._line[0], TOTALS.c.line == self._line[1])
        newest = select(TOTALS.c.shift).where(own).distinct().order_by(TOTALS.c.shift.desc()).limit(SHIFTS_SHOWN)
        query = select(TOTALS).where(own, TOTALS.c.shift.in_(newest)).order_by(TOTALS.c.shift.desc())
        totals: dict[str, Row] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(query).mappings():
                shift = totals.setdefault(row["shift"], {"shift": row["shift"], "OK": 0, "REJECT": 0, "UNKNOWN": 0})
                shift[row["decision"]] = row["parts"]
        return list(totals.values())

    def current_shift(self) -> str:
        return rfc3339(shift_start(self._now(), self._shifts))

    def _as_row(self, verdict: Verdict) -> Row:
        more = {"stages_ms": verdict.stages_ms, "readings": verdict.readings}
        if verdict.location:
            more["location"] = vars(verdict.location)
        row = {name: value for name, value in vars(verdict).items() if name in _PLAIN}
        key = part_key(verdict.event_id)
        return {**row, "key": key, "time": stored_time(verdict.time), "more": json.dumps(more)}

    def _count(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Of the shift in which a part was judged."""
        counts = Counter((self._shift(row["time"]), row["decision"]) for row in rows)
        for (shift, decision), parts in counts.items():
            row = {"site": self._line[0], "line": self._line[1], "shift": shift, "decision": decision, "parts": parts}
            connection.execute(
                self._insert(TOTALS)
                .values(row)
                .on_conflict_do_update(
                    index_elements=["site", "line", "shift", "decision"], set_={"parts": TOTALS.c.parts + parts}
                )
            )

    def _shift(self, moment: str) -> str:
        return rfc3339(shift_start(parse_time(moment), self._shifts))

    def _note_arrival(self, connection: Connection, seq: int) -> str:
        hour = arrival_hour(self._now())
        if hour != self._hour:
            note_arrival(connection, self._line, seq, hour)
        return hour


_PLAIN = frozenset(Verdict.__dataclass_fields__) & frozenset(PARTS.c.keys())


def _as_json(row: Row) -> Row:
    row = dict(row)
    more = json.loads(row.pop("more"))
    return {**row, **more}
