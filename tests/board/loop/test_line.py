"""The line with its real parts: each frame gets one verdict, and trouble of any kind is never OK."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from board.alarms.challenge import ChallengeSettings
from board.config import LineConfig
from board.engines.chain import open_engine
from board.engines.fpga import Logic
from board.engines.settings import EngineName, EngineSettings
from board.gate.gate import open_gate
from board.gate.settings import GateSettings
from board.gate.timer import LineTimer
from board.loop.line import Line
from board.loop.panel import Panel
from board.overlay.simulation.timer import SimulatedTimer
from board.seams import EndOfStream, Engine, ResultSink
from board.sinks.capture import CaptureSink
from board.sinks.mqtt import MqttSettings, MqttSink
from board.sinks.recorder import RecorderSettings
from protocol.broker import BrokerSettings
from protocol.errors import EngineError, SinkError
from protocol.manifest import Package
from protocol.messages import Frame, Trigger, Verdict, clock_id
from tests.examples import only_model

WITHIN_S = 10.0
CONFIG = LineConfig("trivial", belt_speed_mm_s=100)  # 2.6 s from the light barrier to the gate


def grey(level: int, px: int = 256) -> NDArray[np.uint8]:
    return np.full((px, px, 3), level, np.uint8)


class FrameList:
    """A source that yields given frames, triggered `age_ms` before they are read, and ends."""

    def __init__(self, frames: Iterable[NDArray[np.uint8] | str], age_ms: float = 0) -> None:
        self._frames = iter(enumerate(frames))
        self._age_ns = int(age_ms * 1e6)

    def read(self, timeout_s: float) -> Frame:  # noqa: ARG002 - the seam of all sources
        for part_id, frame in self._frames:
            trigger = Trigger("run", part_id, time.monotonic_ns() - self._age_ns, clock_id())
            if isinstance(frame, str):
                return Frame(trigger, None, frame)
            return Frame(trigger, frame, readings={"die_c": 40.0})
        raise EndOfStream

    def close(self) -> None:
        pass


@dataclass
class Collector:
    """A sink that keeps verdicts; it refuses while `refusals` last."""

    refusals: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    maps: list[NDArray[np.int8] | None] = field(default_factory=list)

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:
        assert frame.trigger.part_id == verdict.part_id
        if self.refusals > 0:
            self.refusals -= 1
            raise SinkError("no room")
        self.verdicts.append(verdict)
        self.maps.append(anomaly)

    def close(self) -> None:
        pass


class BrittleEngine:
    """A real engine that fails, or dawdles, for bright pictures."""

    def __init__(self, engine: Engine, dawdle_s: float | None) -> None:
        self.name = engine.name
        self._engine, self._dawdle_s = engine, dawdle_s

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        if image.min() > 200:
            if self._dawdle_s is None:
                raise EngineError("overheated")
            time.sleep(self._dawdle_s)
        return self._engine.infer(image)

    def close(self) -> None:
        self._engine.close()


class Gaps(FrameList):
    """Between any two parts nothing comes for a while."""

    def __init__(self, frames: Iterable[NDArray[np.uint8] | str]) -> None:
        super().__init__(frames)
        self._is_gap = False

    def read(self, timeout_s: float) -> Frame | None:  # type: ignore[override]
        self._is_gap = not self._is_gap
        return None if self._is_gap else super().read(timeout_s)


class BlindEngine:
    """A real engine whose maps are all low for a while."""

    def __init__(self, engine: Engine, blind: range) -> None:
        self.name, self._engine, self._blind, self._calls = engine.name, engine, blind, 0

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        self._calls += 1
        anomaly = self._engine.infer(image)
        return np.full_like(anomaly, -128) if self._calls in self._blind else anomaly

    def close(self) -> None:
        self._engine.close()


RunLine = Callable[..., list[Verdict]]


@pytest.fixture
def run_line(tmp_path: Path, port: int, trivial_package: Package) -> RunLine:
    """Judges the frames to their end and returns the verdicts; the outbox holds them too, for there is no broker."""

    def run(
        source: FrameList,
        *,
        config: LineConfig = CONFIG,
        wrap: Callable[[Engine], Engine] = lambda engine: engine,
        sink: ResultSink | None = None,
        stopping: Callable[[], bool] = lambda: False,
        panel: Panel | None = None,
    ) -> list[Verdict]:
        settings = EngineSettings(retry_s=0.01)
        collector = Collector()

        def open_one(name: EngineName) -> Engine:
            return wrap(open_engine(name, trivial_package, settings))

        mqtt_settings = MqttSettings(tmp_path / "outbox.sqlite", broker_at_start="optional")
        broker = BrokerSettings(port=port)
        with (
            contextlib.closing(
                open_gate(GateSettings(dry_log=tmp_path / "gate.jsonl"), config.belt_speed_mm_s)
            ) as gate,
            contextlib.closing(MqttSink(mqtt_settings, broker, config.site, config.line, "trivial")) as mqtt,
            contextlib.closing(only_model(trivial_package, settings, open_one, config.threshold)) as models,
        ):
            line = Line(
                config=config,
                models=models,
                source=source,
                gate=gate,
                mqtt=mqtt,
                capture=CaptureSink(RecorderSettings(folder=tmp_path)),
                others=[sink, collector] if sink else [collector],
                panel=panel,
            )
            line.run(stopping)
            assert mqtt.waiting == len(collector.verdicts)
        return collector.verdicts

    return run


def decisions(verdicts: list[Verdict]) -> list[str]:
    assert [verdict.part_id for verdict in verdicts] == list(range(len(verdicts)))
    assert len({verdict.event_id for verdict in verdicts}) == len(verdicts)
    return [verdict.decision for verdict in verdicts]


def test_the_threshold_divides_good_from_bad(run_line: RunLine) -> None:
    """Grey 160 scores exactly the threshold, 0.25, and is rejected."""
    verdicts = run_line(FrameList([grey(0), grey(159), grey(160), grey(255)]))
    assert decisions(verdicts) == ["OK", "OK", "REJECT", "REJECT"]
    assert [verdict.score for verdict in verdicts] == [-1.0, 31 / 128, 0.25, 127 / 128]
    assert {verdict.threshold for verdict in verdicts} == {0.25}


def test_a_threshold_of_the_configuration_comes_first(run_line: RunLine) -> None:
    config = replace(CONFIG, threshold=0.9)
    verdicts = run_line(FrameList([grey(160), grey(255)]), config=config)
    assert decisions(verdicts) == ["OK", "REJECT"]
    assert verdicts[0].threshold == 0.9


def test_a_model_that_no_longer_finds_known_bad_parts_passes_nothing_until_it_does(run_line: RunLine) -> None:
    """Golden vector and two known-bad parts at the start; blind from the second part on, for eight pictures."""
    config = replace(CONFIG, challenge=ChallengeSettings(every=4))
    verdicts = run_line(Gaps([grey(0)] * 16), config=config, wrap=lambda engine: BlindEngine(engine, range(5, 13)))
    assert decisions(verdicts)[:4] == ["OK"] * 4, "three were judged blindly, the next known-bad part is not yet due"
    unknown = [verdict for verdict in verdicts if verdict.decision == "UNKNOWN"]
    assert [verdict.part_id for verdict in unknown] == list(range(4, 4 + len(unknown)))
    assert unknown[0].reason == (
        "trivial finds fewer than 2 of its 2 known-bad parts, so nothing passes: lower the threshold, or take another "
        "model"
    )
    assert decisions(verdicts)[-1] == "OK"


def test_a_threshold_of_nought_is_a_threshold(run_line: RunLine) -> None:
    assert decisions(run_line(FrameList([grey(127), grey(128)]), config=replace(CONFIG, threshold=0.0))) == [
        "OK",
        "REJECT",
    ]


def test_a_verdict_says_who_judged_what_and_how_long_it_took(run_line: RunLine) -> None:
    (verdict,) = run_line(FrameList([grey(0)], age_ms=50))
    assert (verdict.site, verdict.line, verdict.run, verdict.model_id) == ("plant", "line1", "run", "trivial")
    assert (verdict.engine, verdict.degraded, verdict.missed_deadline, verdict.late) == (
        "arm-onnxruntime",
        False,
        False,
        False,
    )
    assert verdict.readings == {"die_c": 40.0}
    assert set(verdict.stages_ms) == {"wait", "decode", "preprocess", "infer", "decide"}
    assert 50 <= verdict.stages_ms["wait"] <= verdict.latency_ms < 2000
    assert sum(verdict.stages_ms.values()) == pytest.approx(verdict.latency_ms, abs=5)


def test_a_lost_frame_is_unknown_with_its_reason(run_line: RunLine) -> None:
    verdicts = run_line(FrameList([grey(0), "frame lost", grey(0)]))
    assert decisions(verdicts) == ["OK", "UNKNOWN", "OK"]
    assert (verdicts[1].score, verdicts[1].reason, verdicts[1].engine) == (None, "frame lost", "")


def test_a_frame_of_another_size_is_unknown_and_the_line_goes_on(run_line: RunLine) -> None:
    verdicts = run_line(FrameList([grey(0), grey(0, 200), np.zeros((0, 0, 3), np.uint8), grey(0)]))
    assert decisions(verdicts) == ["OK", "UNKNOWN", "UNKNOWN", "OK"]
    assert "frame is 200x200 pixels, the model expects 256x256" in verdicts[1].reason


def test_an_engine_that_fails_is_unknown_and_comes_back(run_line: RunLine) -> None:
    frames: list[NDArray[np.uint8] | str] = [grey(0), grey(255), grey(0), "frame lost", grey(0)]
    verdicts = run_line(FrameList(frames), wrap=lambda engine: BrittleEngine(engine, None))
    assert verdicts[0].decision == "OK"
    assert (verdicts[1].decision, verdicts[1].degraded, verdicts[1].score) == ("UNKNOWN", True, None)
    assert verdicts[1].reason == "every engine failed: arm: overheated"
    assert all(verdict.decision != "OK" or verdict.engine for verdict in verdicts)
    assert len(verdicts) == len(frames)


def test_an_engine_that_takes_too_long_misses_the_gate_and_is_unknown(run_line: RunLine) -> None:
    config = replace(CONFIG, belt_speed_mm_s=1000.0)  # 255 ms to the gate
    verdicts = run_line(
        FrameList([grey(0), grey(255), grey(0)]), config=config, wrap=lambda engine: BrittleEngine(engine, 0.3)
    )
    assert decisions(verdicts) == ["OK", "UNKNOWN", "OK"]
    assert [verdict.missed_deadline for verdict in verdicts] == [False, True, False]
    assert "ms too late for the gate" in verdicts[1].reason


@pytest.mark.parametrize("frame", [grey(0), grey(255), "frame lost"])
def test_a_part_that_is_read_too_late_is_unknown(run_line: RunLine, frame: NDArray[np.uint8] | str) -> None:
    (verdict,) = run_line(FrameList([frame], age_ms=5000))
    assert (verdict.decision, verdict.missed_deadline) == ("UNKNOWN", True)
    assert verdict.reason


def test_only_good_parts_open_the_gate(run_line: RunLine, tmp_path: Path) -> None:
    config = replace(CONFIG, belt_speed_mm_s=10_000.0)  # 21 ms to the gate
    source = FrameList([grey(255), "frame lost", grey(0, 100)] * 3)
    run_line(source, config=config)
    assert '"open": true' not in (tmp_path / "gate.jsonl").read_text()


def test_a_sink_that_refuses_holds_the_line_and_misses_nothing(run_line: RunLine) -> None:
    sink = Collector(refusals=3)
    verdicts = run_line(FrameList([grey(0)] * 4), sink=sink)
    assert decisions(verdicts) == ["OK"] * 4
    assert sink.verdicts == verdicts, "in order, and each once"
    assert sink.refusals == 0


def test_a_line_that_is_held_can_be_stopped(run_line: RunLine) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    started_s = time.monotonic()
    run_line(FrameList([grey(0)] * 4), sink=Collector(refusals=10**9), stopping=stop.is_set)
    timer.join()
    assert 0.2 <= time.monotonic() - started_s < WITHIN_S


def test_the_map_goes_to_the_sinks(run_line: RunLine) -> None:
    sink = Collector()
    run_line(FrameList([grey(100), "frame lost"]), sink=sink)
    anomaly, none = sink.maps
    assert anomaly is not None
    assert anomaly[1:, 1:].tolist() == [[-28] * 7] * 7
    assert none is None


def test_a_thousand_parts_are_a_thousand_verdicts(run_line: RunLine) -> None:
    levels = np.random.default_rng(5).integers(0, 256, 1000)
    frames = [grey(int(level)) for level in range(256)]
    verdicts = run_line(FrameList(frames[level] for level in levels))
    assert decisions(verdicts) == ["REJECT" if level >= 160 else "OK" for level in levels]


def test_a_line_that_rejects_nearly_everything_says_so(run_line: RunLine, capsys: pytest.CaptureFixture[str]) -> None:
    run_line(FrameList([grey(170 + number) for number in range(60)]))
    assert "alarm: 50 of the last 50 parts rejected: look at lamp, lens and parts" in capsys.readouterr().err


def test_buttons_pause_and_resume_and_the_leds_say_so(run_line: RunLine, timer_library: Path) -> None:
    fabric = SimulatedTimer(timer_library)
    leds = []

    def press(buttons: int) -> None:
        for pressed in (buttons, 0):
            fabric.set_pins(buttons=pressed)
            time.sleep(0.2)
        leds.append(fabric.leds())

    def frames() -> Iterator[NDArray[np.uint8] | str]:
        """A button is pressed while a part comes: it counts from the next part on."""
        yield grey(0)
        for buttons in (0, 1, 0, 2, 0):
            press(buttons)
            yield grey(0)

    with contextlib.closing(Panel(LineTimer(Logic(lambda: fabric)))) as panel:
        verdicts = run_line(FrameList(frames()), panel=panel)
    assert [verdict.decision for verdict in verdicts] == ["OK", "OK", "OK", "UNKNOWN", "UNKNOWN", "OK"]
    assert verdicts[3].reason == "paused by button"
    assert leds[0] in (1, 2)  # running, then degraded: no broker answers in this test
    assert leds[1:] == [2, 4, 4, 2]
