"""The station's audit log: one JSON object a line, only appended to, on the disk before anybody is told."""

from __future__ import annotations

import os
from pathlib import Path

from board.disk import sync_file
from protocol.errors import InputError

MAX_BYTES = 1 << 20  # then the file becomes `.1`, and the one before that goes
MAX_LINE_BYTES = 4096


class AuditLog:
    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes

    def append(self, line: bytes) -> None:
        """Raises: InputError if it may not be there after a power cut."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._make_room()
            with self._path.open("ab") as file:
                file.write(self._end_of_torn_line() + line + b"\n")
                sync_file(file)
        except OSError as error:
            raise InputError(f"{self._path} cannot be written ({error.strerror}): make room there") from None

    def lines(self) -> list[bytes]:
        """The latest, the newest last; one that a power cut has torn may be among them. Raises: InputError."""
        try:
            content = [_read(path, self._max_bytes) for path in (self._old, self._path)]
        except OSError as error:
            raise InputError(f"{self._path} cannot be read ({error.strerror}): correct it") from None
        return [line for part in content for line in part.split(b"\n") if line]

    @property
    def _old(self) -> Path:
        return self._path.with_name(self._path.name + ".1")

    def _make_room(self) -> None:
        if self._path.is_file() and self._path.stat().st_size + MAX_LINE_BYTES > self._max_bytes:
            os.replace(self._path, self._old)

    def _end_of_torn_line(self) -> bytes:
        content = _read(self._path, 1)
        return b"\n" if content and content != b"\n" else b""


def _read(path: Path, last_bytes: int) -> bytes:
    """Nothing of a file that is not there. Raises: OSError."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - last_bytes))
        return file.read(last_bytes)
