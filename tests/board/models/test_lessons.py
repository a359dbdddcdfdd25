"""The next good parts become a model; meanwhile nothing passes, and the model before stands by."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from board.engines.chain import EngineChain, open_engine
from board.engines.settings import EngineSettings
from board.engines.taught import TaughtEngine
from board.models.change import ModelChangeSettings, Models
from board.models.inspector import Finding, Inspector
from board.models.lessons import Lessons, School
from board.models.taught import Subject, teach
from board.teaching.backbone import BACKBONE_JSON, BackboneManifest, load_folder
from board.teaching.store import BANK_NPZ, load_bank
from host.export.trivial import write_trivial_package
from protocol.commands import Answer, Teach
from protocol.errors import EngineError, InputError, MessageError
from protocol.manifest import GOLDEN_NPZ, Package, file_sha256, load_package
from protocol.messages import Frame, Trigger, clock_id
from tests.survival.broker import wait_until

FRAME_PX, INPUT_PX, CELL_PX = 64, 64, 8
ORDER = Teach("1", "2099-01-01T00:00:00Z", 6, "taught")
Picture = NDArray[np.uint8]


class Cells:
    """Features of each cell: its mean colour and its contrast. A backbone that needs no network."""

    name = "cells"

    def infer(self, image: Picture) -> NDArray[np.int8]:
        cells = image.astype(float).reshape(INPUT_PX // CELL_PX, CELL_PX, INPUT_PX // CELL_PX, CELL_PX, 3)
        features = np.concatenate([cells.mean(axis=(1, 3)) / 2 - 64, cells.std(axis=(1, 3))], axis=2)
        rounded: NDArray[np.int8] = np.rint(features).clip(-128, 127).astype(np.int8).transpose(2, 0, 1)
        return rounded

    def close(self) -> None: ...


class Blind(Cells):
    def infer(self, image: Picture) -> NDArray[np.int8]:
        return np.zeros_like(super().infer(image))


def draw_part(number: int) -> Picture:
    """A texture in a light of its own."""
    texture = np.random.default_rng(0).normal(128, 40, (8, 8, 3))
    light = np.random.default_rng(number + 1).normal(0, 12, (4, 4, 3))
    scene = sum(cv2.resize(one, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_CUBIC) for one in (texture, light))
    return np.asarray(np.clip(scene, 0, 255), np.uint8)


def frame(picture: Picture | None, number: int = 0) -> Frame:
    return Frame(Trigger("run", number, 0, clock_id()), picture, fault="" if picture is not None else "lost")


@pytest.fixture
def station(tmp_path: Path) -> Path:
    """Models and a backbone."""
    write_trivial_package(tmp_path / "models" / "first", FRAME_PX)
    folder = tmp_path / "backbones" / "cells"
    folder.mkdir(parents=True)
    images = np.stack([draw_part(99)])
    np.savez(folder / GOLDEN_NPZ, images=images, features=np.stack([Cells().infer(image) for image in images]))
    files = {GOLDEN_NPZ: file_sha256(folder / GOLDEN_NPZ)}
    manifest = BackboneManifest(1, "cells", INPUT_PX, "0" * 64, files)
    (folder / BACKBONE_JSON).write_text(json.dumps(asdict(manifest)))
    return tmp_path


def open_inspector(station: Path, model_id: str) -> Inspector:
    package, settings = load_package(station / "models" / model_id), EngineSettings()
    return Inspector(package, EngineChain(settings, package.load_golden(), lambda _: open_one(package, settings)))


def open_one(package: Package, settings: EngineSettings) -> TaughtEngine:
    if BANK_NPZ in package.manifest.files:
        return TaughtEngine(Cells(), load_bank(package.path(BANK_NPZ))[0])
    return open_engine("arm", package, settings)  # type: ignore[return-value]


@pytest.fixture
def school(station: Path) -> School:
    return School(
        backbones=station / "backbones",
        find_package=lambda model_id: station / "models" / model_id,
        open_features=lambda _: Cells(),
        open_inspector=lambda model_id, _: open_inspector(station, model_id),
        needs_signatures=False,
    )


@pytest.fixture
def models(station: Path) -> Iterator[Models]:
    first = open_inspector(station, "first")
    with contextlib.closing(
        Models(first, None, ModelChangeSettings(), lambda model, _: open_inspector(station, model))
    ) as opened:
        yield opened


def settle(lessons: Lessons, models: Models) -> Answer:
    answers: list[Answer] = []

    def is_settled() -> bool:
        answer = models.step()
        lessons.hear(answer)
        if answer:
            answers.append(answer)
        return bool(answers)

    wait_until(is_settled)
    return answers[0]


def judge(models: Models, picture: Picture) -> bool:
    finding = Finding()
    models.current.inspect(picture, finding)
    assert finding.score is not None
    return finding.score < models.threshold


def test_good_parts_become_the_model_that_judges(school: School, models: Models) -> None:
    lessons = Lessons(school, models)
    lessons.begin(ORDER)
    for number in range(ORDER.parts):
        assert lessons.fault == "learning taught"
        assert (complaint := lessons.complaint())
        assert complaint.state == "stopped"
        assert lessons.parts_left == ORDER.parts - number
        lessons.note(frame(None))  # a lost picture teaches nothing
        assert lessons.note(frame(draw_part(number), number)) is None
    assert lessons.fault, "until the model is taken"
    answer = settle(lessons, models)
    assert (answer.command, answer.obeyed) == ("teach", True)
    assert (lessons.fault, lessons.complaint()) == ("", None)
    assert models.current.manifest.id == "taught"
    assert models.is_changing, "the model before stands by"
    assert [judge(models, draw_part(number)) for number in range(20, 26)].count(True) >= 5
    spoilt = draw_part(30)
    spoilt[20:40, 20:40] = 255 - spoilt[20:40, 20:40]
    assert not judge(models, spoilt)
    assert "6 pictures can promise nothing below" in models.current.manifest.threshold.method


def test_parts_that_are_all_alike_teach_nothing_and_the_model_before_judges(school: School, models: Models) -> None:
    lessons = Lessons(school, models)
    lessons.begin(ORDER)
    for _ in range(ORDER.parts):
        lessons.note(frame(draw_part(1)))
    answer = settle(lessons, models)
    assert not answer.obeyed
    assert "of good parts are alike: they show 1 different parts" in answer.reason
    assert (lessons.fault, models.current.manifest.id) == ("", "first")
    assert not school.find_package("taught").exists()


def test_a_lesson_can_be_ended_and_another_model_be_taught(school: School, models: Models) -> None:
    lessons = Lessons(school, models)
    assert not lessons.cancel()
    lessons.begin(ORDER)
    lessons.note(frame(draw_part(1)))
    assert lessons.cancel()
    assert not lessons.fault
    lessons.begin(replace(ORDER, id="2"))
    assert lessons.parts_left == ORDER.parts, "parts of before do not count"


def test_what_a_station_cannot_teach_is_refused_at_once(school: School, models: Models, station: Path) -> None:
    def refusal(how: School, order: Teach = ORDER) -> str:
        with pytest.raises(MessageError) as refused:
            Lessons(how, models).begin(order)
        return str(refused.value)

    assert "there is a model first already" in refusal(school, replace(ORDER, model="first"))
    assert "[engines] backbones is not set: make one with" in refusal(replace(school, backbones=None))
    assert "takes signed models alone: teach on a host" in refusal(replace(school, needs_signatures=True))
    (station / "backbones" / "cells" / GOLDEN_NPZ).write_bytes(b"other")
    assert "is not the file that was written" in refusal(school)
    lessons = Lessons(replace(school, backbones=station / "none"), models)
    with pytest.raises(MessageError, match="has 0: make one"):
        lessons.begin(ORDER)


def test_an_engine_that_gives_other_features_teaches_nothing(station: Path) -> None:
    backbone = load_folder(station / "backbones" / "cells")
    images = np.stack([draw_part(number) for number in range(6)])
    subject = Subject("taught", "scene", (FRAME_PX, FRAME_PX), INPUT_PX)
    with pytest.raises(EngineError, match="does not give the backbone's golden features"):
        teach(subject, images[0], images, backbone, lambda _: Blind())
    images[3] = 255
    with pytest.raises(InputError, match="part 4 is over-exposed"):
        teach(subject, images[0], images, backbone, lambda _: Cells())
