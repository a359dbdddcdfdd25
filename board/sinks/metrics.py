"""What the station counts, for Prometheus: text over HTTP at /metrics, by hand, as the board has no client library.

The format is the text exposition format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
"""

from __future__ import annotations

import bisect
import http.server
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from board.records.health import resident_mb
from protocol.address import parse_address
from protocol.errors import InputError
from protocol.http_server import HttpServer
from protocol.keys import is_loopback
from protocol.messages import Decision, Frame, Verdict
from protocol.reports import CONDITIONS, LineState
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervisor

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
CALLER_S = 2.0  # for a caller that says nothing: one is answered at a time
STAGES = ("wait", "decode", "preprocess", "infer", "decide")
STATES = tuple(state for state in CONDITIONS if state != "lost")  # whoever answers is not lost
IIO = Path("/sys/bus/iio/devices")
# Numbers of the health report by their metric; what is not listed is no number, or is counted here anyway.
COUNTED: dict[str, tuple[str, Literal["counter", "gauge"], str]] = {
    "unacknowledged": ("outbox_waiting", "gauge", "Verdicts that the broker has not acknowledged"),
    "dropped_verdicts": ("verdicts_dropped_total", "counter", "Verdicts out of a full outbox"),
    "refused_by_broker": ("verdicts_refused_total", "counter", "Verdicts that the broker refused; they are sent again"),
    "set_aside": (
        "verdicts_set_aside",
        "gauge",
        "Verdicts that the broker cannot be sent, in a file beside the outbox",
    ),
    "taken_over": ("connection_taken_over_total", "counter", "Times that another client came under our client id"),
    "dropped_commands": ("commands_dropped_total", "counter", "Commands that came too many at once"),
    "capture_parts_left": ("capture_parts_left", "gauge", "Parts that a commanded capture still takes"),
    "lesson_parts_left": ("lesson_parts_left", "gauge", "Good parts that a model is still to be taught by"),
    "log_lost": ("log_lines_lost_total", "counter", "Lines of the log that could not be written"),
    "known_bad_parts": ("known_bad_parts", "gauge", "Known-bad parts that the model's package carries"),
    "known_bad_found": ("known_bad_found", "gauge", "Of these, how many the model finds at the present threshold"),
    "refused_messages": ("messages_refused_total", "counter", "Messages of the belt that are none"),
    "good_stopped": ("good_parts_stopped_total", "counter", "Good parts that met the closed gate"),
    "gate_faults": ("gate_faults_total", "counter", "Movements of the gate that failed"),
    "belt_speed_mm_s": ("belt_speed_mm_per_second", "gauge", "The belt's speed as it was measured"),
    "refused_undecodable": ("messages_undecodable_total", "counter", "Of these, those that nobody can read"),
    "refused_repeated": ("messages_repeated_total", "counter", "Of these, those that came before"),
    "refused_late_frames": ("messages_late_frames_total", "counter", "Of these, frames of parts that were given up"),
    "frames_corrupt": ("frames_corrupt_total", "counter", "Frames that were not whole"),
    "frames_repeated": ("frames_repeated_total", "counter", "Frames that had been there before"),
    "frames_dark": ("frames_dark_total", "counter", "Frames that were all dark"),
    "frames_white": ("frames_white_total", "counter", "Frames that were all white"),
    "part_gaps": ("part_gaps_total", "counter", "Jumps in the numbers of the parts"),
    "parts_missing": ("parts_missing_total", "counter", "Numbers that were jumped over"),
    "part_restarts": ("part_restarts_total", "counter", "Times that the numbers of the parts began again"),
    "recorder_dropped": ("recorder_dropped_total", "counter", "Parts that the recorder had no room for"),
    "second_opinions": ("second_opinions_total", "counter", "Parts that the server judged again"),
    "second_opinions_dropped": ("second_opinions_dropped_total", "counter", "Parts that it was not asked about"),
    "second_opinions_failed": ("second_opinions_failed_total", "counter", "Parts that it gave no answer about"),
    "second_opinion_disagreements": ("second_opinion_disagreements_total", "counter", "Parts it judged otherwise"),
    "drift_parts": ("drift_parts", "gauge", "Accepted parts looked at since the start or the change of model"),
    "drift_skipped": ("drift_skipped_total", "counter", "Accepted parts that there was no time to look at"),
    "drift_warnings": ("drift_warnings_total", "counter", "Warnings that lamp, lens or parts have drifted"),
    "drifting": ("drifting", "gauge", "Statistics that are away from the model's calibration now"),
}


@dataclass(frozen=True)
class MetricsSettings:
    listen: str = ""  # for example "127.0.0.1:9108"; empty: nobody is answered
    anywhere: bool = False  # also on an address that other machines reach: anybody there may read the counts

    def __post_init__(self) -> None:
        _, port = self.address()
        require(not self.listen or port > 0, "listen", 'must be an address and a port, such as "127.0.0.1:9108"')
        hidden = not self.listen or is_loopback(f"tcp://{self.listen}")
        require(hidden or self.anywhere, "listen", "can be reached by others: give 127.0.0.1, or anywhere = true")

    def address(self) -> tuple[str, int]:
        """Where to listen; port 0 for what is no address."""
        return parse_address(self.listen) or ("", 0)


class Histogram:
    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect.bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def write(self, name: str, labels: Mapping[str, str]) -> Iterator[str]:
        total = 0
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self._counts, strict=True):
            total += count
            yield write_sample(f"{name}_bucket", total, {**labels, "le": bound})
        yield write_sample(f"{name}_sum", self._sum, labels)
        yield write_sample(f"{name}_count", total, labels)


