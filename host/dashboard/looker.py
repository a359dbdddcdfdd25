"""Looks on at the tap: pictures and anomaly maps of parts, as many as can be kept up with."""

from __future__ import annotations

import threading

from host.dashboard.pictures import PictureStore
from protocol.errors import MessageError
from protocol.sockets import open_socket
from protocol.supervision import SUPERVISOR, Supervised, Supervisor
from protocol.tap import decode_tap

POLL_MS = 200
QUEUED_PARTS = 16
SILENT_S = 5.0  # a picture is written meanwhile


class Looker:
    def __init__(
        self, endpoint: str, site: str, line: str, pictures: PictureStore, supervisor: Supervisor = SUPERVISOR
    ) -> None:
        """Raises: InputError for a malformed endpoint."""
        self._pictures, self._speaker = pictures, (site, line)
        self._stop = threading.Event()
        self.seen = self.refused = self.unkept = 0
        self._socket = open_socket("SUB", endpoint, bind=False, high_water_mark=QUEUED_PARTS, timeout_ms=POLL_MS)
        self._thread = supervisor.start("tap reader", self._run, silent_s=SILENT_S, is_needed=False)

    def close(self) -> None:
        self._thread.stop(self._stop.set, SILENT_S)
        self._socket.close(0)

    def _run(self, supervised: Supervised) -> None:
        while not self._stop.is_set():
            supervised.beat()
            if self._socket.poll(POLL_MS):
                self._take(self._socket.recv_multipart())

    def _take(self, message: list[bytes]) -> None:
        try:
            part = decode_tap(message)
        except MessageError:
            self.refused += 1
            return
        if (part.verdict.site, part.verdict.line) != self._speaker:
            self.refused += 1
            return
        try:
            self._pictures.put(part)
            self.seen += 1
        except OSError:  # the disk is full or gone: the history goes on without pictures
            self.unkept += 1
