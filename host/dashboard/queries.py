"""The page's questions, as text in an address, and what they may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

from host.dashboard.incoming import MAX_TEXT, stored_time
from host.dashboard.search import Filter
from protocol.errors import InputError, MessageError
from protocol.messages import Decision

MAX_ROWS = 500
_DECISIONS: tuple[Decision, ...] = get_args(Decision)


def read_filter(query: Mapping[str, str]) -> Filter:
    """Raises: InputError."""
    names = query.get("decision", "").split(",") if query.get("decision") else []
    decisions = tuple(decision for decision in _DECISIONS if decision in names)
    if len(decisions) != len(names):
        raise InputError(f"decision: use some of {','.join(_DECISIONS)}")
    return Filter(
        decisions=decisions,
        begin=_time(query, "begin"),
        end=_time(query, "end"),
        lowest=read_number(query, "lowest"),
        highest=read_number(query, "highest"),
        model_id=_text(query, "model"),
    )


def read_number(query: Mapping[str, str], key: str) -> float | None:
    """Raises: InputError for what is no finite number."""
    if not query.get(key):
        return None
    try:
        number = float(query[key])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{key}: give a number")
    return number


def read_count(query: Mapping[str, str], key: str, default: int, highest: int) -> int:
    """Raises: InputError."""
    if not query.get(key):
        return default
    text = query[key]
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and 1 <= int(text) <= highest):
        raise InputError(f"{key}: give a whole number, 1..{highest}")
    return int(text)


def _time(query: Mapping[str, str], key: str) -> str:
    if not query.get(key):
        return ""
    try:
        return stored_time(query[key])
    except MessageError as error:
        raise InputError(f"{key}: {error}") from None


def _text(query: Mapping[str, str], key: str) -> str:
    text = query.get(key, "")
    if len(text) > MAX_TEXT or "\0" in text:
        raise InputError(f"{key}: give up to {MAX_TEXT} characters")
    return text
