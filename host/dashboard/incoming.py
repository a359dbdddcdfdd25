"""What a message must be before it may enter the history: a broker's user can send anything."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import datetime, timezone

from protocol.errors import MessageError
from protocol.messages import MAX_PART_ID, Opinion, Verdict, rfc3339

MAX_TEXT = 500  # characters of any field
FIRST_YEAR, LAST_YEAR = 1970, 9998  # a clock that was never set has the first; a day beyond either must exist, too
MAX_NAMES = 64  # stages and readings of a part
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)


def check_message(message: Verdict | Opinion, site: str, line: str) -> None:
    """Raises: MessageError for what no database takes, or what another line says."""
    if (message.site, message.line) != (site, line):
        raise MessageError(f"message of line {message.line!r:.40} on the topic of {line}")
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, str):
            _check_text(field.name, value)
    if not 0 <= message.part_id <= MAX_PART_ID:
        raise MessageError(f"part_id must be 0..{MAX_PART_ID}")
    parse_time(message.time)
    if isinstance(message, Verdict):
        _check_names("stages_ms", message.stages_ms)
        _check_names("readings", message.readings)


def parse_time(text: str) -> datetime:
    """Raises: MessageError."""
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text[:-1]).replace(tzinfo=timezone.utc)
        if not FIRST_YEAR <= moment.year <= LAST_YEAR:
            raise ValueError
        return moment
    except ValueError:
        raise MessageError(f"{text!r:.40} is no time: use the form 2026-01-01T08:00:30.000Z") from None


def stored_time(text: str) -> str:
    """In the history's own form. Raises: MessageError."""
    return rfc3339(parse_time(text))


def _check_names(key: str, values: dict[str, float]) -> None:
    if len(values) > MAX_NAMES:
        raise MessageError(f"{key} has {len(values)} entries; at most {MAX_NAMES} are kept")
    for name in values:
        _check_text(key, name)


def _check_text(key: str, text: str) -> None:
    # subtle: JSON can carry half a surrogate pair, which is no UTF-8, and PostgreSQL takes no zero byte
    if len(text) > MAX_TEXT or "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise MessageError(f"{key} cannot be kept: up to {MAX_TEXT} characters of UTF-8, none of them zero")
