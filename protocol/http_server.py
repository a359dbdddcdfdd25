"""A small HTTP server in a supervised thread."""

from __future__ import annotations

import contextlib
import http.server
import threading
from functools import partial
from typing import Any

from protocol.supervision import SUPERVISOR, Supervised, Supervisor

TURN_S = 0.2
SILENT_S = 0.7
ANSWER_WITHIN_S = 10.0  # a handler has its own time limit for a caller that says nothing, and writes little
STOP_WITHIN_S = 5.0


class HttpServer(http.server.HTTPServer):
    def __init__(
        self, address: tuple[str, int], handler: type[http.server.BaseHTTPRequestHandler], *, at_once: int = 1
    ) -> None:
        """Raises: OSError if it cannot listen there."""
        super().__init__(address, handler)
        self._supervisor = SUPERVISOR
        self._at_once = threading.Semaphore(at_once) if at_once > 1 else None
        self.failed = 0  # callers that hung up, or whose request could not be answered
        self._thread: Supervised | None = None

    def start(self, name: str, supervisor: Supervisor = SUPERVISOR, *, is_needed: bool = False) -> None:
        self._supervisor = supervisor
        self._thread = supervisor.start(
            name, lambda _: self.serve_forever(TURN_S), silent_s=SILENT_S, is_needed=is_needed
        )

    def service_actions(self) -> None:
        """Called at each turn."""
        if self._thread:
            self._thread.beat()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own where several may come at once; who comes on top is sent away, and counted."""
        if self._at_once is None:
            with self._thread.busy(ANSWER_WITHIN_S) if self._thread else contextlib.nullcontext():
                super().process_request(request, client_address)
        elif self._at_once.acquire(blocking=False):
            answer = partial(self._answer, request, client_address, self._at_once)
            # None: the handler's own time limit ends it
            self._supervisor.start("answer", answer, silent_s=None, is_needed=False, is_once=True)
        else:
            self.failed += 1
            self.shutdown_request(request)

    def _answer(self, request: Any, client_address: Any, at_once: threading.Semaphore, _: Supervised) -> None:
        try:
            super().process_request(request, client_address)
        except OSError:
            self.failed += 1
            self.shutdown_request(request)
        finally:
            at_once.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """One request fails: it is no reason to write on stderr, which may be closed, or to stop answering others."""
        self.failed += 1

    def close(self) -> None:
        if self._thread and self._thread.is_alive:  # `shutdown` waits for it, without a deadline
            self._thread.stop(self.shutdown, STOP_WITHIN_S)
        self.server_close()
