"""Lines on stderr and stdout, for programs that run for long: what cannot be written is counted, and stops nothing.

Nor does it wait: a pipe that nobody reads loses the lines that do not fit. Either may be closed, its reader gone, the
disk behind it full.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from typing import TextIO

MAX_LINE_BYTES = 4000  # a pipe that can be written takes a page at once, without waiting (pipe(7), PIPE_BUF)


class Lines:
    def __init__(self, stream: Callable[[], TextIO | None]) -> None:
        """`stream` is asked at each line: a program may put something else in its place."""
        self._stream = stream
        self.lost = 0

    def write(self, text: str) -> None:
        """One line, from any thread."""
        stream = self._stream()
        if stream is None:  # Python's way of saying that it was closed at the start
            self.lost += 1
            return
        data = text.encode(stream.encoding or "utf-8", "backslashreplace")
        data = data[:MAX_LINE_BYTES].replace(b"\n", b" ") + b"\n"
        try:
            number = stream.fileno()
        except (OSError, ValueError):  # no file, or closed
            self.lost += not _write_to_object(stream, data)
            return
        try:
            written = os.write(number, data) if _takes_data(number) else 0
        except OSError:  # closed, full, or its reader gone
            written = 0
        self.lost += written < len(data)


def _takes_data(number: int) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(0))


def _write_to_object(stream: TextIO, data: bytes) -> bool:
    if stream.closed:
        return False
    stream.write(data.decode(errors="replace"))
    return True


def occupy_standard_files() -> None:
    """At a program's start: where stdin, stdout or stderr is closed, the next file opened would take its number, and
    what a library says on stderr would go into it, the outbox perhaps.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


STDERR = Lines(lambda: sys.stderr)
STDOUT = Lines(lambda: sys.stdout)
