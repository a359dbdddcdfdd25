"""Examples that several folders of tests build on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from board.engines.chain import EngineChain, OpenEngine
from board.engines.settings import EngineSettings
from board.models.change import ModelChangeSettings, Models
from board.models.inspector import Inspector
from protocol.errors import InputError
from protocol.manifest import Package
from protocol.messages import Verdict
from protocol.supervision import Supervisor
from sim.station import StationSettings, free_port


def grey_frame(level: int, px: int = 256) -> NDArray[np.uint8]:
    """uint8 (px, px, 3) of one level below 255, with noise in its first row: a camera never gives one frame twice."""
    image = np.full((px, px, 3), level, np.uint8)
    image[0] += np.random.default_rng().integers(0, 2, (px, 3), np.uint8)
    return image


def watch_threads(supervisor: Supervisor) -> Iterator[None]:
    """Around a test: fails if one of the supervisor's threads has ended meanwhile by itself."""
    before = {str(trouble) for trouble in supervisor.troubles() if trouble.has_ended}
    yield
    died = [str(trouble) for trouble in supervisor.troubles() if trouble.has_ended]
    new = [trouble for trouble in died if trouble not in before]
    assert not new, "; ".join(new)


VERDICT = Verdict(
    event_id="0f2c",
    site="plant",
    line="line1",
    run="run",
    part_id=7,
    decision="REJECT",
    score=0.5,
    threshold=0.25,
    reason="",
    engine="arm-onnxruntime",
    model_id="trivial",
    degraded=False,
    missed_deadline=False,
    time="2026-01-01T00:00:00.000Z",
    latency_ms=12.5,
    stages_ms={"infer": 8.25},
    readings={"die_c": 51.5},
)


def trivial_station(folder: Path, mqtt_port: int, **changes: Any) -> StationSettings:
    """A station with `folder`/models/trivial, light barrier, and belt and tap on free ports."""
    settings: dict[str, Any] = {
        "model": "trivial",
        "models_dir": folder / "models",
        "folder": folder,
        "triggered": True,
        "belt_speed_mm_s": 100.0,
        "gate_distance_mm": 4000.0,
        "part_mm": 76.0,
        "runtime": "auto",
        "record": False,
        "mqtt_port": mqtt_port,
        "belt_port": free_port(),
        "tap_port": free_port(),
    }
    return StationSettings(**settings | changes)


def only_model(
    package: Package, settings: EngineSettings, open_engine: OpenEngine, threshold: float | None = None
) -> Models:
    """The model of a line that has no other one."""

    def refuse(model_id: str, _url: str) -> Inspector:
        raise InputError(f"there is no {model_id}")

    inspector = Inspector(package, EngineChain(settings, package.load_golden(), open_engine))
    return Models(inspector, threshold, ModelChangeSettings(), refuse)
