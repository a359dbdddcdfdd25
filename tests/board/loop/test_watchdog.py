"""What systemd would hear, on a real socket: a hung loop falls silent, and a degraded state shows within a second."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from board.config import LineConfig
from board.engines.chain import open_engine
from board.engines.settings import EngineName, EngineSettings
from board.gate.gate import open_gate
from board.gate.settings import GateSettings
from board.loop.line import Line
from board.loop.watchdog import Watchdog, beat_interval_s
from board.seams import Engine
from board.sinks.capture import CaptureSink
from board.sinks.mqtt import MqttSettings, MqttSink
from board.sinks.recorder import RecorderSettings
from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.errors import EngineError
from protocol.manifest import Package
from protocol.messages import Frame, Trigger, clock_id
from sim.station import LOOPBACK, ROOT, board_config
from tests.examples import only_model, trivial_station

LIMIT_S = 1.2
SILENCE_S = 2 * LIMIT_S
WITHIN_S = 30.0


class Systemd:
    """Listens where the station reports."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def environment(self, limit_s: float = LIMIT_S) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(int(limit_s * 1e6))}

    def next(self, timeout_s: float = WITHIN_S) -> str:
        """The next message; empty when none came in time."""
        self._socket.settimeout(timeout_s)
        with contextlib.suppress(TimeoutError, BlockingIOError):
            return self._socket.recv(4096).decode()
        return ""

    def drain(self) -> list[str]:
        messages = []
        while message := self.next(0.0):
            messages.append(message)
        return messages

    def wait_for(self, wanted: str) -> None:
        deadline_s = time.monotonic() + WITHIN_S
        while self.next() != wanted:
            assert time.monotonic() < deadline_s, f"no {wanted}"

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@beltsight-{os.getpid()}-{time.monotonic_ns()}"
    with contextlib.closing(Systemd(address)) as listening:
        yield listening


def test_messages_are_those_of_sd_notify(systemd: Systemd) -> None:
    with contextlib.closing(Watchdog(systemd.environment())) as watchdog:
        watchdog.ready()
        watchdog.beat()
        watchdog.show("degraded: two\nlines")
        watchdog.stopping()
    assert systemd.drain() == ["READY=1", "WATCHDOG=1", "STATUS=degraded: two lines", "STOPPING=1"]


def test_a_fast_loop_sends_four_beats_in_the_limit(systemd: Systemd) -> None:
    with contextlib.closing(Watchdog(systemd.environment(0.4))) as watchdog:
        end_s = time.monotonic() + 0.4
        while time.monotonic() < end_s:
            watchdog.beat()
    assert 2 <= len(systemd.drain()) <= 5


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "10000000"}, 2.5),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 2.5),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_interval_is_a_quarter_of_what_systemd_waits(environment: dict[str, str], interval_s: float | None) -> None:
    assert beat_interval_s(environment) == interval_s


def test_without_systemd_and_after_its_end_nothing_happens(systemd: Systemd) -> None:
    quiet = Watchdog({})
    quiet.ready()
    quiet.beat()
    quiet.close()
    with contextlib.closing(Watchdog(systemd.environment())) as watchdog:
        systemd.close()
        watchdog.beat()


# ---- the line


