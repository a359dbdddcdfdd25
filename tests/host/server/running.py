"""A real server as a process, and a board that asks it."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from protocol.detection import Answer, Ping, Pong, Refusal, Request, ToBoard, decode_to_board, encode
from protocol.sockets import Options, Socket, open_socket
from protocol.wire import view_bytes
from sim.station import LOOPBACK, ROOT, free_port

WITHIN_S = 20.0


@dataclass
class Server:
    endpoint: str
    http: str
    log: Path
    child: subprocess.Popen[bytes]

    def workers(self) -> list[int]:
        """Process ids."""
        children = Path(f"/proc/{self.child.pid}/task").glob("*/children")
        return [int(pid) for path in children for pid in path.read_text().split()]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.http + path, timeout=WITHIN_S) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """Sum over its labels unless the name has them."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def resident_mb(self) -> float:
        """Memory of the front (proc(5), statm field 2, pages of 4 KiB)."""
        return int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * 4096 / 1e6

    def says(self, text: str) -> bool:
        return text in self.log.read_text()


@contextlib.contextmanager
def run_server(folder: Path, models: Path, *options: str, bind: str = "") -> Iterator[Server]:
    endpoint, http_port = bind or f"tcp://{LOOPBACK}:{free_port()}", free_port()
    command = [sys.executable, "-m", "host.server", "--models", str(models), "--bind", endpoint]
    command += ["--metrics", f"{LOOPBACK}:{http_port}", *options]
    log = folder / f"server-{http_port}.log"
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
    server = Server(endpoint, f"http://{LOOPBACK}:{http_port}", log, child)
    try:
        until(lambda: server.says("server runs") or child.poll() is not None)
        assert child.poll() is None, log.read_text()
        yield server
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            child.wait(WITHIN_S)


@dataclass
class Board:
    """Asks as a board would, but sees every reply."""

    endpoint: str
    keys: Options = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    sent: dict[int, int] = field(default_factory=dict)  # number -> the picture's first byte
    socket: Socket = field(init=False)

    def __post_init__(self) -> None:
        self.socket = open_socket("DEALER", self.endpoint, bind=False, high_water_mark=64, options=self.keys)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(0)

    def send(self, image: NDArray[np.uint8], **changes: Any) -> int:
        """The number of the request."""
        fields = {
            "id": next(self.numbers),
            "model": "trivial",
            "deadline_ms": WITHIN_S * 1e3,
            "shape": image.shape[:2],
            **changes,
        }
        self.socket.send_multipart([encode(Request(**fields)), view_bytes(image)])
        self.sent[fields["id"]] = int(image.flat[0])
        return int(fields["id"])

    def send_bytes(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts)

    def receive(self, within_s: float = WITHIN_S) -> tuple[ToBoard, NDArray[np.int8] | None]:
        assert self.socket.poll(int(within_s * 1e3)), "no reply came"
        return decode_to_board(self.socket.recv_multipart())

    def hears_nothing(self, for_s: float) -> bool:
        return not self.socket.poll(int(for_s * 1e3))

    def is_answered(self) -> bool:
        with contextlib.suppress(zmq.Again):  # a connection that is refused at once takes no message
            self.send(grey(1))
        return not self.hears_nothing(0.3)

    def ask(self, image: NDArray[np.uint8], **changes: Any) -> NDArray[np.int8]:
        number = self.send(image, **changes)
        reply, anomaly = self.receive()
        assert isinstance(reply, Answer), reply
        assert reply.id == number
        assert anomaly is not None
        return anomaly

    def is_refused(self) -> Refusal:
        reply, _ = self.receive()
        assert isinstance(reply, Refusal), reply
        return reply

    def pings(self, model: str) -> Pong | Refusal:
        self.socket.send(encode(Ping(next(self.numbers), model)))
        reply, _ = self.receive()
        assert isinstance(reply, (Pong, Refusal))
        return reply

    def wait_until_ready(self, model: str = "trivial") -> None:
        until(lambda: isinstance(reply := self.pings(model), Pong) and reply.ready)


def until(condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "did not happen in time"
        time.sleep(0.02)


def grey(level: int) -> NDArray[np.uint8]:
    """The trivial model's map of it is `level - 128`, but for its edges."""
    return np.full((128, 128, 3), level, np.uint8)


def is_grey(anomaly: NDArray[np.int8], level: int) -> bool:
    return bool((anomaly[1:, 1:] == level - 128).all())


def drain(socket: Socket) -> list[list[bytes]]:
    messages = []
    with contextlib.suppress(zmq.Again):
        while True:
            messages.append(socket.recv_multipart(zmq.NOBLOCK))
    return messages
