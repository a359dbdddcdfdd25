"""Parts as CSV (RFC 4180), for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice

from host.dashboard.history import Row

COLUMNS = (
    "time",
    "site",
    "line",
    "run",
    "part_id",
    "decision",
    "score",
    "threshold",
    "reason",
    "engine",
    "model_id",
    "degraded",
    "missed_deadline",
    "late",
    "latency_ms",
    "event_id",
)
_ROWS_AT_ONCE = 500


def as_csv(rows: Iterable[Row]) -> Iterator[str]:
    """A few hundred lines at a time, the names of the columns first."""
    yield ",".join(COLUMNS) + "\r\n"
    walk = iter(rows)
    while chunk := list(islice(walk, _ROWS_AT_ONCE)):
        text = io.StringIO()
        csv.writer(text).writerows([_cell(row[name]) for name in COLUMNS] for row in chunk)
        yield text.getvalue()


def _cell(value: object) -> object:
    # subtle: a spreadsheet takes text that begins so for a formula, and the text came over the network
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
