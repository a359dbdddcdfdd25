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
BOARDS, WORKERS = b"boards", b"workers"  # ZAP domains
FAILED = {
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "not encrypted, or for another server",
    # a port scan; or the same as above, from a peer that saw it first
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "gone before the handshake was over",
}


UNKNOWN_KEY, WITHDRAWN = "unknown key", "key was withdrawn"


class Admission:
    """`folders` maps a ZAP domain to the folder of the public keys it lets in. Open it before the sockets it guards."""

    def __init__(self, folders: Mapping[bytes, Path], metrics: Metrics) -> None:
        self._folders, self._metrics = folders, metrics
        self._allowed: dict[bytes, dict[bytes, str]] = {}
        self._stamps: dict[Path, dict[Path, tuple[int, ...]]] = {}
        for why in (UNKNOWN_KEY, WITHDRAWN, *FAILED.values()):  # each series begins at 0
            metrics.refused.labels(why)
        self._said = Once()
        self._monitors: list[Socket] = []
        self.socket = open_socket("ROUTER", ZAP_ENDPOINT, bind=True, high_water_mark=64)
        self.reload()

    def reload(self) -> None:
        """Look for keys that were added, changed or removed. Raises: InputError if a folder cannot be read.

        A key that cannot be read lets nobody in, and keeps no other's removal from being seen.
        """
        for domain, folder in self._folders.items():
            try:
                paths = sorted(folder.glob("*.public"))[:MAX_KEYS] if folder.stat() else []
            except OSError as error:
                raise InputError(f"cannot read {folder} ({error.strerror}): put the clients' keys there") from None
            stamps = {path: stamp for path in paths if (stamp := _stamp(path))}
            if self._stamps.get(folder) != stamps:
                self._stamps[folder] = stamps
                self._allowed[domain] = dict(filter(None, map(self._load, stamps)))

    def lets_in(self, domain: bytes, key: str) -> bool:
        """Whether the key that a connection came in with is still one that may."""
        return key.encode() in self._allowed.get(domain, {})

    def _load(self, path: Path) -> tuple[bytes, str] | None:
        try:
            return load_public(path), path.stem
        except InputError as error:
            log("key cannot be read", level=logging.ERROR, fault=str(error))
            return None

    def watch(self, socket: Socket) -> Any:
        """The monitor of a guarded socket, to be polled for `note_failures`."""
        monitor = socket.get_monitor_socket(sum(FAILED))
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
                self.note(UNKNOWN_KEY, address.decode(errors="replace"))
            # the key itself is the connection's User-Id: another key may get the same name later
            user = encode_z85(credentials[0]) if name else b""
            self.socket.send_multipart([peer, empty, version, number, status, text, user, b""])

    def note_failures(self, monitor: Any) -> None:
        """Count handshakes that never came to a key: a plain client, one that expects another server."""
        while monitor.poll(0):
            self.note_failure(parse_monitor_message(monitor.recv_multipart())["event"])

    def note_failure(self, event: int) -> None:
        self.note(FAILED[zmq.Event(event)], "")

    def close(self) -> None:
        for monitor in self._monitors:
            monitor.close(0)
        self.socket.close(0)

    def note(self, why: str, address: str) -> None:
        self._metrics.refused.labels(why).inc()
        if self._said.first((why, address)):
            log("peer refused", level=logging.WARNING, why=why, address=address)


def _stamp(path: Path) -> tuple[int, ...]:
    """Empty if it has gone since it was listed."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def key_of(frame: zmq.Frame) -> str:
    """The key with which a message's connection came in; empty where it is not encrypted."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""
