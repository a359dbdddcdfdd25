"""What a block of a line's parts has in it, so that a question passes over blocks that cannot answer it.

A table of ten million parts has five thousand blocks, a few hundred bytes each: the database looks through them in
milliseconds, and then at the few that remain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from sqlalchemy import Connection, and_, func, select
from sqlalchemy.sql import ColumnElement

from host.dashboard.tables import BLOCKS, PARTS
from protocol.messages import Decision

BLOCK_PARTS = 2000
LAG_PARTS = 500  # the newest ones are in no block: two programs that write parts of one line may finish out of order
BITS = 63  # of a whole number of the database, without its sign; the last one is for parts without a score
NO_SCORE = 1 << (BITS - 1)
DECISIONS: tuple[Decision, ...] = get_args(Decision)
FIRST_READ = 16  # blocks; each reading after it takes four times as many
SUMMARIZED = (PARTS.c.seq, PARTS.c.decision, PARTS.c.score, PARTS.c.time, PARTS.c.model_id)
Line = tuple[str, str]  # site and line
Span = tuple[int, int]  # low < seq < high


def score_bit(score: float | None) -> int:
    """Ranges of scores are narrow near 0, and wide far from it; every score has one.

    >>> score_bit(0.25) == score_bit(0.26), score_bit(0.25) == score_bit(0.35)
    (True, False)
    """
    return NO_SCORE if score is None else 1 << _place(score)


def score_bits(lowest: float | None, highest: float | None) -> int:
    """Of all scores within; without bounds also of parts that have none."""
    if lowest is None and highest is None:
        return (1 << BITS) - 1
    first = _place(-math.inf if lowest is None else lowest)
    last = _place(math.inf if highest is None else highest)
    return sum(1 << place for place in range(first, last + 1))


def _place(score: float) -> int:
    middle = (BITS - 1) // 2
    if math.isinf(score):
        return 0 if score < 0 else BITS - 2
    step = round(5 * math.copysign(math.log2(1 + 16 * abs(score)), score))
    return min(max(middle + step, 0), BITS - 2)


def summarize_block(line: Line, first_seq: int, rows: Sequence[Any]) -> dict[str, Any]:
    """Of rows, with the columns `SUMMARIZED`, in the order of their `seq`."""
    bits = dict.fromkeys(DECISIONS, 0)
    for row in rows:
        bits[row.decision] |= score_bit(row.score)
    return {
        "site": line[0],
        "line": line[1],
        "first_seq": first_seq,
        "last_seq": rows[-1].seq,
        "begin": min(row.time for row in rows),
        "end": max(row.time for row in rows),
        **{decision.lower(): bits[decision] for decision in DECISIONS},
        "models": _between_ends(*sorted({row.model_id for row in rows})),
    }


def next_block(connection: Connection, line: Line) -> dict[str, Any] | None:
    """Of the oldest parts that are in none, where there are enough."""
    after = last_seq(connection, line)
    wanted = BLOCK_PARTS + LAG_PARTS
    rows: list[Any] = []
    for decision in DECISIONS:
        query = select(*SUMMARIZED).where(_parts(line, decision), PARTS.c.seq > after).order_by(PARTS.c.seq)
        rows += connection.execute(query.limit(wanted)).all()
    if len(rows) < wanted:
        return None
    rows.sort(key=lambda row: int(row.seq))
    return summarize_block(line, after + 1, rows[:BLOCK_PARTS])


def last_seq(connection: Connection, line: Line) -> int:
    """Of the newest block; 0 before the first."""
    query = select(func.max(BLOCKS.c.last_seq)).where(BLOCKS.c.site == line[0], BLOCKS.c.line == line[1])
    return int(connection.execute(query).scalar() or 0)


def read_spans(
    connection: Connection, line: Line, conditions: Sequence[ColumnElement[bool]], below: int
) -> Iterator[Span]:
    """Where parts may be that the question is about, the newest first: `conditions` are on blocks."""
    newest = last_seq(connection, line)
    if newest + 1 < below:
        yield newest, below
    wanted = (BLOCKS.c.site == line[0], BLOCKS.c.line == line[1], *conditions)
    count, top = FIRST_READ, below
    while True:
        query = select(BLOCKS.c.first_seq, BLOCKS.c.last_seq).where(*wanted, BLOCKS.c.first_seq < top)
        found = connection.execute(query.order_by(BLOCKS.c.first_seq.desc()).limit(count)).all()
        yield from _join(found, below)
        if len(found) < count:
            return
        count, top = 4 * count, found[-1][0]


def _join(blocks: Sequence[Any], below: int) -> Iterator[Span]:
    """Blocks that follow one another are one span."""
    high = low = 0
    for first, last in blocks:
        if high and last == low:
            low = first - 1
            continue
        if high:
            yield low, high
        low, high = first - 1, min(last + 1, below)
    if high:
        yield low, high


def holds_model(model_id: str) -> ColumnElement[bool]:
    return BLOCKS.c.models.contains(_between_ends(model_id), autoescape=True)


def _between_ends(*models: str) -> str:
    return "".join(f"\n{model}\n" for model in models)


def _parts(line: Line, decision: Decision) -> ColumnElement[bool]:
    return and_(PARTS.c.site == line[0], PARTS.c.line == line[1], PARTS.c.decision == decision)
