"""Known-bad parts of the package: a model that no longer finds them passes nothing, and takes over no line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from board.engines.chain import EngineChain, open_engine
from board.engines.settings import EngineName, EngineSettings
from board.models.change import ModelChangeSettings, Models
from board.models.inspector import Inspector
from board.models.known_bad import KnownBad
from board.seams import Engine
from host.export.trivial import KNOWN_BAD, write_trivial_package
from protocol.commands import SwitchModel
from protocol.errors import EngineError, MessageError
from protocol.known_bad import CHALLENGE_BIN, encode_known_bad
from protocol.manifest import MANIFEST, Calibration, Challenge, Distribution, Golden, Package, load_package
from tests.board.models.test_models import settle

LOW = -128
MODELS = Path(__file__).resolve().parents[3] / "models"
MAX_SHIPPED_BYTES = 1_500_000


class Fading:
    """A real engine whose maps are low, or that fails, from when it is told: no golden vector tells."""

    def __init__(self, engine: Engine) -> None:
        self.name, self._engine = engine.name, engine
        self.is_low = self.is_dead = False
        self.shown = 0

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        self.shown += 1
        if self.is_dead:
            raise EngineError("dead")
        anomaly = self._engine.infer(image)
        return np.full_like(anomaly, LOW) if self.is_low else anomaly

    def close(self) -> None:
        self._engine.close()


@pytest.fixture
def engine(trivial_package: Package) -> Fading:
    return Fading(open_engine("arm", trivial_package, EngineSettings()))


def chain(engine: Fading, package: Package) -> EngineChain:
    """Its self-test asks for nothing: what is tested here is that known-bad parts notice alone."""
    golden = package.load_golden()
    nothing = Golden(golden.frames[:0], golden.images[:0], golden.maps[:0])
    return EngineChain(EngineSettings(retry_s=1e-3), nothing, lambda _name: engine)


def without_challenge(folder: Path) -> Package:
    path = write_trivial_package(folder) / MANIFEST
    content = json.loads(path.read_bytes())
    del content["challenge"], content["files"][CHALLENGE_BIN]
    path.write_text(json.dumps(content))
    return load_package(folder)


def with_kinds(package: Package, found: int, least_share: float) -> Package:
    challenge = package.manifest.challenge
    assert challenge
    return replace(
        package,
        manifest=replace(package.manifest, challenge=replace(challenge, found=found, least_share=least_share)),
    )


def test_all_are_shown_at_loading_and_all_are_found(engine: Fading, trivial_package: Package) -> None:
    inspector = Inspector(trivial_package, chain(engine, trivial_package))
    assert engine.shown == KNOWN_BAD == inspector.known_bad.frames
    assert inspector.known_bad.found(0.25) == KNOWN_BAD
    assert (inspector.known_bad.fault(0.25), inspector.known_bad.remark()) == ("", "")


def test_a_model_whose_map_is_always_low_passes_nothing_until_it_finds_them_again(
    engine: Fading, trivial_package: Package
) -> None:
    engine.is_low = True
    inspector = Inspector(trivial_package, chain(engine, trivial_package))
    assert "finds fewer than 2 of its 2 known-bad parts, so nothing passes" in inspector.known_bad.fault(0.25)
    engine.is_low = False
    assert inspector.show_known_bad()
    assert inspector.known_bad.fault(0.25)
    assert inspector.show_known_bad()
    assert inspector.known_bad.fault(0.25) == ""


def test_one_missed_frame_is_enough_if_the_package_found_all(engine: Fading, trivial_package: Package) -> None:
    inspector = Inspector(trivial_package, chain(engine, trivial_package))
    engine.is_low = True
    inspector.show_known_bad()
    assert inspector.known_bad.found(0.25) == 1
    assert inspector.known_bad.fault(0.25)


@pytest.mark.parametrize(("least_share", "is_fault"), [(1.0, True), (0.5, False), (1e-9, False)])
def test_a_station_may_say_how_many_must_be_found(
    engine: Fading, trivial_package: Package, least_share: float, is_fault: bool
) -> None:
    known_bad = KnownBad(trivial_package, least_share)
    engines = chain(engine, trivial_package)
    known_bad.show_all(engines, 0.0)
    engine.is_low = True
    known_bad.show_next(engines)
    assert bool(known_bad.fault(0.25)) is is_fault


def test_no_share_is_so_small_that_none_need_be_found(engine: Fading, trivial_package: Package) -> None:
    engine.is_low = True
    known_bad = KnownBad(with_kinds(trivial_package, 0, 0.0))
    known_bad.show_all(chain(engine, trivial_package), 10.0)
    assert known_bad.fault(0.25)


def test_a_slow_engine_shows_one_at_loading_and_the_rest_later(engine: Fading, trivial_package: Package) -> None:
    clock = iter(range(100))
    known_bad = KnownBad(trivial_package)
    engines = chain(engine, trivial_package)
    assert known_bad.fault(0.25), "nothing was proved yet"
    known_bad.show_all(engines, 0.5, lambda: float(next(clock)))
    assert (engine.shown, known_bad.all_shown, known_bad.fault(0.25)) == (1, False, "")
    known_bad.show_next(engines)
    assert known_bad.all_shown


def test_an_engine_that_does_not_speak_proves_nothing(engine: Fading, trivial_package: Package) -> None:
    known_bad = KnownBad(trivial_package)
    engines = chain(engine, trivial_package)
    engine.is_dead = True
    known_bad.show_all(engines, 10.0)
    assert known_bad.fault(0.25)


def test_a_package_without_them_judges_and_says_so(engine: Fading, tmp_path: Path) -> None:
    package = without_challenge(tmp_path / "old")
    inspector = Inspector(package, chain(engine, package))
    assert (inspector.known_bad.frames, inspector.known_bad.fault(0.25)) == (0, "")
    assert "old carries no known-bad parts" in inspector.known_bad.remark()


def test_a_model_that_need_not_find_half_of_them_is_remarked_upon(trivial_package: Package) -> None:
    assert KnownBad(with_kinds(trivial_package, 1, 0.5)).remark() == ""
    weak = KnownBad(with_kinds(trivial_package, 0, 0.0))
    weak.fewest = 0
    assert "need find only 0 of its 2" in weak.remark()


def with_frames(package: Package, levels: list[int]) -> Package:
    """Its known-bad parts have a bright corner of so many levels; 0: they are blank."""
    height, width = package.manifest.preprocess.frame_px
    dark = np.zeros((height, width, 3), np.uint8)
    bad = []
    for level in levels:
        bad.append(dark.copy())
        bad[-1][: height // 2, : width // 2] = level
    package.path(CHALLENGE_BIN).write_bytes(encode_known_bad([dark], bad))
    challenge = Challenge(len(bad), 1, {"corner": len(bad)}, len(bad), 1.0)
    return replace(package, manifest=replace(package.manifest, challenge=challenge))


@pytest.mark.parametrize(
    ("levels", "counts", "remark"),
    [
        ([250, 240, 230, 220], (4, 4), ""),
        ([250, 240, 230, 230], (3, 3), ""),
        ([250, 240, 230, 0], (3, 3), ""),
        ([250, 250, 250, 250], (1, 1), "3 of the 4 known-bad parts of mixed are blank or copies"),
        ([250, 0, 0, 0], (1, 1), "3 of the 4 known-bad parts of mixed are blank or copies"),
    ],
)
def test_what_is_blank_or_a_copy_proves_nothing(
    engine: Fading, tmp_path: Path, levels: list[int], counts: tuple[int, int], remark: str
) -> None:
    package = with_frames(load_package(write_trivial_package(tmp_path / "mixed")), levels)
    known_bad = Inspector(package, chain(engine, package)).known_bad
    assert (known_bad.frames, known_bad.fewest, known_bad.fault(0.25)) == (*counts, "")
    assert known_bad.remark().startswith(remark)
    assert bool(known_bad.remark()) is bool(remark)


def test_a_package_whose_known_bad_parts_prove_nothing_passes_nothing(engine: Fading, tmp_path: Path) -> None:
    package = with_frames(load_package(write_trivial_package(tmp_path / "blank")), [0, 0])
    known_bad = Inspector(package, chain(engine, package)).known_bad
    assert not known_bad.show_next(chain(engine, package))
    assert "2 of the 2 known-bad parts of blank are blank or copies" in known_bad.fault(0.25)
    assert known_bad.found(0.25) == 0


def test_a_picture_in_no_light_of_the_product_proves_nothing(tmp_path: Path) -> None:
    package = with_frames(load_package(write_trivial_package(tmp_path / "lit")), [250, 40])
    usual = Distribution(60.0, 1.0, (58.0, 60.0, 62.0))  # the second one's mean is 10
    lit = replace(package.manifest, calibration=Calibration(9, {"brightness": usual}))
    assert KnownBad(replace(package, manifest=lit)).frames == 1


OpenModels = Callable[[float | None], Models]


@pytest.fixture
def open_models(engine: Fading, trivial_package: Package, tmp_path: Path) -> OpenModels:
    """`trivial` judges; there are `other`, `blind` whose threshold no frame reaches, and `old` without any."""
    settings = EngineSettings()
    dim = write_trivial_package(tmp_path / "blind", glare=140)
    packages = {
        "other": load_package(write_trivial_package(tmp_path / "other")),
        "blind": load_package(dim),
        "old": without_challenge(tmp_path / "old"),
    }

    def open_other(model_id: str, _url: str) -> Inspector:
        package = packages[model_id]

        def open_one(name: EngineName) -> Engine:
            return open_engine(name, package, settings)

        return Inspector(package, EngineChain(settings, package.load_golden(), open_one))

    def open_all(threshold: float | None) -> Models:
        inspector = Inspector(trivial_package, chain(engine, trivial_package))
        return Models(inspector, threshold, ModelChangeSettings(trial_parts=3), open_other)

    return open_all


def order(models: Models, model: str, *, confirmed: bool = False) -> str:
    """Why it was refused; empty if it judges."""
    models.begin(SwitchModel("7", "2026-01-01T00:00:30Z", model, confirmed=confirmed))
    answer = settle(models)
    return "" if answer.obeyed else answer.reason


def test_a_change_to_a_model_that_does_not_find_its_own_is_refused(open_models: OpenModels) -> None:
    models = open_models(None)
    assert "blind finds fewer than 2 of its 2 known-bad parts" in order(models, "blind", confirmed=True)
    assert models.current.manifest.id == "trivial"
    assert order(models, "other") == ""


def test_a_change_to_a_model_without_any_has_to_be_confirmed(open_models: OpenModels) -> None:
    models = open_models(None)
    assert "carries no known-bad parts" in order(models, "old")
    assert order(models, "old", confirmed=True) == ""
    assert models.current.manifest.id == "old"


def test_a_trial_ends_when_a_known_bad_part_is_missed(
    open_models: OpenModels, engine: Fading, trivial_package: Package
) -> None:
    models = open_models(None)
    models.stand_by(Inspector(trivial_package, chain(engine, trivial_package)), 1)
    assert models.show_known_bad() is None
    engine.is_low = True
    answer = models.show_known_bad()
    assert answer is not None
    assert "known-bad parts" in answer.reason
    assert "back to trivial" in answer.reason


def test_a_threshold_at_which_too_few_are_found_is_refused_or_confirmed_and_one_that_finds_none_is_refused(
    open_models: OpenModels, engine: Fading
) -> None:
    models = open_models(None)
    engine.is_low = True
    models.show_known_bad()  # one of the two is low now
    engine.is_low = False
    assert models.fault
    with pytest.raises(
        MessageError, match=r"at 0\.5 only 1 of 2 known-bad parts are found, 2 must be: .*confirmed = true"
    ):
        models.set_threshold(0.5)
    assert models.threshold == 0.25
    models.set_threshold(0.5, is_confirmed=True)
    assert (models.threshold, models.is_confirmed, models.fault) == (0.5, True, "")
    assert models.counters() == {"known_bad_parts": 2, "known_bad_found": 1}
    engine.is_low = True
    for _ in range(2):
        models.show_known_bad()
    assert models.fault, "what was confirmed is not found any more"
    with pytest.raises(MessageError, match="as nothing would be rejected"):
        models.set_threshold(0.5, is_confirmed=True)
    engine.is_low = False
    for _ in range(2):
        models.show_known_bad()
    models.set_threshold(0.5)
    assert (models.fault, models.is_confirmed) == ("", False)


@pytest.mark.parametrize("model", sorted(path.parent.name for path in MODELS.glob("*/manifest.json")))
def test_every_shipped_package_finds_as_many_as_it_says(model: str) -> None:
    package, settings = load_package(MODELS / model), EngineSettings()
    engines = EngineChain(settings, package.load_golden(), lambda name: open_engine(name, package, settings))
    known_bad = KnownBad(package)
    known_bad.show_all(engines, 60.0)
    engines.close()
    said, threshold = package.manifest.challenge, package.manifest.threshold.value
    assert said is not None
    assert (known_bad.frames, known_bad.found(threshold)) == (said.frames, said.found)
    assert known_bad.fault(threshold) == ""
    assert package.path(CHALLENGE_BIN).stat().st_size < MAX_SHIPPED_BYTES
