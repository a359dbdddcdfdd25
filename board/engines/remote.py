"""The detection server (`beltsight server`) as an engine: never waited for beyond a deadline.

What was asked on one socket can only be answered there: after a time-out the socket is replaced, so that a late answer
reaches nobody. The connection outlives the engine, and is looked after while another engine speaks: a lost server costs
one deadline, once, and trying it again costs `PROBE_S` at most.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray

from protocol.detection import Answer, Content, Ping, Pong, Refusal, Request, ToBoard, decode_to_board, encode
from protocol.errors import EngineError, MessageError
from protocol.keys import client_options, is_loopback, load_public, load_secret
from protocol.manifest import MODEL_ONNX, Package
from protocol.sockets import NO_OPTIONS, Options, Socket, open_socket
from protocol.strict import require
from protocol.wire import view_bytes

START_WITHIN_S = 2.0  # at the board's start the server may still have to load the model
PROBE_S = 0.005
PING_EVERY_S = 0.05
FRESH_S = 1.0  # a server that was ready so long ago is not asked again before it is used
Reply = tuple[ToBoard, NDArray[np.int8] | None]


@dataclass(frozen=True)
class RemoteSettings:
    endpoint: str = "tcp://127.0.0.1:5555"
    deadline_ms: float = 100.0  # for one part, all attempts together
    attempts: int = 2  # each on a fresh connection, with an equal share of the time that is left
    server_key: Path | None = None  # the server's public key
    key: Path | None = None  # this board's secret key; the server must have its public one
    plain_anywhere: bool = False  # speak unencrypted beyond this machine: anybody may listen and answer

    def __post_init__(self) -> None:
        require(1 <= self.deadline_ms <= 60_000, "deadline_ms", "must be 1..60000")
        require(1 <= self.attempts <= 10, "attempts", "must be 1..10")
        require((self.key is None) == (self.server_key is None), "key", "key and server_key go together")
        plain_is_fine = self.key is not None or self.plain_anywhere or is_loopback(self.endpoint)
        require(plain_is_fine, "endpoint", "is another machine: give server_key and key, or plain_anywhere = true")


class RemoteServer:
    """The board's connection to the server, for one model; of one thread."""

    def __init__(self, settings: RemoteSettings, package: Package, content: Content = "image") -> None:
        """Raises: InputError for keys or an endpoint that cannot be used."""
        self._settings, self._model, self._content = settings, package.manifest.id, content
        self._sha256 = package.manifest.files.get(MODEL_ONNX, "")
        self._keys: Options = NO_OPTIONS
        if settings.server_key and settings.key:
            self._keys = client_options(load_public(settings.server_key), load_secret(settings.key))
        self._numbers = itertools.count(1)
        self._socket = self._connect()
        self._ready_s = -math.inf  # when it last said that it is ready
        self._trouble = ""

    def reach(self, within_s: float) -> bool:
        """Have the server load the model, and wait until it is ready. Blocks for at most `within_s`."""
        until_s = time.monotonic() + within_s
        self._trouble = "it does not answer: see whether it runs, and whether it knows this board's key"
        while True:
            if self._socket.poll(_left_ms(until_s), zmq.POLLOUT):
                self._send([encode(Ping(next(self._numbers), self._model, self._sha256))])
            while reply := self._receive(min(until_s, time.monotonic() + PING_EVERY_S)):
                header = reply[0]
                if isinstance(header, Pong) and header.ready:
                    self._ready_s = time.monotonic()
                    return True
                self._trouble = getattr(header, "text", "")
            if time.monotonic() >= until_s:
                return False

    def open_engine(self) -> RemoteEngine:
        """Raises: EngineError, almost at once, while the server is not ready."""
        if time.monotonic() - self._ready_s > FRESH_S and not self.reach(PROBE_S):
            # subtle: a handshake that was refused ends a socket for good, even once the key is known
            if not self._socket.poll(0, zmq.POLLOUT):
                self._renew()
            raise EngineError(f"the server at {self._settings.endpoint}: {self._trouble}")
        return RemoteEngine(self)

    def ask(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        """The anomaly map of what `content` says: the network's image, or a frame.

        Raises: EngineError at the deadline, or when the server refuses.
        """
        until_s = time.monotonic() + self._settings.deadline_ms / 1e3
        for left in range(self._settings.attempts, 0, -1):
            now_s = time.monotonic()
            anomaly = self._ask_once(image, now_s + (until_s - now_s) / left)
            if anomaly is not None:
                return anomaly
            self._renew()
        raise EngineError(
            f"the server at {self._settings.endpoint} gave no answer within {self._settings.deadline_ms:g} ms: "
            "see whether it runs, or raise deadline_ms"
        )

    def close(self) -> None:
        self._socket.close(0)

    def _ask_once(self, image: NDArray[np.uint8], until_s: float) -> NDArray[np.int8] | None:
        """None when no answer came in time."""
        number = next(self._numbers)
        self._socket.poll(_left_ms(until_s), zmq.POLLOUT)
        left_ms = (until_s - time.monotonic()) * 1e3
        if left_ms <= 0:
            return None
        shape = (image.shape[0], image.shape[1])
        request = Request(number, self._model, left_ms, shape, self._content, model_sha256=self._sha256)
        self._send([encode(request), view_bytes(image)])
        while reply := self._receive(until_s):
            header, anomaly = reply
            if isinstance(header, Refusal) and header.id in (0, number):
                raise EngineError(f"the server at {self._settings.endpoint} refuses ({header.code}): {header.text}")
            if isinstance(header, Answer) and header.id == number:
                return anomaly
        return None

    def _send(self, parts: list[bytes | memoryview]) -> None:
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:  # not connected, or the server does not read: the deadline tells
            return

    def _receive(self, until_s: float) -> Reply | None:
        """None when nothing came in time. Raises: EngineError."""
        if not self._socket.poll(_left_ms(until_s)):
            return None
        try:
            return decode_to_board(self._socket.recv_multipart())
        except MessageError as error:
            raise EngineError(f"the server at {self._settings.endpoint} is no detection server: {error}") from None

    def _renew(self) -> None:
        self._socket.close(0)
        self._socket, self._ready_s = self._connect(), -math.inf

    def _connect(self) -> Socket:
        """Connects in the background, again and again. Raises: InputError."""
        options: Options = {
            zmq.IMMEDIATE: 1,  # nothing is queued for a server that is not there
            zmq.CONNECT_TIMEOUT: 1000,
            zmq.RECONNECT_IVL_MAX: 1000,
            zmq.HEARTBEAT_IVL: 500,
            zmq.HEARTBEAT_TIMEOUT: 1500,
            **self._keys,
        }
        return open_socket("DEALER", self._settings.endpoint, bind=False, high_water_mark=4, options=options)


class RemoteEngine:
    name = "remote"

    def __init__(self, server: RemoteServer) -> None:
        self._server = server

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        return self._server.ask(image)

    def close(self) -> None:
        """The connection stays, so that the server's return is noticed."""


def _left_ms(until_s: float) -> int:
    # subtle: rounded up, for a poll of 0 ms would turn the last millisecond into a busy wait
    return max(0, int((until_s - time.monotonic()) * 1e3 + 0.999))
