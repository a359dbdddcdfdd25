"""Lamp and lens age: the warning comes before good parts are rejected; and none comes while nothing ages."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from board.drift.control_chart import ControlChart
from board.drift.picture_statistics import SCORE, measure_picture
from board.drift.watch import DriftSettings, draw_charts
from board.preprocess import as_input, preprocess
from board.score import score_map
from host.export.calibration import calibrate
from host.export.trivial import write_trivial_package
from protocol.drift import decode_drift
from protocol.manifest import (
    MANIFEST,
    MODEL_ONNX,
    Calibration,
    Manifest,
    decode_manifest,
    encode_manifest,
    load_package,
)
from sim.camera import Camera, CameraSettings
from sim.parts import RenderedParts
from sim.station import LOOPBACK, free_port, start_board, start_broker
from tests.examples import trivial_station
from tests.survival.broker import Subscriber

ROOT = Path(__file__).resolve().parents[2]
AGES_FROM, PARTS = 40, 240
SLACK = 0.02  # in the share of false rejects among some hundred parts
Score = Callable[[NDArray[np.uint8]], float]


@dataclass(frozen=True)
class Seen:
    defect: str
    score: float
    statistics: dict[str, float]
    picture: NDArray[np.uint8]


@dataclass(frozen=True)
class Model:
    manifest: Manifest
    score: Score
    calibration: Calibration

    def accepts(self, part: Seen) -> bool:
        return part.score < self.manifest.threshold.value


def look(
    manifest: Manifest, score: Score, settings: CameraSettings, *, seed: int, parts: int, bad: float
) -> list[Seen]:
    belt, camera = RenderedParts("bottle", seed, bad), Camera(settings, seed)
    seen = []
    for number in range(parts):
        part = belt.part(number)
        picture = preprocess(camera.shoot(part).image, manifest.preprocess)
        seen.append(Seen(part.defect, score(picture), measure_picture(picture), picture))
    return seen


@pytest.fixture(scope="module")
def model() -> Model:
    """A shipped one, with the calibration that it was shipped with."""
    package = load_package(ROOT / "models" / "bottle-128")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(package.path(MODEL_ONNX)), options)
    manifest, name = package.manifest, session.get_inputs()[0].name

    def score(picture: NDArray[np.uint8]) -> float:
        anomaly = session.run(None, {name: as_input(picture)})[0].reshape(manifest.map.shape)
        return score_map(anomaly, manifest.map)

    assert manifest.calibration is not None
    return Model(manifest, score, manifest.calibration)


def watch(model: Model, seen: list[Seen]) -> tuple[dict[str, ControlChart], int | None]:
    """The charts at the end, and the number of the part with the first warning."""
    charts, warned = draw_charts(model.calibration, DriftSettings()), None
    for number, part in enumerate(seen):
        if model.accepts(part):
            for name, value in (part.statistics | {SCORE: part.score}).items():
                charts[name].note(value)
        if warned is None and any(chart.is_beyond for chart in charts.values()):
            warned = number
    return charts, warned


def false_rejects(model: Model, seen: list[Seen]) -> float:
    return sum(not model.accepts(part) for part in seen) / len(seen)


@pytest.mark.parametrize(
    ("ageing", "first"), [({"lamp_dims": 2.5}, "brightness"), ({"lens_slips_px": 25.0}, "sharpness")]
)
def test_the_warning_comes_before_good_parts_are_rejected(model: Model, ageing: dict[str, float], first: str) -> None:
    settings = replace(CameraSettings(), ages_from=AGES_FROM, **ageing)  # type: ignore[arg-type]
    seen = look(model.manifest, model.score, settings, seed=2, parts=PARTS, bad=0.0)
    charts, warned = watch(model, seen)
    assert warned is not None
    assert AGES_FROM < warned < AGES_FROM + 90
    assert charts[first].is_beyond
    usual = false_rejects(model, look(model.manifest, model.score, CameraSettings(), seed=2, parts=PARTS, bad=0.0))
    assert false_rejects(model, seen[: warned + 20]) <= usual + SLACK  # nothing has happened yet, nor soon
    assert false_rejects(model, seen[-30:]) > usual + 0.1  # but it would


def test_no_warning_comes_while_nothing_ages(model: Model) -> None:
    """Every fifth part is defective, and some defects are missed: accepted parts are not all good."""
    seen = look(model.manifest, model.score, CameraSettings(), seed=1, parts=300, bad=0.2)
    charts, warned = watch(model, seen)
    assert warned is None
    assert max(abs(chart.sigmas) for chart in charts.values()) < 0.8 * min(chart.limit for chart in charts.values())


def test_the_whole_line_says_so(tmp_path: Path) -> None:
    """Broker, board and belt: a retained message with its sheet, counters in the health report, no other verdicts."""
    calibrate_package(write_trivial_package(tmp_path / "models" / "trivial", threshold=127 / 128))
    station = trivial_station(tmp_path, free_port())
    with start_broker(tmp_path, station.mqtt_port), start_board(station) as board:
        health = Subscriber(station.mqtt_port, "beltsight/sim/line1/health", "health", qos=0)
        command = [sys.executable, str(ROOT / "sim" / "conveyor.py"), "--models", str(station.models_dir)]
        command += ["--product", "bottle", "--model", "trivial", "--connect", f"tcp://{LOOPBACK}:{station.belt_port}"]
        command += ["--broker", f"{LOOPBACK}:{station.mqtt_port}", "--as-fast-as-possible", "--speed", "250"]
        command += ["--parts", "120", "--defect-share", "0", "--lamp-dims", "3", "--report", str(tmp_path / "report")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        board.check()
        later = Subscriber(station.mqtt_port, "beltsight/sim/line1/drift", "later")  # comes when all is over
        report = decode_drift(bytes(later.next().payload))
        later.close()
        latest = last(health)
        health.close()
    assert report.state == "drifting"
    assert report.moved[0].statistic == "brightness"
    assert "clean or renew the lamp" in report.text
    assert (tmp_path / "drift" / report.sheet).stat().st_size > 10_000
    assert latest["drifting"] >= 1
    assert latest["drift_warnings"] >= 1
    assert json.loads((tmp_path / "report").read_text())["ok"] == 120


def last(subscriber: Subscriber) -> dict[str, float]:
    newest = json.loads(subscriber.next().payload)
    while True:
        try:
            newest = json.loads(subscriber.messages.get_nowait().payload)
        except queue.Empty:
            break
    checked: dict[str, float] = newest
    return checked


def calibrate_package(folder: Path) -> None:
    manifest = decode_manifest((folder / MANIFEST).read_bytes())
    good = look(manifest, lambda _: 0.0, CameraSettings(), seed=5, parts=40, bad=0.0)
    scores = np.random.default_rng(1).normal(0.0, 1.0, len(good))
    made = calibrate(np.stack([part.picture for part in good]), scores, 9.0)
    (folder / MANIFEST).write_bytes(encode_manifest(replace(manifest, calibration=made)))
