"""What the server counts, for Prometheus, and whether it is alive and ready: HTTP on a port of its own.

/metrics    Prometheus text format         /healthz    200 while the poll loop turns
                                           /readyz     200 while a worker can be given work
"""

from __future__ import annotations

import http.server
import time
from collections.abc import Iterator
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from host.server.dispatch import Loss
from protocol.console import STDERR
from protocol.detection import RefusalCode
from protocol.errors import InputError
from protocol.http_server import HttpServer
from protocol.supervision import SUPERVISOR

ALIVE_WITHIN_S = 5.0
REFUSED_BY_WORKER = "refused by worker"
Fate = Literal["taken over", "broken"]  # of a model's version
TIMES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.replies = Counter("beltsight_replies", "Replies by outcome", ["outcome"], registry=registry)
        self.batches = Histogram(
            "beltsight_batch_size", "Pictures judged together", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.seconds = Histogram(
            "beltsight_reply_seconds", "From a request's arrival to its reply", buckets=TIMES_S, registry=registry
        )
        self.waiting = Gauge("beltsight_waiting", "Requests in the queue", registry=registry)
        self.waiting_bytes = Gauge("beltsight_waiting_bytes", "Their bytes", registry=registry)
        self.workers = Gauge("beltsight_workers", "Workers that can be given work", registry=registry)
        self.lost = Counter("beltsight_workers_lost", "Workers that died, hung or left", ["how"], registry=registry)
        self.orphans = Counter("beltsight_orphan_results", "Results that nobody waited for any more", registry=registry)
        self.swaps = Counter("beltsight_model_versions", "Versions by what became of them", ["how"], registry=registry)
        self.refused = Counter("beltsight_refused_peers", "Connections refused", ["why"], registry=registry)
        self._begin_at_zero()
        registry.register(Threads())
        self.turned_s = time.monotonic()  # set by the poll loop in each turn
        self.ready = False

    def _begin_at_zero(self) -> None:
        """A series that is born at 1 has no increase that anybody could be warned by."""
        for outcome in ("answered", REFUSED_BY_WORKER, *get_args(RefusalCode)):
            self.replies.labels(outcome)
        for loss in get_args(Loss):
            self.lost.labels(loss)
        for fate in get_args(Fate):
            self.swaps.labels(fate)

    @property
    def alive(self) -> bool:
        return time.monotonic() - self.turned_s < ALIVE_WITHIN_S


def serve_metrics(metrics: Metrics, host: str, port: int) -> HttpServer:
    """Answer in a thread of its own, one caller at a time. Raises: InputError if the port is taken."""

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 2.0  # for a caller that says nothing

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._send(200, generate_latest(metrics.registry))
            elif self.path == "/healthz":
                self._send(200 if metrics.alive else 503, b"ok\n" if metrics.alive else b"the poll loop stands\n")
            elif self.path == "/readyz":
                ready = metrics.alive and metrics.ready
                self._send(200 if ready else 503, b"ok\n" if ready else b"no worker yet\n")
            else:
                self._send(404, b"/metrics, /healthz, /readyz\n")

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A call every few seconds is no event."""

    try:
        server = HttpServer((host, port), Handler)
    except OSError as error:
        raise InputError(f"--metrics {host}:{port} cannot be opened ({error.strerror}): choose another port") from None
    server.start("metrics")
    return server


class Threads(Collector):
    """Read when somebody asks."""

    def collect(self) -> Iterator[Metric]:
        trouble = GaugeMetricFamily(
            "beltsight_thread_trouble", "1 for a thread that has ended or hangs", labels=["thread"]
        )
        for entry in SUPERVISOR.troubles():
            trouble.add_metric([entry.name], 1)
        yield trouble
        yield CounterMetricFamily("beltsight_log_lines_lost", "Lines of the log that were not written", STDERR.lost)
