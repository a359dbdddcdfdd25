"""Lines on stderr, for every program: what cannot be written is counted, and stops nothing.

Nor does it wait: a pipe that nobody reads loses the lines that do not fit. stderr may be closed, its reader gone, the
disk behind it full.
"""

from __future__ import annotations

import os
import select
import sys

MAX_LINE_BYTES = 4000  # a pipe that can be written takes a page at once, without waiting (pipe(7), PIPE_BUF)


class StandardError:
    def __init__(self) -> None:
        self.lost = 0  # lines

    def write(self, text: str) -> None:
        """One line, from any thread."""
        data = text.encode(errors="backslashreplace")[:MAX_LINE_BYTES].replace(b"\n", b" ") + b"\n"
        try:
            number = sys.stderr.fileno()
            written = os.write(number, data) if _takes_data(number) else 0
        except (AttributeError, OSError, ValueError):  # there is none; it is closed, full or gone; it is not a file
            written = self._write_to_object(data)
        self.lost += written < len(data)

    def _write_to_object(self, data: bytes) -> int:
        """To what a program has put in stderr's place."""
        if sys.stderr is None or sys.stderr is sys.__stderr__:
            return 0
        sys.stderr.write(data.decode(errors="replace"))
        return len(data)


def _takes_data(number: int) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(0))


def occupy_standard_files() -> None:
    """At a program's start: where stdin, stdout or stderr is closed, the next file opened would take its number, and
    what a library says on stderr would go into it, the outbox perhaps.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


STDERR = StandardError()
