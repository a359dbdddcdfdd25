"""Logs as one JSON object a line on stderr; what repeats is said once."""

from __future__ import annotations

import json
import logging

from protocol.console import STDERR
from protocol.messages import rfc3339_now

MAX_ONCE = 1024  # different things said once; what comes on top is only counted
_LOGGER = logging.getLogger("beltsight.server")


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Example: {"time": "…", "level": "INFO", "event": "worker ready", "worker": "1f…"}."""
        fields = getattr(record, "fields", {})
        return json.dumps({"time": rfc3339_now(), "level": record.levelname, "event": record.getMessage(), **fields})


class LineHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        STDERR.write(self.format(record))


def start_logging() -> None:
    handler = LineHandler()
    handler.setFormatter(JsonFormatter())
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False


def log(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    _LOGGER.log(level, event, extra={"fields": fields})


class Once:
    """Remembers, bounded, what was said."""

    def __init__(self) -> None:
        self._said: set[object] = set()

    def first(self, thing: object) -> bool:
        if thing in self._said or len(self._said) >= MAX_ONCE:
            return False
        self._said.add(thing)
        return True
