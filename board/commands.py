"""What the line does with commands: pause and resume. A paused line makes every part UNKNOWN: it is rejected.

Nothing that could let a bad part pass can be commanded. A pause does not outlive the program.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from protocol.commands import MAX_AHEAD_S, Answer, Command, decode_command
from protocol.errors import MessageError
from protocol.messages import rfc3339_now

REMEMBERED = 1024  # ids of the latest commands


@dataclass(frozen=True)
class Received:
    """As it came from the broker."""

    name: str  # last level of the topic
    payload: bytes
    retained: bool


class Commands:
    """Owned by the line's loop."""

    def __init__(self, clock_s: Callable[[], float] = time.time) -> None:
        """`clock_s`: seconds since 1970, UTC."""
        self.paused_by = ""  # id of the command; empty while the line works
        self._clock_s = clock_s
        self._obeyed: deque[str] = deque(maxlen=REMEMBERED)

    def obey(self, received: Received) -> Answer:
        command: Command | None = None
        try:
            command = decode_command(received.name, received.payload)
            self._require_timely(command, retained=received.retained)
        except MessageError as error:
            return Answer(command.id if command else "", received.name, False, str(error), rfc3339_now())
        self._obeyed.append(command.id)
        self.paused_by = command.id if command.name == "pause" else ""
        return Answer(command.id, command.name, True, "", rfc3339_now())

    def _require_timely(self, command: Command, *, retained: bool) -> None:
        """Raises: MessageError."""
        if retained:  # it would come again at each connection
            raise MessageError("a retained command is not obeyed: publish it without retain")
        if command.id in self._obeyed:
            raise MessageError("it was obeyed before: give each command an id of its own")
        ahead_s = command.expires_s - self._clock_s()
        if ahead_s <= 0:
            raise MessageError(f"it expired {abs(ahead_s):.0f} s ago: send it again, or set the clocks")
        if ahead_s > MAX_AHEAD_S:
            raise MessageError(f"it expires in {ahead_s:.0f} s: at most {MAX_AHEAD_S:.0f} s are taken")
