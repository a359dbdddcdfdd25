"""What the processor moves: a dry record, or a GPIO line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from board.gate.lease import Lease
from protocol.errors import InputError


class Pin(Protocol):
    def write(self, is_open: bool, part_id: int) -> None:
        """Raises: OSError or ValueError; where the gate stands is not known then."""

    def close(self) -> None: ...


class DryPin:
    """Moves nothing; writes when it would have, so that a simulation can check what passed."""

    def __init__(self, log: Path | None, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._rest = b""  # of a line that the disk took in part
        try:
            self._log = log.open("wb", buffering=0) if log else None
        except OSError as error:
            raise InputError(f"cannot write {log} ({error.strerror}): correct [gate] dry_log") from None

    def write(self, is_open: bool, part_id: int) -> None:
        if self._log:
            # subtle: nothing stands between the clock and the write but this, so that the time is that of the move
            line = f'{{"t_ns": {self._now_ns()}, "part_id": {part_id}, "open": {"true" if is_open else "false"}}}\n'
            data = self._rest + line.encode()
            written = self._log.write(data) or 0
            self._rest = data[written:]
            if self._rest:
                raise OSError(f"{written} of {len(data)} bytes were written")

    def lease(self) -> Lease | None:
        """None where nothing could stay open. Raises: InputError."""
        return Lease("dry", self._log.fileno()) if self._log else None

    def close(self) -> None:
        if self._log:
            self._log.close()


class OutputLine(Protocol):
    """As pynq's GPIO is."""

    @property
    def path(self) -> str: ...

    def write(self, value: int) -> None: ...

    def release(self) -> None: ...


class GpioPin:
    """A GPIO output: high lets the part through."""

    def __init__(self, line: OutputLine) -> None:
        self._pin = line

    def write(self, is_open: bool, part_id: int) -> None:  # noqa: ARG002 - the seam of all pins
        self._pin.write(int(is_open))

    def lease(self) -> Lease:
        """Raises: InputError."""
        try:
            value = os.open(Path(self._pin.path) / "value", os.O_WRONLY)
        except OSError as error:
            raise InputError(f"no second way to the gate's pin ({error}): run as root on the board") from None
        try:
            return Lease("gpio", value)
        finally:
            os.close(value)  # the other process has its own

    def close(self) -> None:
        self._pin.release()
