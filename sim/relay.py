"""A TCP link that can be slow, stand still or be cut, and that is listened in on: the bad network of a plant."""

from __future__ import annotations

import contextlib
import queue
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from protocol.supervision import SUPERVISOR, Supervised

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 65536
MAX_WAITING = 64  # chunks on their way, each direction; beyond it the sender's TCP is held up
RETRANSMIT_S = 0.2  # Linux waits at least this long before it sends a lost segment again
STALL_TURN_S = 0.01
CONNECT_WITHIN_S = 5.0
CLOSE_WITHIN_S = 5.0
# Connection number, whether towards the target, bytes.
Listener = Callable[[int, bool, bytes], None]


@dataclass
class Link:
    """What the network does to every chunk; may be changed at any time."""

    delay_s: float = 0.0  # one way
    loss: float = 0.0  # share of the chunks that TCP has to send again
    stalled: bool = False  # nothing passes, nobody is told: a pulled cable


class Relay:
    """Listens on `port` of the loopback address and passes on to `target_port`."""

    def __init__(self, target_port: int, *, seed: int = 0, listener: Listener = lambda *_: None) -> None:
        """`listener` hears what either side sent before it is passed on; each direction has a thread of its own."""
        self.link = Link()
        self._target_port, self._listener = target_port, listener
        self._random = random.Random(seed)
        self._open: set[_Connection] = set()
        self._socket = socket.create_server((LOOPBACK, 0))
        self.port = int(self._socket.getsockname()[1])
        # None, here and below: who waits on a socket is woken when `close` or `hang_up` shuts it
        self._thread = SUPERVISOR.start("relay", self._accept, silent_s=None)

    def cut(self) -> None:
        """End every connection and drop what was on its way; a new one is welcome."""
        for connection in list(self._open):
            connection.hang_up()

    def close(self) -> None:
        self._thread.stop(lambda: _shut(self._socket), CLOSE_WITHIN_S)
        for connection in list(self._open):
            connection.hang_up()
            if connection.thread:
                connection.thread.wait(CLOSE_WITHIN_S)

    def _accept(self, _: Supervised) -> None:
        number = 0
        with self._socket, contextlib.suppress(OSError):  # of the socket that `close` shut
            while True:
                near, _ = self._socket.accept()
                try:
                    far = socket.create_connection((LOOPBACK, self._target_port), CONNECT_WITHIN_S)
                except OSError:  # nobody there: who called hears it by the end of his connection
                    near.close()
                    continue
                far.settimeout(None)
                connection = _Connection(near, far)
                self._open.add(connection)
                connection.thread = SUPERVISOR.start(
                    "connection", partial(self._serve, connection, number), silent_s=None, is_once=True
                )
                number += 1

    def _serve(self, connection: _Connection, number: int, _: Supervised) -> None:
        near, far = connection.near, connection.far
        up = SUPERVISOR.start(
            "way there", lambda _: self._pass_on(connection, near, far, number, True), silent_s=None, is_once=True
        )
        self._pass_on(connection, far, near, number, False)
        while not up.wait(CLOSE_WITHIN_S):
            continue
        with near, far:
            self._open.discard(connection)

    def _pass_on(
        self, connection: _Connection, source: socket.socket, sink: socket.socket, number: int, towards_target: bool
    ) -> None:
        waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(MAX_WAITING)
        sender = SUPERVISOR.start(
            "sender", lambda _: self._send(connection, waiting, sink), silent_s=None, is_once=True
        )
        data = b"?"
        while data:
            data = _receive(source)
            if data:
                self._listener(number, towards_target, data)
            waiting.put((time.monotonic() + self._travel_s(), data))
        while not sender.wait(CLOSE_WITHIN_S):
            continue

    def _travel_s(self) -> float:
        return self.link.delay_s + (RETRANSMIT_S if self._random.random() < self.link.loss else 0.0)

    def _send(self, connection: _Connection, waiting: queue.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
        """In order, each chunk when it is due; an empty one is the end. What cannot be sent any more is dropped."""
        data = b"?"
        while data:
            due_s, data = waiting.get()
            connection.ended.wait(max(0.0, due_s - time.monotonic()))
            while self.link.stalled and not connection.ended.is_set():
                time.sleep(STALL_TURN_S)
            if data and not connection.ended.is_set():
                with contextlib.suppress(OSError):
                    sink.sendall(data)
        _shut(sink)


class _Connection:
    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self.ended = threading.Event()
        self.thread: Supervised | None = None

    def hang_up(self) -> None:
        self.ended.set()
        _shut(self.near)
        _shut(self.far)


def _receive(source: socket.socket) -> bytes:
    with contextlib.suppress(OSError):
        return source.recv(CHUNK_BYTES)
    return b""


def _shut(end: socket.socket) -> None:
    """Both directions; whoever waits on it, here or there, is woken."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
