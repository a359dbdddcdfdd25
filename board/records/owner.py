"""One program owns an outbox: a lock beside the file, which the kernel takes back however that program ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from protocol.errors import InputError

MAX_NUMBER_BYTES = 20


class Owner:
    """Of the file at `path`, until `release`. The lock's own file stays: to delete it would let two programs in."""

    def __init__(self, path: Path) -> None:
        """Raises: InputError if another program has it; OSError."""
        self._lock = lock_path(path).open("a+b")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            advice = "give each station its own ([mqtt] outbox)"
            raise InputError(f"outbox {path}: {self._holder()} has it: {advice}") from None
        except OSError:
            self._lock.close()
            raise
        self._sign()

    def release(self) -> None:
        self._lock.close()

    def _holder(self) -> str:
        with self._lock:
            self._lock.seek(0)
            number = self._lock.read(MAX_NUMBER_BYTES).decode("ascii", "replace").strip()
        return f"process {number}" if number.isdecimal() else "another program"

    def _sign(self) -> None:
        with contextlib.suppress(OSError):  # on a full disk: the lock holds all the same
            os.ftruncate(self._lock.fileno(), 0)
            os.write(self._lock.fileno(), f"{os.getpid()}\n".encode())


def lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")