class SteadySource:
    """A part every 50 ms; it hangs while `hold` is set, and counts the frames it gave."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.level = 0
        self.given = 0

    def read(self, timeout_s: float) -> Frame | None:  # noqa: ARG002 - the seam of all sources
        time.sleep(0.05)
        self.go_on.wait()
        self.given += 1
        trigger = Trigger("run", self.given - 1, time.monotonic_ns(), clock_id())
        return Frame(trigger, np.full((256, 256, 3), self.level, np.uint8))

    def close(self) -> None:
        self.go_on.set()


class BreakableEngine:
    """A real engine that breaks at a bright picture, and does not come back."""

    def __init__(self, engine: Engine) -> None:
        self.name, self._engine = engine.name, engine

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        if image.min() > 200:
            raise EngineError("overheated")
        return self._engine.infer(image)

    def close(self) -> None:
        self._engine.close()


@contextlib.contextmanager
def line_at_work(
    folder: Path, package: Package, broker: BrokerSettings, source: SteadySource, watchdog: Watchdog
) -> Iterator[None]:
    settings = EngineSettings(retry_s=60)
    config = LineConfig("trivial", site=folder.name, belt_speed_mm_s=100)

    def open_one(name: EngineName) -> Engine:
        return BreakableEngine(open_engine(name, package, settings))

    stop = threading.Event()
    mqtt_settings = MqttSettings(folder / "outbox.sqlite", broker_at_start="optional")
    with (
        contextlib.closing(open_gate(GateSettings(), config.belt_speed_mm_s)) as gate,
        contextlib.closing(MqttSink(mqtt_settings, broker, config.site, config.line, "trivial")) as mqtt,
        contextlib.closing(only_model(package, settings, open_one)) as models,
    ):
        line = Line(
            config=config,
            models=models,
            source=source,
            gate=gate,
            mqtt=mqtt,
            capture=CaptureSink(RecorderSettings(folder=folder)),
            others=[],
            counters=lambda: {"refused_messages": 3},
            watchdog=watchdog,
        )
        thread = threading.Thread(target=line.run, args=(stop.is_set,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            source.close()
            thread.join(WITHIN_S)


def test_a_loop_that_hangs_sends_no_beat_until_it_goes_on(
    tmp_path: Path, port: int, trivial_package: Package, systemd: Systemd
) -> None:
    """Only the loop's thread hangs: a heartbeat of any other thread would go on."""
    source = SteadySource()
    absent = BrokerSettings(LOOPBACK, port)
    with (
        contextlib.closing(Watchdog(systemd.environment())) as watchdog,
        line_at_work(tmp_path, trivial_package, absent, source, watchdog),
    ):
        assert systemd.next() == "READY=1"
        systemd.wait_for("WATCHDOG=1")
        systemd.wait_for("WATCHDOG=1")
        source.go_on.clear()
        systemd.wait_for("STATUS=stopped: line silent for more than 0.7 s")  # by the watch
        assert systemd.next(SILENCE_S) == ""
        source.go_on.set()
        systemd.wait_for("WATCHDOG=1")
    assert "STOPPING=1" in systemd.drain()


def test_a_degraded_state_is_seen_within_a_second(
    tmp_path: Path, broker: BrokerSettings, trivial_package: Package, systemd: Systemd
) -> None:
    arrivals: queue.SimpleQueue[tuple[float, str, dict[str, object]]] = queue.SimpleQueue()

    def subscribe(client: object) -> None:
        client.on_message = lambda _client, _data, message: arrivals.put(  # type: ignore[attr-defined]
            (time.monotonic(), message.topic.rpartition("/")[2], json.loads(message.payload))
        )

    def next_of(leaf: str, key: str, value: object) -> float:
        while True:
            arrived_s, topic, content = arrivals.get(timeout=WITHIN_S)
            if topic == leaf and content.get(key) == value:
                return arrived_s

    client, _ = connect_broker(broker, f"watch-{tmp_path.name}", prepare=subscribe)
    for leaf in ("state", "health"):
        client.subscribe(f"beltsight/{tmp_path.name}/line1/{leaf}", qos=1)
    source = SteadySource()
    try:
        with (
            contextlib.closing(Watchdog(systemd.environment())) as watchdog,
            line_at_work(tmp_path, trivial_package, broker, source, watchdog),
        ):
            next_of("state", "state", "running")
            next_of("health", "refused_messages", 3)
            systemd.drain()
            time.sleep(0.1)  # well into the second between two reports
            source.level = 255
            broken_s = time.monotonic()
            assert next_of("state", "state", "degraded") - broken_s < 1.0
            assert any("overheated" in message for message in systemd.drain())
    finally:
        close_broker(client)


# ---- the process


def test_the_stations_process_beats_while_it_waits_and_is_silent_while_it_is_stopped(
    tmp_path: Path, port: int, trivial_package: Package, systemd: Systemd
) -> None:
    models = trivial_package.path("model.onnx").parent.parent
    settings = trivial_station(tmp_path, port, models_dir=models, gate_distance_mm=300.0)
    text = board_config(settings).replace("[mqtt]", '[mqtt]\nbroker_at_start = "optional"')
    (tmp_path / "line.toml").write_text(text)
    command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(tmp_path / "line.toml")]
    with subprocess.Popen(command, env={**os.environ, **systemd.environment()}, stderr=subprocess.PIPE) as station:
        try:
            assert systemd.next() == "READY=1", "and not before everything is open"
            for _ in range(3):
                systemd.wait_for("WATCHDOG=1")
            station.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            systemd.drain()
            assert systemd.next(SILENCE_S) == ""
            station.send_signal(signal.SIGCONT)
            systemd.wait_for("WATCHDOG=1")
        finally:
            station.send_signal(signal.SIGCONT)
            station.terminate()
        systemd.wait_for("STOPPING=1")
        assert station.wait(WITHIN_S) == 0
