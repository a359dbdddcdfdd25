"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True)
class Finding:
    check: str
    level: Level
    found: str
    remedy: str = ""  # what puts it right; empty when there is nothing to do


def ok(check: str, found: str) -> Finding:
    return Finding(check, "OK", found)


def warn(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, "WARN", found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, "FAIL", found, remedy)


def refused(check: str, error: Exception) -> Finding:
    """A refusal of the program itself: its message says what to do after the last colon."""
    found, _, remedy = str(error).rpartition(": ")
    return fail(check, found or remedy, remedy if found else "see README.md")
