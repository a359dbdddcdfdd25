"""Who may connect: public keys in a folder, asked for by ZeroMQ at each handshake (RFC 27/ZAP); refusals counted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message
from zmq.utils.z85 import encode as encode_z85

from host.server.logs import Once, log
from host.server.metrics import Metrics
from protocol.errors import InputError
from protocol.keys import load_public
from protocol.sockets import Socket, open_socket

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
MAX_KEYS = 4096
_FAILED = {
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "not encrypted, or for another server",
    # a port scan; or the same as above, from a peer that saw it first
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "gone before the handshake was over",
}


UNKNOWN_KEY = "unknown key"


class Admission:
    """`folders` maps a ZAP domain to the folder of the public keys it lets in. Open it before the sockets it guards."""

    def __init__(self, folders: Mapping[bytes, Path], metrics: Metrics) -> None:
        self._folders, self._metrics = folders, metrics
        self._allowed: dict[bytes, dict[bytes, str]] = {}
        self._stamps: dict[Path, int] = {}
        for why in (UNKNOWN_KEY, *_FAILED.values()):  # each series begins at 0
            metrics.refused.labels(why)
        self._said = Once()
        self._monitors: list[Socket] = []
        self.socket = open_socket("ROUTER", ZAP_ENDPOINT, bind=True, high_water_mark=64)
        self.reload()

    def reload(self) -> None:
        """Look for keys that were added or removed. A connection that stands is not cut.

        Raises: InputError if a folder or a key cannot be read.
        """
        for domain, folder in self._folders.items():
            try:
                stamp = folder.stat().st_mtime_ns
            except OSError as error:
                raise InputError(f"cannot read {folder} ({error.strerror}): put the clients' keys there") from None
            if self._stamps.get(folder) != stamp:
                paths = sorted(folder.glob("*.public"))[:MAX_KEYS]
                self._allowed[domain] = {load_public(path): path.stem for path in paths}
                self._stamps[folder] = stamp

    def watch(self, socket: Socket) -> Any:
        """The monitor of a guarded socket, to be polled for `note_failures`."""
        monitor = socket.get_monitor_socket(sum(_FAILED))
        monitor.setsockopt(zmq.LINGER, 0)
        self._monitors.append(monitor)
        return monitor

    def answer(self) -> None:
        """Answer the handshakes that wait."""
        while self.socket.poll(0):
            peer, empty, version, number, domain, address, _, mechanism, *credentials = self.socket.recv_multipart()
            name = None
            if mechanism == b"CURVE" and len(credentials) == 1:
                name = self._allowed.get(domain, {}).get(encode_z85(credentials[0]))
            status, text = (b"200", b"") if name else (b"400", b"unknown key")
            if not name:
                self._note(UNKNOWN_KEY, address.decode(errors="replace"))
            self.socket.send_multipart([peer, empty, version, number, status, text, (name or "").encode(), b""])

    def note_failures(self, monitor: Any) -> None:
        """Count handshakes that never came to a key: a plain client, one that expects another server."""
        while monitor.poll(0):
            event = parse_monitor_message(monitor.recv_multipart())
            self._note(_FAILED[zmq.Event(event["event"])], "")

    def close(self) -> None:
        for monitor in self._monitors:
            monitor.close(0)
        self.socket.close(0)

    def _note(self, why: str, address: str) -> None:
        self._metrics.refused.labels(why).inc()
        if self._said.first((why, address)):
            log("peer refused", level=logging.WARNING, why=why, address=address)
