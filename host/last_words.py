"""What a program of the host does when one of its threads ends or hangs: it says so, and ends if it cannot go on.

Whoever started it starts it again: systemd's `Restart=on-failure`, a container's restart policy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from protocol.supervision import Trouble

EXIT_UNWANTED = 1
ENDED_S = 5.0  # how long /metrics and the page still show what has ended for good
SILENT_S = 30.0  # how long one that hangs may take to come back
ORDERLY_S = 10.0  # for the end itself


class LastWords:
    """`act` is for `Supervisor.keep_watch`."""

    def __init__(
        self,
        say: Callable[[str], None],
        end: Callable[[], object],
        *,
        now_s: Callable[[], float] = time.monotonic,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """`end` has the main thread end in order; `leave` is for when it does not."""
        self._say, self._end, self._now_s, self._leave = say, end, now_s, leave
        self._said = ""
        self._since_s = 0.0
        self.exit_code = 0

    def act(self, trouble: Trouble | None) -> None:
        text = str(trouble or "")
        if text != self._said:
            self._said, self._since_s = text, self._now_s()
            self._say(text or "all threads are at work again")
        if not trouble or not trouble.is_needed:
            return
        patience_s = ENDED_S if trouble.has_ended else SILENT_S
        for_s = self._now_s() - self._since_s
        if for_s >= patience_s:
            self.exit_code = EXIT_UNWANTED
            self._end()
        if for_s >= patience_s + ORDERLY_S:
            self._leave(EXIT_UNWANTED)
