"""The station's side of the second process that closes the gate's pin on time: see closer.py."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

from board.gate.closer import CLOSED, GRACE_NS, UNTIL
from protocol.errors import InputError
from protocol.supervision import Supervised, Supervisor

PROGRAM = Path(__file__).with_name("closer.py")
START_WITHIN_S = 20.0  # Python's own start, on a slow and busy board
LISTEN_S = 0.2
SILENT_S = 0.6
END_WITHIN_S = 2.0
RENEW_NS = 125_000_000  # what has less left is renewed


class Lease:
    """Until when the pin may be open. Told before the pin is opened, and once it is closed."""

    def __init__(self, kind: str, pin: int) -> None:
        """`pin`: a file that the other process may write to. Raises: InputError if it does not start."""
        self._until_ns = CLOSED
        self._station, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._closing = False
        self._thread: Supervised | None = None
        self._child = self._start(kind, pin, theirs)
        self._station.settimeout(START_WITHIN_S)
        try:
            is_there = bool(self._station.recv(1))
        except OSError:
            is_there = False
        if not is_there:
            self.close()
            raise InputError(f"{PROGRAM.name} does not start, which closes the gate if the station hangs: free memory")
        self._station.settimeout(LISTEN_S)

    def watch(self, supervisor: Supervisor) -> None:
        self._thread = supervisor.start("gate closer", self._listen, silent_s=SILENT_S)

    def open_until(self, until_ns: int, now_ns: int) -> None:
        """To be called at each turn at which the pin is to be open, before it is opened.

        Raises: OSError if the other process does not take it: then the pin must not be opened.
        """
        if until_ns < self._until_ns or (until_ns > self._until_ns and self._until_ns < now_ns + RENEW_NS):
            self._say(until_ns)

    def has_run_out(self, now_ns: int) -> bool:
        """The other process may have closed the pin."""
        return self._until_ns != CLOSED and now_ns >= self._until_ns + GRACE_NS

    def closed(self) -> None:
        """subtle: not suppressed for long, for a pin that is closed again by the other process does no harm."""
        if self._until_ns != CLOSED:
            with contextlib.suppress(OSError):
                self._say(CLOSED)

    def close(self) -> None:
        self._closing = True
        if self._thread:
            self._thread.let_end()
        with contextlib.suppress(OSError):  # it is gone already
            self._station.shutdown(socket.SHUT_RDWR)
        if self._thread:
            self._thread.wait(END_WITHIN_S)
        try:
            self._child.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
        self._station.close()

    def _start(self, kind: str, pin: int, theirs: socket.socket) -> subprocess.Popen[bytes]:
        numbers = (pin, theirs.fileno())
        command = [sys.executable, "-I", "-S", str(PROGRAM), kind, *map(str, numbers)]
        with theirs:
            try:
                return subprocess.Popen(  # noqa: S603
                    command,
                    pass_fds=numbers,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                self._station.close()
                raise InputError(f"{PROGRAM.name} cannot be started ({error.strerror}): free memory") from None

    def _say(self, until_ns: int) -> None:
        self._station.send(UNTIL.pack(until_ns), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        self._until_ns = until_ns

    def _listen(self, supervised: Supervised) -> None:
        """Raises: InputError at the end of the other process, which the supervisor sees."""
        while not self._closing:
            try:
                is_there = bool(self._station.recv(1))
            except TimeoutError:
                continue
            except OSError:
                is_there = False
            if not is_there and not self._closing:
                raise InputError("the process that closes the gate if this one hangs is no more")
            supervised.beat()