class MetricsSink:
    """A `ResultSink` that counts, and answers whoever asks."""

    def __init__(
        self,
        settings: MetricsSettings,
        counters: Callable[[], Mapping[str, object]],
        state: Callable[[], LineState],
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """`counters` and `state` are asked at each scrape, by another thread. Raises: InputError for a taken port."""
        self._counters, self._state = counters, state
        self._lock = threading.Lock()  # a scrape sees whole parts
        self._started_s = time.time()
        self._parts: Counter[Decision] = Counter()
        self._missed = 0
        self._latency = Histogram()
        self._stages = {stage: Histogram() for stage in STAGES}  # a series that begins at 1 has no increase
        self._last: Verdict | None = None
        try:
            self._server = HttpServer(settings.address(), self._handler())
        except OSError as error:
            where = f"[metrics] listen {settings.listen}"
            raise InputError(f"{where} cannot be opened ({error.strerror}): choose another port") from None
        self._server.start("metrics", supervisor)

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:  # noqa: ARG002
        with self._lock:
            self._parts[verdict.decision] += 1
            self._missed += verdict.missed_deadline
            self._latency.observe(verdict.latency_ms / 1e3)
            for stage, spent_ms in verdict.stages_ms.items():
                self._stages.setdefault(stage, Histogram()).observe(spent_ms / 1e3)
            self._last = verdict

    def close(self) -> None:
        self._server.close()

    def write(self) -> str:
        """All metrics as they are now."""
        with self._lock:
            lines = [*self._write_parts(), *self._write_last()]
        lines += [*self._write_state(), *self._write_counters(), *self._write_process()]
        return "".join(line + "\n" for line in lines)

    def _write_parts(self) -> Iterator[str]:
        yield from write_head("parts_total", "counter", "Parts by their decision")
        for decision in get_args(Decision):
            yield write_sample("parts_total", self._parts[decision], {"decision": decision})
        yield from write_head("missed_deadlines_total", "counter", "Parts whose verdict came too late for the gate")
        yield write_sample("missed_deadlines_total", self._missed)
        yield from write_head("latency_seconds", "histogram", "From the trigger to the decision")
        yield from self._latency.write("latency_seconds", {})
        yield from write_head("stage_seconds", "histogram", "Of the latency, by stage")
        for stage, histogram in self._stages.items():
            yield from histogram.write("stage_seconds", {"stage": stage})

    def _write_last(self) -> Iterator[str]:
        last = self._last
        if last is None:
            return
        yield from write_head(
            "engine", "gauge", "1 for the engine that judged the latest part; none: it was not judged"
        )
        yield write_sample("engine", 1, {"engine": last.engine or "none"})
        yield from write_head("engine_degraded", "gauge", "1 where another than the first engine of the order speaks")
        yield write_sample("engine_degraded", int(last.degraded))
        yield from write_head("threshold", "gauge", "Scores at or above it are rejected")
        yield write_sample("threshold", last.threshold)
        yield from write_head("reading", "gauge", "Sensor readings of the latest part")
        for name, value in last.readings.items():
            yield write_sample("reading", value, {"sensor": name})

    def _write_state(self) -> Iterator[str]:
        state = self._state()
        yield from write_head("state", "gauge", "1 for the state that the line is in")
        for name in STATES:
            yield write_sample("state", int(state.state == name), {"state": name})
        yield from write_head("model_info", "gauge", "The model that judges")
        yield write_sample("model_info", 1, {"model": state.model_id})

    def _write_counters(self) -> Iterator[str]:
        for key, value in self._counters().items():
            if key in COUNTED and isinstance(value, (int, float)):
                name, kind, help_text = COUNTED[key]
                yield from write_head(name, kind, help_text)
                yield write_sample(name, value)

    def _write_process(self) -> Iterator[str]:
        yield from write_head("resident_bytes", "gauge", "Memory of the station's process")
        yield write_sample("resident_bytes", resident_mb() * 1e6)
        yield from write_head("start_time_seconds", "gauge", "When the station started, since 1970")
        yield write_sample("start_time_seconds", self._started_s)
        die_celsius = read_die_celsius(IIO)
        if die_celsius is not None:
            yield from write_head("die_celsius", "gauge", "Temperature of the chip")
            yield write_sample("die_celsius", die_celsius)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = CALLER_S

            def do_GET(self) -> None:
                found = self.path == "/metrics"
                body = (sink.write() if found else "/metrics\n").encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """A call every few seconds is no event."""

        return Handler


PREFIX = "beltsight_line_"


def write_head(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {help_text}"
    yield f"# TYPE {PREFIX}{name} {kind}"


def write_sample(name: str, value: float, labels: Mapping[str, str] | None = None) -> str:
    """For example `beltsight_line_parts_total{decision="OK"} 17`."""
    shown = ",".join(f'{key}="{escape(text)}"' for key, text in (labels or {}).items())
    return f"{PREFIX}{name}{{{shown}}} {value}" if shown else f"{PREFIX}{name} {value}"


def escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def read_die_celsius(devices: Path) -> float | None:
    """Of the Zynq's XADC as the kernel shows it (Documentation/ABI/testing/sysfs-bus-iio); None on other machines."""
    for device in sorted(devices.glob("iio:device*")):
        try:
            raw, offset, scale = (
                float((device / f"in_temp0_{part}").read_text()) for part in ("raw", "offset", "scale")
            )
        except (OSError, ValueError):  # another sensor
            continue
        return (raw + offset) * scale / 1000  # the scale gives thousandths of a degree
    return None
