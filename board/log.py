"""What the station says on stderr: a line for people, or, where a program collects the log, one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from protocol.console import STDERR
from protocol.messages import rfc3339_now

LogFormat = Literal["text", "json"]
Level = Literal["INFO", "WARNING", "ERROR"]


@dataclass(frozen=True)
class LogSettings:
    format: LogFormat = "text"


class _Log:
    format: LogFormat = "text"


def start_log(settings: LogSettings) -> None:
    """For this process, from now on."""
    _Log.format = settings.format


def say(event: str, *, level: Level = "INFO", **fields: object) -> None:
    """One line. In JSON with the fields: {"time": "…", "level": "INFO", "event": "running", "line": "line1"}."""
    if _Log.format == "json":
        text = json.dumps({"time": rfc3339_now(), "level": level, "event": event, **fields})
    else:
        text = f"beltsight: {event}"
    STDERR.write(text)
