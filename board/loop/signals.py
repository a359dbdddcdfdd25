"""Every signal that would end the station ends it in order, with the gate closed.

A thread hears of them, through the pipe that Python writes to as soon as one comes: the line's own thread may hang.
SIGKILL and SIGSTOP reach nobody here; the gate's second process (board/gate/closer.py) closes a pin then, and the
overlay's timer closes by itself (`[gate] kind = "timer"`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

from board.log import say
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

# Of the others, some end nothing (signal(7)), some stand for a fault in the program itself, which cannot go on.
LEFT_ALONE = {"SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCONT", "SIGWINCH", "SIGURG"}
LEFT_ALONE |= {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"}
# A station does not pause with an open gate; a closed pipe and a file that is too long are errors where they are met.
IGNORED = {"SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGPIPE", "SIGXFSZ"}
AGAIN_S = 1.0  # who asks again after so long does not want to wait for an orderly end
OPEN_WITHIN_S = 3.0  # after the signal
LISTEN_S = 0.2
SILENT_S = 0.7
END_WITHIN_S = 2.0


@contextlib.contextmanager
def stop_on_signals(stop: threading.Event, supervisor: Supervisor = SUPERVISOR) -> Iterator[threading.Event]:
    """Set `stop` at the first. To be entered by the main thread, before it opens anything.

    It sets the event that it gets here once `stop` is looked at. Until then what is opened may take minutes, and no
    part is let through: it is not waited for.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    ours.settimeout(LISTEN_S)
    for number in signal.valid_signals():
        name = signal.Signals(number).name if number in set(signal.Signals) else "SIGRT"
        if name in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        elif name not in LEFT_ALONE:
            signal.signal(number, lambda *_: None)  # all is done by who listens
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    closing, looks = threading.Event(), threading.Event()

    def listen(supervised: Supervised) -> None:
        asked_s, first = 0.0, 0
        while not closing.is_set():
            supervised.beat()
            with contextlib.suppress(TimeoutError):
                for number in ours.recv(64):
                    asked_s, first = asked_s or time.monotonic(), first or number
                    _obey(number, stop, time.monotonic() - asked_s)
            if first and not looks.is_set() and time.monotonic() - asked_s > OPEN_WITHIN_S:
                os._exit(128 + first)

    thread = supervisor.start("signals", listen, silent_s=SILENT_S)
    try:
        yield looks
    finally:
        thread.stop(closing.set, END_WITHIN_S)


def _obey(number: int, stop: threading.Event, since_s: float) -> None:
    if since_s > AGAIN_S:
        os._exit(128 + number)  # the gate was closed at the first
    if not stop.is_set():
        stop.set()
        say(f"stopping: signal {number}")
