"""Verdicts that this broker can never be sent, with the reason: one JSON object a line, in a file beside the outbox.

They are there for whoever corrects the broker, and sends them by hand: nothing of the station reads them again.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from protocol.errors import SinkError
from protocol.messages import rfc3339_now

MAX_BYTES = 64 << 20  # about 60,000 verdicts: beyond it they stay in the outbox
COUNT_BYTES = 1 << 20


class SetAside:
    """`count` of them are in the file."""

    def __init__(self, beside: Path, max_bytes: int = MAX_BYTES, *, keeps_newest: bool = False) -> None:
        """`beside` the outbox, for example. `keeps_newest`: a full file is kept as `….1` until the next is."""
        self.path, self._max_bytes, self._keeps_newest = set_aside_path(beside), max_bytes, keeps_newest
        self._lock = threading.Lock()
        self.count = count_lines(self.path)

    def add(self, payload: bytes, reason: str) -> None:
        """It is on the disk. Raises: SinkError; then it is not there."""
        line = json.dumps({"time": rfc3339_now(), "reason": reason, "verdict": _readable(payload)}) + "\n"
        try:
            with self._lock:
                self._append(line.encode())
                self.count += 1
        except OSError as error:
            raise SinkError(f"{self.path}: {error.strerror}: free some disk space, or make it writable") from None

    def _append(self, line: bytes) -> None:
        """Raises: OSError; SinkError."""
        with self.path.open("ab") as file:
            is_full = file.tell() + len(line) > self._max_bytes
            if not is_full:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
                return
        if not self._keeps_newest or len(line) > self._max_bytes:
            raise SinkError(f"{self.path} is full: correct the broker, and move the file away")
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        self._append(line)


def set_aside_path(beside: Path) -> Path:
    return beside.with_name(f"{beside.name}.set-aside.jsonl")


def count_lines(path: Path) -> int:
    """0 for a file that is not there, or cannot be read."""
    try:
        with path.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(COUNT_BYTES), b""))
    except OSError:
        return 0


def _readable(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):  # out of a file that was damaged
        return payload.decode(errors="replace")
