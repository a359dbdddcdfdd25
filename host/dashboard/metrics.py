"""What the page's program counts, for Prometheus: text at /metrics, read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from board.records.health import resident_mb
from host.dashboard.desk import Desk
from protocol.console import STDERR
from protocol.supervision import SUPERVISOR

PREFIX = "beltsight_page_"


def metrics_routes(desk: Desk) -> list[Route]:
    registry = CollectorRegistry()
    registry.register(Counts(desk))

    def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [Route("/metrics", metrics)]


class Counts(Collector):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Iterator[Metric]:
        desk = self._desk
        yield _counter("verdicts_stored", "Verdicts that are in the history since the start", desk.writer.stored)
        yield _counter("verdicts_duplicate", "Verdicts that came again", desk.writer.duplicates)
        yield _counter("messages_set_aside", "Messages that cannot be in the history", desk.aside.count)
        yield _gauge("history_bytes", "Of the whole database", desk.retention.used_bytes())
        yield _gauge("history_is_short", "1 where parts go before their days are over", float(desk.retention.is_short))
        yield _counter("messages_refused", "Messages of the broker that are none", desk.link.refused)
        yield _counter("events_dropped", "Live events that slow pages did not get", desk.hub.dropped)
        if desk.looker:
            yield _counter("parts_seen", "Parts whose picture came over the tap", desk.looker.seen)
            yield _counter("parts_refused", "Messages of the tap that are none", desk.looker.refused)
            yield _counter("pictures_unkept", "Pictures that the disk did not take", desk.looker.unkept)
        kept = GaugeMetricFamily(f"{PREFIX}picture_bytes", "Pictures and maps on the disk", labels=["shelf"])
        for shelf, used in desk.pictures.used_bytes().items():
            kept.add_metric([shelf], used)
        yield kept
        yield _gauge("open", "Pages that are open", desk.hub.pages)
        yield _gauge("history_trouble", "1 while verdicts cannot be stored", float(desk.writer.is_stopped))
        yield _gauge("broker_connected", "1 while the broker is heard", float(not desk.station.broker_trouble))
        trouble = GaugeMetricFamily(
            f"{PREFIX}thread_trouble", "1 for a thread that has ended or hangs", labels=["thread"]
        )
        for entry in SUPERVISOR.troubles():
            trouble.add_metric([entry.name], 1)
        yield trouble
        yield _counter("log_lines_lost", "Lines of the log that could not be written", STDERR.lost)
        yield _gauge("resident_bytes", "Memory of the program", resident_mb() * 1e6)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}{name}", text, value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", text, value)
