"""Parts by the page's questions, in milliseconds however many there are.

Each decision has its own index in the order of arrival, read from the newest on, within the spans that blocks leave
over (blocks.py). Scores that few parts have are found by the index of scores first.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, and_, func, select
from sqlalchemy.sql import ColumnElement

from host.dashboard.blocks import DECISIONS, Line, Span, holds_model, read_spans, score_bits
from host.dashboard.tables import BLOCKS, PARTS
from protocol.messages import Decision

MAX_FEW = 20_000  # numbers of parts, out of the index alone
MAX_FEW_OF_MORE = 4_000  # parts that are looked at one by one, where more than their score is asked for
AT_ONCE = 500  # of them, and rows that are asked for by their numbers
ENDLESS = 2**62
_T = TypeVar("_T")


@dataclass(frozen=True)
class Filter:
    decisions: tuple[Decision, ...] = ()  # empty: all
    begin: str = ""  # times in the history's form, begin <= time < end
    end: str = ""
    lowest: float | None = None  # score
    highest: float | None = None
    model_id: str = ""

    @property
    def has_scores(self) -> bool:
        return self.lowest is not None or self.highest is not None

    @property
    def has_more_than_scores(self) -> bool:
        return bool(self.begin or self.end or self.model_id)

    @property
    def is_by_decision(self) -> bool:
        """The index alone answers it."""
        return not (self.has_scores or self.has_more_than_scores)


def find_parts(connection: Connection, line: Line, wanted: Filter, count: int, before: int | None) -> list[int]:
    """Their `seq`, the newest first. Raises: SQLAlchemyError."""
    search = Search(connection, line, wanted, ENDLESS if before is None else before)
    found = [search.find(decision, count) for decision in wanted.decisions or DECISIONS]
    return heapq.nlargest(count, (seq for seqs in found for seq in seqs))


def read_rows(connection: Connection, seqs: Sequence[int]) -> Iterator[dict[str, Any]]:
    """In this order; those that have gone since are missing. Raises: SQLAlchemyError."""
    for at in range(0, len(seqs), AT_ONCE):
        some = seqs[at : at + AT_ONCE]
        rows = connection.execute(select(PARTS).where(PARTS.c.seq.in_(some))).mappings()
        by_seq = {row["seq"]: dict(row) for row in rows}
        yield from (by_seq[seq] for seq in some if seq in by_seq)


def of_line(line: Line) -> ColumnElement[bool]:
    return and_(PARTS.c.site == line[0], PARTS.c.line == line[1])


class Again(Generic[_T]):
    """What an iterator gives, to be gone through several times; it is asked for no more than anybody wants."""

    def __init__(self, source: Iterator[_T]) -> None:
        self._source, self._seen = source, list[_T]()

    def __iter__(self) -> Iterator[_T]:
        for number in itertools.count():
            if number == len(self._seen):
                try:
                    self._seen.append(next(self._source))
                except StopIteration:
                    return
            yield self._seen[number]


@dataclass(frozen=True)
class Search:
    """One question, about parts below a `seq`."""

    connection: Connection
    line: Line
    wanted: Filter
    below: int

    def find(self, decision: Decision, count: int) -> list[int]:
        """Of one decision, the newest first."""
        few = self._find_few(decision) if self.wanted.has_scores else None
        return self._walk(decision, count) if few is None else self._choose(few, count)

    def _walk(self, decision: Decision, count: int) -> list[int]:
        found: list[int] = []
        conditions = (*self._of(decision), *_conditions(self.wanted))
        for low, high in self._spans(decision):
            query = select(PARTS.c.seq).where(*conditions, PARTS.c.seq > low, PARTS.c.seq < high)
            found += self.connection.execute(query.order_by(PARTS.c.seq.desc()).limit(count - len(found))).scalars()
            if len(found) >= count:
                break
        return found

    def _find_few(self, decision: Decision) -> list[int] | None:
        """All parts of these scores, the newest first; None where they are many."""
        most = MAX_FEW_OF_MORE if self.wanted.has_more_than_scores else MAX_FEW
        query = select(PARTS.c.seq).where(*self._of(decision), *_score_conditions(self.wanted)).limit(most + 1)
        count = self.connection.execute(select(func.count()).select_from(query.subquery())).scalar()
        if count is None or count > most:
            return None
        return sorted((seq for seq in self.connection.execute(query).scalars() if seq < self.below), reverse=True)

    def _choose(self, few: Sequence[int], count: int) -> list[int]:
        """Those of them that are wanted."""
        if not self.wanted.has_more_than_scores:
            return list(few[:count])
        found: list[int] = []
        for at in range(0, len(few), AT_ONCE):
            query = select(PARTS.c.seq).where(PARTS.c.seq.in_(few[at : at + AT_ONCE]), *_conditions(self.wanted))
            found += sorted(self.connection.execute(query).scalars(), reverse=True)
            if len(found) >= count:
                break
        return found[:count]

    def _of(self, decision: Decision) -> tuple[ColumnElement[bool], ...]:
        return of_line(self.line), PARTS.c.decision == decision

    def _spans(self, decision: Decision) -> Iterator[Span]:
        if self.wanted.is_by_decision:
            return iter([(0, self.below)])
        if not self.wanted.has_scores:
            return iter(self._spans_of_all)
        scores = BLOCKS.c[decision.lower()].bitwise_and(score_bits(self.wanted.lowest, self.wanted.highest)) != 0
        return read_spans(self.connection, self.line, [scores, *_block_conditions(self.wanted)], self.below)

    @cached_property
    def _spans_of_all(self) -> Again[Span]:
        """Of all decisions, looked for once."""
        return Again(read_spans(self.connection, self.line, _block_conditions(self.wanted), self.below))


def _block_conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions = []
    if wanted.begin:
        conditions.append(BLOCKS.c.end >= wanted.begin)
    if wanted.end:
        conditions.append(BLOCKS.c.begin < wanted.end)
    if wanted.model_id:
        conditions.append(holds_model(wanted.model_id))
    return conditions


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions = _score_conditions(wanted)
    if wanted.begin:
        conditions.append(PARTS.c.time >= wanted.begin)
    if wanted.end:
        conditions.append(PARTS.c.time < wanted.end)
    if wanted.model_id:
        conditions.append(PARTS.c.model_id == wanted.model_id)
    return conditions


def _score_conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions = []
    if wanted.lowest is not None:
        conditions.append(PARTS.c.score >= wanted.lowest)
    if wanted.highest is not None:
        conditions.append(PARTS.c.score <= wanted.highest)
    return conditions
