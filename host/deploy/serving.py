"""One model package, served over HTTP to stations that are told to fetch it, and nothing else of this machine."""

from __future__ import annotations

import contextlib
import http.server
import secrets
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import InputError
from protocol.http_server import HttpServer
from protocol.manifest import MANIFEST, Package
from protocol.signing import SIGNATURE

STALLED_S = 30.0  # a station that takes no more bytes for so long is left
STATIONS_AT_ONCE = 32
CHUNK_BYTES = 1 << 16


@contextlib.contextmanager
def serve_package(package: Package, host: str, port: int = 0) -> Iterator[str]:
    """The URL, while it is served. It has a part that nobody guesses. Raises: InputError if it cannot listen there."""
    base = f"/{secrets.token_urlsafe(12)}/{package.manifest.id}"
    files = {f"{base}/{name}": package.folder / name for name in (MANIFEST, SIGNATURE, *package.manifest.files)}

    class Handler(_Handler):
        served = files

    try:
        server = HttpServer((host, port), Handler, at_once=STATIONS_AT_ONCE)
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port} ({error.strerror}): correct --serve") from None
    server.start("server of the package")
    try:
        yield f"http://{host}:{server.server_port}{base}"
    finally:
        server.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    served: dict[str, Path]
    timeout = STALLED_S

    def do_GET(self) -> None:
        path = self.served.get(self.path)
        try:
            content = path.read_bytes() if path else None
        except OSError:
            content = None
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError, TimeoutError):  # the station says itself what it missed
            for start in range(0, len(content), CHUNK_BYTES):
                self.wfile.write(content[start : start + CHUNK_BYTES])

    def log_message(self, format: str, *args: object) -> None:
        pass
