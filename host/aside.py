"""Messages that cannot be handed on, each with the reason: kept in a file, counted, and said. The rest goes on."""

from __future__ import annotations

from pathlib import Path

from board.records.set_aside import SetAside
from protocol.console import STDERR
from protocol.errors import SinkError


class Aside:
    """Any thread may give it a message. The file keeps the newest."""

    def __init__(self, beside: Path, done: str) -> None:
        """`done`: what could not be done with them, as in "kept"."""
        self._done = done
        self._file = SetAside(beside, keeps_newest=True)
        self.count = 0  # since the start
        self.trouble = ""  # what the page says of it

    def take(self, payload: bytes, reason: str) -> bool:
        """Whether it is kept, so that the broker may forget it."""
        try:
            self._file.add(payload, reason)
        except SinkError as error:
            self._say(f"a message that cannot be {self._done} cannot be set aside either: {error}")
            return False
        self.count += 1
        self._say(f"{self.count} messages could not be {self._done} ({reason:.200}): they are in {self._file.path}")
        return True

    def _say(self, trouble: str) -> None:
        """In the log less and less often: who sends rubbish does not fill it."""
        if self.count & (self.count - 1) == 0 and trouble != self.trouble:
            STDERR.write(f"beltsight: {trouble}")
        self.trouble = trouble
