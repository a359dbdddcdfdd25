"""What the station counts, as prometheus_client's parser reads it; the whole line's too; and the Grafana file."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from board.sinks.metrics import COUNTED, MetricsSettings, MetricsSink, read_die_celsius
from host.export.trivial import write_trivial_package
from host.server.metrics import Metrics
from protocol.errors import InputError
from protocol.messages import Frame, Trigger
from protocol.reports import LineState
from protocol.strict import FieldError
from sim.station import LOOPBACK, free_port, start_board, start_broker
from tests.examples import VERDICT, trivial_station
from tests.survival.broker import Subscriber

ROOT = Path(__file__).resolve().parents[3]
FRAME = Frame(Trigger("run", 7, 0, ""), None)
STATE = LineState("degraded", "arm speaks", 'a "strange"\\name\n', "2026-01-01T00:00:00.000Z")
COUNTERS: dict[str, object] = {"unacknowledged": 3, "recorder_dropped": 1, "damaged_outbox": "", "novelty": 4}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def sink(port: int) -> Iterator[MetricsSink]:
    opened = MetricsSink(MetricsSettings(f"{LOOPBACK}:{port}"), lambda: COUNTERS, lambda: STATE)
    yield opened
    opened.close()


def read(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text: str = answer.read().decode()
    return text


def parse(text: str) -> Samples:
    """By name and labels; as an independent parser reads it."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    assert len(found) == sum(bool(line) and not line.startswith("#") for line in text.splitlines())
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples["beltsight_line_" + name, tuple(sorted(labels.items()))]


@pytest.mark.usefixtures("sink")
def test_before_the_first_part(port: int) -> None:
    samples = parse(read(port))
    for decision in ("OK", "REJECT", "UNKNOWN"):
        assert value(samples, "parts_total", decision=decision) == 0
    assert value(samples, "latency_seconds_count") == 0
    assert time.time() - value(samples, "start_time_seconds") < 60
    assert value(samples, "resident_bytes") > 1e6


def test_parts_by_decision_and_what_the_latest_says(sink: MetricsSink, port: int) -> None:
    for decision, missed in (("OK", False), ("OK", False), ("REJECT", False), ("UNKNOWN", True)):
        sink.publish(FRAME, replace(VERDICT, decision=decision, missed_deadline=missed), None)  # type: ignore[arg-type]
    sink.publish(FRAME, replace(VERDICT, decision="OK", engine="fpga", degraded=True, threshold=1.5), None)
    samples = parse(read(port))
    assert value(samples, "parts_total", decision="OK") == 3
    assert value(samples, "parts_total", decision="UNKNOWN") == 1
    assert value(samples, "missed_deadlines_total") == 1
    assert value(samples, "engine", engine="fpga") == 1
    assert value(samples, "engine_degraded") == 1
    assert value(samples, "threshold") == 1.5
    assert value(samples, "reading", sensor="die_c") == 51.5


def test_times_fall_into_their_buckets(sink: MetricsSink, port: int) -> None:
    for latency_ms in (0.4, 5.0, 5.1, 999.0, 5000.0):
        sink.publish(FRAME, replace(VERDICT, latency_ms=latency_ms, stages_ms={"infer": latency_ms / 2}), None)
    samples = parse(read(port))
    buckets = {bound: value(samples, "latency_seconds_bucket", le=bound) for bound in ("0.0005", "0.005", "0.01")}
    assert buckets == {"0.0005": 1, "0.005": 2, "0.01": 3}  # a bound belongs to its bucket
    assert value(samples, "latency_seconds_bucket", le="1.0") == 4
    assert value(samples, "latency_seconds_bucket", le="+Inf") == value(samples, "latency_seconds_count") == 5
    assert value(samples, "latency_seconds_sum") == pytest.approx(6.0095)
    assert value(samples, "stage_seconds_sum", stage="infer") == pytest.approx(6.0095 / 2)


@pytest.mark.usefixtures("sink")
def test_state_model_and_counters(port: int) -> None:
    samples = parse(read(port))
    assert [value(samples, "state", state=name) for name in ("running", "degraded", "stopped")] == [0, 1, 0]
    assert value(samples, "model_info", model=STATE.model_id) == 1  # with all that has to be escaped
    assert value(samples, "outbox_waiting") == 3
    assert value(samples, "recorder_dropped_total") == 1
    assert not [name for name, _ in samples if "novelty" in name or "damaged" in name]


@pytest.mark.usefixtures("sink")
def test_every_series_is_there_before_it_counts(port: int) -> None:
    """One that is born at 1 has no increase."""
    samples = parse(read(port))
    for stage in ("wait", "decode", "preprocess", "infer", "decide"):
        assert value(samples, "stage_seconds_count", stage=stage) == 0
    for decision in ("OK", "REJECT", "UNKNOWN"):
        assert value(samples, "parts_total", decision=decision) == 0


@pytest.mark.usefixtures("sink")
def test_nothing_else_is_told(port: int) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        read(port, "/etc/passwd")


@pytest.mark.usefixtures("sink")
def test_a_caller_that_says_nothing_does_not_keep_others_out(port: int) -> None:
    with socket.create_connection((LOOPBACK, port)):
        assert parse(read(port))


def test_a_part_costs_microseconds(sink: MetricsSink) -> None:
    """Usually 10: the median, as the machine may have other work."""
    spent_us = []
    for _ in range(500):
        started_ns = time.perf_counter_ns()
        sink.publish(FRAME, VERDICT, None)
        spent_us.append((time.perf_counter_ns() - started_ns) / 1e3)
    assert np.median(spent_us) < 200


