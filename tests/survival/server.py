"""A detection server that can be killed, and a faulty machine on the way to it: its answers can be made wrong."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import zmq

from sim.station import LOOPBACK, free_port
from tests.host.server.running import Server, run_server

TURN_MS = 50


class MortalServer:
    """`beltsight server` behind a proxy. While `lies`, one bit of every anomaly map is another."""

    def __init__(self, folder: Path) -> None:
        self.lies = False
        self._folder = folder
        self._address = f"tcp://{LOOPBACK}:{free_port()}"
        self._opened = contextlib.ExitStack()
        self._server: Server | None = None
        self.start()
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self.port: int = self._socket.bind_to_random_port(f"tcp://{LOOPBACK}")
        self._far: dict[bytes, zmq.Socket[bytes]] = {}  # one connection to the server for each of the board's
        self._closing = False
        self._thread = threading.Thread(target=self._pass_on, name="server-proxy", daemon=True)
        self._thread.start()

    def start(self) -> None:
        folder = self._folder / "models"
        self._server = self._opened.enter_context(
            run_server(self._folder, folder, "--workers", "1", bind=self._address)
        )

    def kill(self) -> None:
        if self._server:
            self._server.child.kill()
            self._server.child.wait()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        for socket in (self._socket, *self._far.values()):
            socket.close(0)
        self._opened.close()

    def _pass_on(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        while not self._closing:
            ready = dict(poller.poll(TURN_MS))
            if self._socket in ready:
                board, *parts = self._socket.recv_multipart()
                if board not in self._far:
                    self._far[board] = zmq.Context.instance().socket(zmq.DEALER)
                    self._far[board].connect(self._address)
                    poller.register(self._far[board], zmq.POLLIN)
                self._far[board].send_multipart(parts, zmq.NOBLOCK)
            for board, far in self._far.items():
                if far in ready:
                    self._socket.send_multipart([board, *self._altered(far.recv_multipart())])

    def _altered(self, parts: list[bytes]) -> list[bytes]:
        if not self.lies or len(parts) < 2 or not parts[1]:
            return parts
        return [parts[0], bytes((parts[1][0] ^ 1,)) + parts[1][1:]]
