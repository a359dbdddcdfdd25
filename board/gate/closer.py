"""A second process that closes the gate's pin on time when the station cannot: it hangs, is stopped, or was killed.

Before the station opens the pin it says until when it may stay open. If that time comes and the station has not said
that it has closed it, this process does, and goes on doing so until the station says something else. The end of the
station, by SIGKILL too, is the end of its socket. Only a machine that stands still as a whole has an open pin now;
the overlay's timer closes it even then.

Started as a file by `lease.py`, it imports little and has one thread, so that nothing keeps it from its time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time

BEAT_S = 0.1
GRACE_NS = 5_000_000  # the station itself wakes up no more exactly than this
AGAIN_NS = 5_000_000  # a station that was stopped may open the pin after its time
RARELY_NS = 100_000_000
OFTEN = 400  # times; then rarely
CLOSED = 0
UNTIL = struct.Struct("=q")  # monotonic, in ns; CLOSED: the station itself has closed it
NS_PER_S = 1_000_000_000


def close_record(pin: int) -> None:
    move = {"t_ns": time.monotonic_ns(), "part_id": -1, "open": False}
    os.write(pin, json.dumps(move).encode() + b"\n")


def close_line(pin: int) -> None:
    os.pwrite(pin, b"0", 0)


CLOSES = {"dry": close_record, "gpio": close_line}


def main() -> int:
    kind, pin, station = sys.argv[1], int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # it ends when the station does
    with contextlib.suppress(OSError):  # without the right to it: like everyone
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    until_ns, closings = CLOSED, 0
    while True:
        try:
            if select.select([station], [], [], next_look_s(until_ns))[0]:
                until_ns, closings = hear(station, until_ns), 0
        except EOFError:
            break
        now_ns = time.monotonic_ns()
        if until_ns != CLOSED and now_ns >= until_ns:
            closings += 1
            until_ns = now_ns + (AGAIN_NS if closings < OFTEN else RARELY_NS)
            with contextlib.suppress(OSError):  # then again in a moment
                CLOSES[kind](pin)
        with contextlib.suppress(OSError):  # a station that hangs does not read it
            station.send(b".", socket.MSG_DONTWAIT)
    return shut_for_good(kind, pin) if until_ns != CLOSED else 0


def next_look_s(until_ns: int) -> float:
    if until_ns == CLOSED:
        return BEAT_S
    return min(BEAT_S, max(0.0, (until_ns - time.monotonic_ns()) / NS_PER_S))


def hear(station: socket.socket, until_ns: int) -> int:
    """The newest of what was said, or what held before. Raises: EOFError if the station is no more."""
    while True:
        try:
            data = station.recv(UNTIL.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return until_ns
        except OSError:  # it was killed with beats unread
            data = b""
        if not data:
            raise EOFError
        (said_ns,) = UNTIL.unpack(data)
        until_ns = said_ns if said_ns == CLOSED else said_ns + GRACE_NS


def shut_for_good(kind: str, pin: int) -> int:
    """The station has ended with the pin open: as often as it takes."""
    while True:
        try:
            CLOSES[kind](pin)
        except OSError:
            time.sleep(AGAIN_NS / NS_PER_S)
        else:
            return 0


if __name__ == "__main__":
    sys.exit(main())