@pytest.mark.usefixtures("sink")
def test_a_port_that_is_taken_says_so(port: int) -> None:
    with pytest.raises(InputError, match=r"\[metrics\] listen .* choose another port"):
        MetricsSink(MetricsSettings(f"{LOOPBACK}:{port}"), dict, lambda: STATE)


@pytest.mark.parametrize("listen", ["9108", ":9108", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:x", "127.0.0.1:70000"])
def test_addresses_that_are_none(listen: str) -> None:
    with pytest.raises(FieldError, match="must be an address and a port"):
        MetricsSettings(listen)


def test_other_machines_only_where_that_is_wanted() -> None:
    with pytest.raises(FieldError, match="can be reached by others"):
        MetricsSettings("0.0.0.0:9108")
    assert MetricsSettings("0.0.0.0:9108", anywhere=True).listen


def test_the_chips_temperature(tmp_path: Path) -> None:
    """Zynq's XADC: 2650 counts at 12 bits are 60.7 °C (UG480, equation 2-7)."""
    assert read_die_celsius(tmp_path) is None
    (tmp_path / "iio:device0").mkdir()  # a light sensor
    (tmp_path / "iio:device1").mkdir()
    for part, text in (("raw", "2713"), ("offset", "-2219"), ("scale", "123.040771484")):
        (tmp_path / "iio:device1" / f"in_temp0_{part}").write_text(text + "\n")
    assert read_die_celsius(tmp_path) == pytest.approx(2713 * 503.975 / 4096 - 273.15, abs=0.2)


# ---- the whole line


def test_a_line_that_runs(tmp_path: Path) -> None:
    """Every number of the health report that COUNTED does not know is counted here anyway; the log is JSON."""
    write_trivial_package(tmp_path / "models" / "trivial")
    station, metrics_port = trivial_station(tmp_path, free_port(), record=True), free_port()
    more = f'\n[metrics]\nlisten = "{LOOPBACK}:{metrics_port}"\n[log]\nformat = "json"\n'
    with start_broker(tmp_path, station.mqtt_port), start_board(station, more):
        health = Subscriber(station.mqtt_port, "beltsight/sim/line1/health", "health", qos=0)
        command = [sys.executable, str(ROOT / "sim" / "conveyor.py"), "--models", str(station.models_dir)]
        command += ["--model", "trivial", "--connect", f"tcp://{LOOPBACK}:{station.belt_port}", "--parts", "12"]
        command += ["--broker", f"{LOOPBACK}:{station.mqtt_port}", "--report", str(tmp_path / "report")]
        done = subprocess.run(
            [*command, "--as-fast-as-possible"], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        samples, report = parse(read(metrics_port)), json.loads(health.next().payload)
        while report.get("parts", 0) < 12:
            report = json.loads(health.next().payload)
        health.close()
    said = json.loads((tmp_path / "report").read_text())
    assert value(samples, "parts_total", decision="OK") == said["ok"] == report.get("ok", 0)
    assert value(samples, "parts_total", decision="REJECT") == said["reject"]
    assert value(samples, "latency_seconds_count") == 12
    assert value(samples, "stage_seconds_count", stage="infer") == 12
    assert value(samples, "engine", engine="arm-onnxruntime") == 1
    assert value(samples, "state", state="running") == 1
    numbers = {key for key, number in report.items() if isinstance(number, (int, float))}
    assert numbers - set(COUNTED) <= {"parts", "ok", "reject", "missed_deadlines", "parts_per_s", "held_s", "rss_mb"}
    events = [json.loads(line) for line in (tmp_path / "board.log").read_text().splitlines()]
    assert {"line line1 runs, model trivial, engine arm-onnxruntime", "running"} <= {one["event"] for one in events}
    assert all({"time", "level", "event"} <= set(one) for one in events)


def test_a_refusal_is_json_too(tmp_path: Path) -> None:
    (tmp_path / "line.toml").write_text(f'model = "gone"\nmodels_dir = "{tmp_path}"\n[log]\nformat = "json"\n')
    command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(tmp_path / "line.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert json.loads(done.stderr)["level"] == "ERROR"
    assert json.loads(done.stderr)["event"].startswith("no model at ")


# ---- Grafana


def expressions(dashboard: dict[str, Any]) -> list[str]:
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries = [item["query"]["query"] for item in dashboard["templating"]["list"] if item["type"] == "query"]
    return [target["expr"] for target in targets] + queries


def test_every_query_of_the_dashboard_asks_for_what_board_or_server_tell(sink: MetricsSink, port: int) -> None:
    sink.publish(FRAME, VERDICT, None)
    told = {name for name, _ in parse(read(port))}
    told |= {f"beltsight_line_{name}" for name, _, _ in COUNTED.values()} | {"beltsight_line_die_celsius"}
    server = Metrics()
    for counter in (server.replies, server.lost, server.swaps, server.refused):
        counter.labels("for example")
    assert isinstance(server.registry, CollectorRegistry)
    exposed = generate_latest(server.registry).decode()
    told |= {sample.name for family in text_string_to_metric_families(exposed) for sample in family.samples}
    dashboard = json.loads((ROOT / "host" / "grafana" / "beltsight.json").read_text())
    asked = {name for text in expressions(dashboard) for name in re.findall(r"beltsight_\w+", text)}
    assert len(asked) > 25
    assert asked <= told
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
