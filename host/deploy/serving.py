"""One model package, served over HTTP to stations that are told to fetch it, and nothing else of this machine."""

from __future__ import annotations

import contextlib
import http.server
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import InputError
from protocol.manifest import MANIFEST, Package
from protocol.signing import SIGNATURE

STALLED_S = 30.0  # a station that takes no more bytes for so long is left
CHUNK_BYTES = 1 << 16


@contextlib.contextmanager
def serve_package(package: Package, host: str, port: int = 0) -> Iterator[str]:
    """The URL, while it is served. It has a part that nobody guesses. Raises: InputError if it cannot listen there."""
    base = f"/{secrets.token_urlsafe(12)}/{package.manifest.id}"
    files = {f"{base}/{name}": package.folder / name for name in (MANIFEST, SIGNATURE, *package.manifest.files)}

    class Handler(_Handler):
        served = files

    try:
        server = http.server.ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port} ({error.strerror}): correct --serve") from None
    thread = threading.Thread(target=server.serve_forever, name="serve-package", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}{base}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
