"""Which commands are obeyed: each once, in time, none that the broker kept. What they do is the line's matter."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from protocol.commands import MAX_AHEAD_S, Answer, Order, decode_command
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

    def __init__(self, act: Callable[[Order], bool], clock_s: Callable[[], float] = time.time) -> None:
        """`act` does what is ordered or raises MessageError; False where it is only begun, and answered later.

        `clock_s`: seconds since 1970, UTC.
        """
        self._act = act
        self._clock_s = clock_s
        self._obeyed: deque[str] = deque(maxlen=REMEMBERED)

    def obey(self, received: Received) -> Answer | None:
        order: Order | None = None
        try:
            order = decode_command(received.name, received.payload)
            self._require_timely(order, retained=received.retained)
            self._obeyed.append(order.id)
            is_done = self._act(order)
        except MessageError as error:
            return Answer(order.id if order else "", received.name, False, str(error), rfc3339_now())
        return Answer(order.id, received.name, True, "", rfc3339_now()) if is_done else None

    def _require_timely(self, order: Order, *, retained: bool) -> None:
        """Raises: MessageError."""
        if retained:  # it would come again at each connection
            raise MessageError("a retained command is not obeyed: publish it without retain")
        if order.id in self._obeyed:
            raise MessageError("it was obeyed before: give each command an id of its own")
        ahead_s = order.expires_s() - self._clock_s()
        if ahead_s <= 0:
            raise MessageError(f"it expired {abs(ahead_s):.0f} s ago: send it again, or set the clocks")
        if ahead_s > MAX_AHEAD_S:
            raise MessageError(f"it expires in {ahead_s:.0f} s: at most {MAX_AHEAD_S:.0f} s are taken")
