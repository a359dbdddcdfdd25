"""The bench's memory: a line of JSON for each detector, problem, seed and settings, which is not run again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from protocol.errors import InputError

ROWS_JSONL = "rows.jsonl"


@dataclass(frozen=True)
class Row:
    """`key` names what was run; a row with `skipped` says why it was not, and is tried again next time."""

    key: str
    detector: str
    problem: str
    seed: int
    settings: Mapping[str, Any]
    input_px: int
    data: str  # digest of the pictures
    commit: str
    variant: str = ""  # what an ablation changed
    pools: str = ""  # how a map becomes a score
    skipped: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, list[list[float]]] = field(default_factory=dict)
    export: str = ""
    pictures: Mapping[str, str] = field(default_factory=dict)  # files beside the rows by what they show


def load_rows(folder: Path) -> dict[str, Row]:
    """By key, the last one of each. A line that an interruption cut short is left out.

    Raises: InputError for a file that holds something else.
    """
    path = folder / ROWS_JSONL
    rows: dict[str, Row] = {}
    lines = path.read_text().split("\n") if path.is_file() else []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line's end was never finished
        try:
            row = Row(**json.loads(line))
        except (ValueError, TypeError):
            raise InputError(f"{path}:{number} is no row of a bench: remove the line, and it is run again") from None
        rows[row.key] = row
    return rows


def append_row(folder: Path, row: Row) -> None:
    """Whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ROWS_JSONL
    with path.open("ab+") as file:
        _cut_unfinished(path)
        file.write(json.dumps(asdict(row)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _cut_unfinished(path: Path) -> None:
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
