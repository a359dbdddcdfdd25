"""Tells systemd that the station is ready, alive, and why it is degraded (sd_notify(3)); nothing without systemd.

The unit that starts `board/run.py` says `Type=notify`, `WatchdogSec=10` and `Restart=always`. The heartbeat is sent by
the line's loop itself, at each of its turns: when the loop hangs, it stops, and systemd starts the station again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

BEATS_PER_LIMIT = 4  # systemd asks for at least 2 (sd_watchdog_enabled(3)); a line's turn takes up to 0.2 s


class Watchdog:
    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` as systemd sets it: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # @: Linux's abstract names
        self._every_s = beat_interval_s(environment)
        self._due_s = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if address else None

    def ready(self) -> None:
        self._send("READY=1")

    def beat(self) -> None:
        """To be called at each turn of the loop, and by nobody else; sends when it is time."""
        now_s = time.monotonic()
        if self._every_s is not None and now_s >= self._due_s:
            self._due_s = now_s + self._every_s
            self._send("WATCHDOG=1")

    def show(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + " ".join(status.splitlines()))

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    def _send(self, message: str) -> None:
        if self._socket:
            with contextlib.suppress(OSError):  # whoever listened is gone or busy: the next beat tries again
                self._socket.sendto(message.encode(), self._address)


def beat_interval_s(environment: Mapping[str, str]) -> float | None:
    """None where no watchdog waits for this process."""
    limit_us, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not limit_us.isdecimal() or int(limit_us) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(limit_us) / 1e6 / BEATS_PER_LIMIT
