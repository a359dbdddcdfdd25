"""A file over HTTP under one deadline for all that is asked for: whatever the other side does, it ends."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from protocol.errors import InputError

CHUNK_BYTES = 1 << 16
MAX_REASON = 80
_RESERVED = "/%?=&:@!$'()*+,;~"  # of a URL, which are not quoted once more


@dataclass(frozen=True)
class Patience:
    stalled_s: float  # without a byte
    within_s: float  # all of it
    until_s: float  # when that has passed
    clock_s: Callable[[], float] = time.monotonic

    def left_s(self) -> float:
        """How long the next step may take. Raises: TimeoutError if none may."""
        left_s = self.until_s - self.clock_s()
        if left_s <= 0:
            raise TimeoutError("timed out")
        return min(left_s, self.stalled_s)

    @property
    def is_over(self) -> bool:
        return self.clock_s() >= self.until_s


def receive(url: str, name: str, patience: Patience) -> Iterator[bytes]:
    """The bytes of `url`/`name` in pieces, to the end that its host announced.

    No proxies, and no redirects: nobody sends the station elsewhere, into the plant's network, say. Raises: InputError.
    """
    size = 0
    try:
        with _ask(f"{url}/{quote(name)}", patience) as answer:
            if answer.status != http.client.OK:
                reason = "".join(letter if letter.isprintable() else "?" for letter in answer.reason)[:MAX_REASON]
                raise InputError(f"{url}/{name} cannot be fetched ({answer.status} {reason})")
            announced_bytes = answer.length  # None if not; Python 3.10's read1 does not count it down
            # subtle: read would wait for a whole chunk, however slowly its bytes trickle in
            while size != announced_bytes and (chunk := answer.read1(CHUNK_BYTES)):
                size += len(chunk)
                yield chunk
    except TimeoutError as error:
        if patience.is_over:
            raise InputError(f"{url} is too slow: not fetched within {patience.within_s:g} s") from None
        raise InputError(f"{url}/{name} cannot be fetched ({error}): see whether the host serves it") from None
    except (http.client.HTTPException, OSError, ValueError) as error:  # ValueError: no URL, or no name of a host
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise InputError(f"{url}/{name} cannot be fetched ({reason}): see whether the host serves it") from None
    if announced_bytes not in (None, size):  # subtle: a connection that was cut reads like the end of the file
        raise InputError(f"{url}/{name} cannot be fetched (cut off after {size} bytes): try again")


@contextlib.contextmanager
def _ask(url: str, patience: Patience) -> Iterator[http.client.HTTPResponse]:
    parts = urlsplit(url)
    is_encrypted = parts.scheme == "https"
    kind = http.client.HTTPSConnection if is_encrypted else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port)
    with _connect(parts, connection.port, patience) as opened:
        connection.sock = _Patient(opened, patience)
        path = parts._replace(scheme="", netloc="", fragment="").geturl()
        connection.request("GET", quote(path, safe=_RESERVED), headers={"Connection": "close"})
        with connection.getresponse() as answer:
            yield answer


def _connect(parts: SplitResult, port: int, patience: Patience) -> socket.socket:
    """Raises: OSError."""
    host = parts.hostname or ""
    failed: OSError = ConnectionError("the host has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(patience.left_s())
            opened.connect(place)
            return _encrypted(opened, host, patience) if parts.scheme == "https" else opened
        except OSError as error:
            opened.close()
            failed = error
    raise failed


def _encrypted(opened: socket.socket, host: str, patience: Patience) -> socket.socket:
    opened.settimeout(patience.left_s())  # of the handshake as a whole
    return ssl.create_default_context().wrap_socket(opened, server_hostname=host)


class _Patient:
    """What `http.client` needs of a socket. subtle: a socket's own timeout is for one wait, and each byte, header or
    "100 Continue" that trickles in begins another.
    """

    def __init__(self, opened: socket.socket, patience: Patience) -> None:
        self._opened, self._patience = opened, patience

    def sendall(self, data: bytes) -> None:
        self._opened.settimeout(self._patience.left_s())
        self._opened.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._opened, self._patience))

    def close(self) -> None:
        """It is closed by whoever opened it, when the answer was read."""


class _Reader(io.RawIOBase):
    def __init__(self, opened: socket.socket, patience: Patience) -> None:
        self._opened, self._patience = opened, patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._opened.settimeout(self._patience.left_s())
        return self._opened.recv_into(buffer)
