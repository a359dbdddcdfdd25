"""Whatever thread ends or hangs: within a second the gate is closed, the state names it, and systemd hears no beat."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from board.config import LineConfig
from board.engines.chain import open_engine
from board.engines.settings import EngineName, EngineSettings
from board.loop.line import Line
from board.seams import Engine, FrameSource, ResultSink
from board.sinks.capture import CaptureSink
from board.sinks.mqtt import MqttSettings, MqttSink
from board.sinks.recorder import RecorderSettings
from board.sources.camera import CameraFeed, CameraSettings, CameraSource
from protocol.broker import BrokerSettings
from protocol.manifest import Package
from protocol.messages import Decision, Frame, Trigger, Verdict, clock_id
from protocol.reports import LineState
from protocol.supervision import Supervised, Supervisor
from sim.station import board_config
from tests.examples import only_model, trivial_station

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 1.0
AT_MOST_S = 10.0
CONFIG = LineConfig("trivial", belt_speed_mm_s=100)


@dataclass
class HeldGate:
    """Says whether it was told to stay closed."""

    is_held: bool = False
    distrust: str = ""

    def complaint(self) -> None:
        return None

    def deadline_ns(self, trigger: Trigger) -> int:
        return trigger.t_ns + 2_600_000_000

    def apply(self, trigger: Trigger, decision: Decision) -> None:
        pass

    def hold(self, is_held: bool) -> None:
        self.is_held = is_held

    def close(self) -> None:
        pass


@dataclass
class Parts:
    """A source with a part every 20 ms, which hangs as long as it is told."""

    go_on: threading.Event = field(default_factory=threading.Event)
    given: int = 0

    def read(self, timeout_s: float) -> Frame | None:  # noqa: ARG002 - the seam of all sources
        time.sleep(0.02)
        self.go_on.wait(AT_MOST_S)
        self.given += 1
        trigger = Trigger("run", self.given, time.monotonic_ns(), clock_id())
        return Frame(trigger, np.zeros((256, 256, 3), np.uint8))

    def close(self) -> None:
        self.go_on.set()


@dataclass
class Verdicts:
    all: list[Verdict] = field(default_factory=list)

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:  # noqa: ARG002
        self.all.append(verdict)

    def close(self) -> None:
        pass


class HangingEngine:
    def __init__(self, engine: Engine, go_on: threading.Event) -> None:
        self.name, self._engine, self._go_on = engine.name, engine, go_on

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        self._go_on.wait(AT_MOST_S)
        return self._engine.infer(image)

    def close(self) -> None:
        self._engine.close()


@dataclass
class AtWork:
    gate: HeldGate
    state: Callable[[], LineState]
    verdicts: list[Verdict]

    def wait_for(self, state: str, reason: str) -> float:
        """The seconds until the line says so."""
        since_s = time.monotonic()
        while not (self.state().state == state and re.search(reason, self.state().reason)):
            assert time.monotonic() < since_s + AT_MOST_S, self.state()
            time.sleep(0.01)
        return time.monotonic() - since_s


Start = Callable[..., contextlib.AbstractContextManager[AtWork]]


@pytest.fixture
def at_work(tmp_path: Path, broker: BrokerSettings, trivial_package: Package) -> Start:
    @contextlib.contextmanager
    def start(
        supervisor: Supervisor,
        source: FrameSource,
        *more: ResultSink,
        wrap: Callable[[Engine], Engine] = lambda engine: engine,
    ) -> Iterator[AtWork]:
        settings, stop = EngineSettings(), threading.Event()

        def open_one(name: EngineName) -> Engine:
            return wrap(open_engine(name, trivial_package, settings))

        mqtt_settings = MqttSettings(tmp_path / "outbox.sqlite")
        gate, verdicts = HeldGate(), Verdicts()
        with (
            contextlib.closing(only_model(trivial_package, settings, open_one)) as models,
            contextlib.closing(
                MqttSink(mqtt_settings, broker, tmp_path.name, "line1", "trivial", supervisor=supervisor)
            ) as mqtt,
        ):
            mqtt.require_broker()
            line = Line(
                config=CONFIG,
                models=models,
                source=source,
                gate=gate,
                mqtt=mqtt,
                capture=CaptureSink(RecorderSettings(folder=tmp_path), supervisor),
                others=[verdicts, *more],
                supervisor=supervisor,
            )
            loop = threading.Thread(target=line.run, args=(stop.is_set,))
            loop.start()
            try:
                yield AtWork(gate, lambda: mqtt.state, verdicts.all)
            finally:
                stop.set()
                source.close()
                loop.join(AT_MOST_S)

    return start


def running_parts() -> Parts:
    parts = Parts()
    parts.go_on.set()
    return parts


def fail(_: Supervised) -> None:
    raise cv2.error("what nobody thought of")


def test_a_thread_that_is_needed_ends_and_no_part_is_ok_any_more(at_work: Start) -> None:
    supervisor = Supervisor()
    with at_work(supervisor, running_parts()) as line:
        line.wait_for("running", "^$")
        assert not line.gate.is_held
        supervisor.start("gate", fail, silent_s=1.0)
        assert line.wait_for("stopped", r"^gate ended: .*what nobody thought of") < WITHIN_S
        time.sleep(0.15)  # a turn of the watch
        assert line.gate.is_held
        judged = len(line.verdicts)
        while len(line.verdicts) < judged + 3:
            time.sleep(0.01)
    assert {verdict.decision for verdict in line.verdicts[judged + 1 : judged + 3]} == {"UNKNOWN"}
    assert "gate ended" in line.verdicts[judged + 1].reason


class BrokenCamera:
    """Of the kind that nobody expected."""

    shots = 0

    def shoot(self) -> tuple[NDArray[np.uint8], int] | None:
        time.sleep(0.02)
        self.shots += 1
        if self.shots > 10:
            raise KeyError("an error")
        return np.full((256, 256, 3), self.shots, np.uint8), time.monotonic_ns()

    def close(self) -> None:
        pass


def test_the_cameras_thread_ends_by_an_error_that_it_does_not_know(at_work: Start) -> None:
    supervisor = Supervisor()
    source = CameraSource(CameraFeed(BrokenCamera, CameraSettings(size_px=(256, 256)), supervisor))
    with at_work(supervisor, source) as line:
        line.wait_for("running", "^$")
        assert line.wait_for("stopped", r"^camera ended: .*error") < WITHIN_S


def test_a_thread_that_judging_does_not_need_degrades(at_work: Start) -> None:
    supervisor = Supervisor()
    with at_work(supervisor, running_parts()) as line:
        line.wait_for("running", "^$")
        supervisor.start("recorder", fail, silent_s=1.0, is_needed=False)
        assert line.wait_for("degraded", r"^recorder ended: ") < WITHIN_S
        assert not line.gate.is_held
    assert line.verdicts[-1].decision == "OK"


@pytest.mark.parametrize("where", ["source", "engine"])
def test_the_loop_itself_hangs(at_work: Start, where: str) -> None:
    """The state comes from the watch; when the loop goes on, so does the line."""
    supervisor, source, engine_goes_on = Supervisor(), running_parts(), threading.Event()
    engine_goes_on.set()
    hanging = source.go_on if where == "source" else engine_goes_on
    with at_work(supervisor, source, wrap=lambda engine: HangingEngine(engine, engine_goes_on)) as line:
        line.wait_for("running", "^$")
        hanging.clear()
        assert line.wait_for("stopped", "^line silent for more than 0.7 s") < WITHIN_S + 0.2  # of a loaded machine
        assert line.gate.is_held
        hanging.set()
        line.wait_for("running", "^$")
        time.sleep(0.15)
        assert not line.gate.is_held


# ---- the process


@contextlib.contextmanager
def station(folder: Path, package: Package, port: int, **redirected: object) -> Iterator[subprocess.Popen[bytes]]:
    models = package.path("model.onnx").parent.parent
    settings = trivial_station(folder, port, models_dir=models, gate_distance_mm=300.0)
    text = board_config(settings).replace("[mqtt]", '[mqtt]\nbroker_at_start = "optional"')
    (folder / "line.toml").write_text(text)
    command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(folder / "line.toml")]
    with subprocess.Popen(command, cwd=folder, **redirected) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def wait_for_text(path: Path, text: str) -> None:
    until_s = time.monotonic() + 3 * AT_MOST_S
    while not path.is_file() or text not in path.read_text():
        assert time.monotonic() < until_s, path.read_text() if path.is_file() else path
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["HUP", "RTMIN"])
def test_a_signal_that_ends_us_closes_the_gate_first_and_others_change_nothing(
    name: str, tmp_path: Path, port: int, trivial_package: Package
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stderr, station(tmp_path, trivial_package, port, stderr=stderr) as process:
        wait_for_text(log, "line line1 runs")
        for harmless in ("PIPE", "TSTP", "TTOU", "WINCH"):
            process.send_signal(getattr(signal, f"SIG{harmless}"))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] in "SR"
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.wait(AT_MOST_S) == 0
    assert "stopping: signal" in log.read_text()
    assert json.loads((tmp_path / "gate.jsonl").read_text().splitlines()[-1])["open"] is False


OPENING = """
import sys, threading, time
from board.loop.signals import stop_on_signals
stop = threading.Event()
with stop_on_signals(stop) as looks:
    if sys.argv[1] == "looks":
        looks.set()
    print(flush=True)
    stop.wait()
    time.sleep(3.6 if sys.argv[1] == "looks" else 60.0)
"""


@pytest.mark.parametrize(("what", "code"), [("looks", 0), ("compiles", 128 + signal.SIGTERM)])
def test_what_is_opened_for_minutes_is_not_waited_for(what: str, code: int) -> None:
    with subprocess.Popen([sys.executable, "-c", OPENING, what], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.terminate()
        assert process.wait(3 * AT_MOST_S) == code


def full_pipe() -> int:
    """Its writing end. The reading one stays open, and nobody reads."""
    _, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, bytes(65536)):
            pass
    os.set_blocking(writing, True)
    return writing


@pytest.mark.parametrize("where", ["closed", "full", "unread"])
def test_a_log_that_cannot_be_written_stops_nothing(
    where: str, tmp_path: Path, port: int, trivial_package: Package
) -> None:
    redirected: dict[str, object] = {"preexec_fn": lambda: os.close(2)}
    if where != "closed":
        redirected = {"stderr": os.open("/dev/full", os.O_WRONLY) if where == "full" else full_pipe()}
    with station(tmp_path, trivial_package, port, **redirected) as process:
        wait_for_text(tmp_path / "gate.jsonl", '"open": false')
        time.sleep(0.7)
        assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        assert process.wait(AT_MOST_S) == 0
