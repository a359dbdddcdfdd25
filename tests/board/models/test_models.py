"""A change of model while parts go by: verified, tested and tried; back to the one before when it does not hold."""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from board.config import LineConfig
from board.disk import Disk
from board.engines.chain import EngineChain, open_engine
from board.engines.settings import EngineName, EngineSettings
from board.models.change import ModelChangeSettings, Models
from board.models.choice import Chosen, recall_models, remember_models
from board.models.inspector import Finding, Inspector
from board.packages import choose_package, find_package, open_models
from board.seams import Engine
from host.export.trivial import write_trivial_package
from protocol.commands import Answer, Rollback, SwitchModel
from protocol.errors import EngineError, InputError, ManifestError, MessageError
from protocol.fitness import Concern, Fitness
from protocol.manifest import CARRIED_ONNX, MANIFEST, MODEL_ONNX, load_package
from protocol.strict import FieldError
from tests.survival.broker import wait_until

UNFIT = Fitness("unfit", (Concern("unfit", "it finds 1 of 128 small defects", "give more pictures"),))
ORDER = SwitchModel("7", "2026-01-01T00:00:30Z", "second")
BACK = Rollback("8", "2026-01-01T00:00:30Z")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models `first` and `second`, of other thresholds; `tampered`; `large`, for frames of another size."""
    folder = tmp_path_factory.mktemp("models")
    write_trivial_package(folder / "first", threshold=0.25)
    write_trivial_package(folder / "second", threshold=0.5)
    write_trivial_package(folder / "large", frame_px=512)
    write_trivial_package(folder / "unfit", threshold=0.5, fitness=UNFIT)
    other = write_trivial_package(folder / "other") / MANIFEST
    other.write_text(other.read_text().replace('"product": "brightness"', '"product": "darkness"'))
    tampered = write_trivial_package(folder / "tampered")
    (tampered / MODEL_ONNX).write_bytes((tampered / CARRIED_ONNX).read_bytes())
    return folder


class Watched:
    """A real engine of which it is known whether it was closed; it fails from then on."""

    def __init__(self, engine: Engine) -> None:
        self.name, self._engine, self.is_closed = engine.name, engine, False

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        if self.is_closed:
            raise EngineError("closed")
        return self._engine.infer(image)

    def close(self) -> None:
        if not self.is_closed:
            self._engine.close()
        self.is_closed = True


OpenModels = Callable[..., Models]


@pytest.fixture
def engines() -> dict[str, Watched]:
    """Those that were opened, by their models' ids."""
    return {}


@pytest.fixture
def open_pair(packages: Path, engines: dict[str, Watched]) -> Iterator[OpenModels]:
    settings = EngineSettings()
    hours = itertools.count(0, 3600).__next__  # what is due, is due at once
    with contextlib.ExitStack() as opened:

        def open_inspector(model_id: str, _url: str = "") -> Inspector:
            package = load_package(packages / model_id)

            def open_one(name: EngineName) -> Engine:
                engines[model_id] = Watched(open_engine(name, package, settings))
                return engines[model_id]

            return Inspector(package, EngineChain(settings, package.load_golden(), open_one))

        def open_all(change: ModelChangeSettings, disk: Disk | None = None) -> Models:
            models = Models(open_inspector("first"), None, change, open_inspector, disk=disk, now_s=hours)
            opened.callback(models.close)
            return models

        yield open_all


def settle(models: Models) -> Answer:
    answers: list[Answer | None] = [None]

    def is_settled() -> bool:
        answers[0] = models.step()
        return answers[0] is not None

    wait_until(is_settled)
    (answer,) = answers
    assert answer is not None
    return answer


def change(models: Models, model: str = "second") -> Answer:
    models.begin(replace(ORDER, model=model))
    return settle(models)


def judge(models: Models, count: int, *, rejected: bool = False) -> list[Answer]:
    answers = [models.note(failed=False, rejected=rejected) for _ in range(count)]
    return [answer for answer in answers if answer]


def test_the_old_model_judges_until_the_new_one_is_ready_and_stands_by_until_that_has_proved_itself(
    open_pair: OpenModels, engines: dict[str, Watched], tmp_path: Path
) -> None:
    models = open_pair(ModelChangeSettings(trial_parts=5, remembered=tmp_path / "chosen" / "model"))
    models.begin(ORDER)
    assert (models.current.manifest.id, models.threshold) == ("first", 0.25)
    answer = settle(models)
    assert (answer.id, answer.command, answer.obeyed, answer.reason) == ("7", "model", True, "")
    assert (models.current.manifest.id, models.threshold) == ("second", 0.5)
    assert judge(models, 4) == []
    assert not engines["first"].is_closed
    assert recall_models(tmp_path / "chosen" / "model") == Chosen("second", "first", 1)
    assert judge(models, 1) == []
    assert (engines["first"].is_closed, engines["second"].is_closed) == (True, False)
    assert recall_models(tmp_path / "chosen" / "model") == Chosen("second", "first")


@pytest.mark.parametrize(
    ("parts", "share", "key"),
    [(-1, 0.8, "trial_parts"), (100_001, 0.8, "trial_parts"), (20, 0.0, "most_rejected"), (20, 1.01, "most_rejected")],
)
def test_trials_that_are_none(parts: int, share: float, key: str) -> None:
    with pytest.raises(FieldError, match=f"{key}: must be"):
        ModelChangeSettings(trial_parts=parts, most_rejected=share)


def test_without_a_trial_the_old_model_goes_at_once(open_pair: OpenModels, engines: dict[str, Watched]) -> None:
    models = open_pair(ModelChangeSettings(trial_parts=0))
    answer = change(models)
    assert (answer.obeyed, answer.reason) == (
        True,
        "done, but a restart goes back to first: set [model_change] remembered",
    )
    assert engines["first"].is_closed
    assert change(models, "first").reason == ""  # where a restart would go


def test_a_model_that_no_engine_runs_makes_way_for_the_one_before(
    open_pair: OpenModels, engines: dict[str, Watched], tmp_path: Path
) -> None:
    models = open_pair(ModelChangeSettings(remembered=tmp_path / "model"))
    models.set_threshold(0.3)
    change(models)
    engines["second"].close()
    finding = Finding()
    models.current.inspect(np.zeros((256, 256, 3), np.uint8), finding)
    answer = models.note(failed=finding.score is None, rejected=False)
    assert answer is not None
    assert (answer.id, answer.obeyed, answer.reason) == ("7", False, "no engine could run it: back to first")
    assert (models.current.manifest.id, models.threshold) == ("first", 0.3)
    finding = Finding()
    models.current.inspect(np.zeros((256, 256, 3), np.uint8), finding)
    assert finding.score == -1.0
    assert recall_models(tmp_path / "model") == Chosen("first")
    assert models.complaint.startswith("second did not pass its trial, no engine could run it: back to first")


@pytest.mark.parametrize(("rejected", "stays"), [(8, True), (9, False)])
def test_a_model_that_rejects_far_too_much_makes_way(open_pair: OpenModels, rejected: int, stays: bool) -> None:
    models = open_pair(ModelChangeSettings(trial_parts=10, most_rejected=0.8))
    change(models)
    answers = judge(models, rejected, rejected=True) + judge(models, 10 - rejected)
    assert [answer.reason for answer in answers] == (
        [] if stays else ["it rejected 9 of its first 10 parts: back to first"]
    )
    assert models.current.manifest.id == ("second" if stays else "first")


def test_the_model_of_another_product_is_taken_only_if_somebody_confirms_it(open_pair: OpenModels) -> None:
    models = open_pair(ModelChangeSettings())
    answer = change(models, "other")
    assert not answer.obeyed
    assert answer.reason == (
        "other is for 'darkness', this line's model for 'brightness': take one of the product's own, or confirm the "
        "change (confirmed = true)"
    )
    assert models.current.manifest.id == "first"
    assert models.complaint.startswith("other was not taken")
    models.begin(replace(ORDER, model="other", confirmed=True))
    assert settle(models).obeyed
    assert (models.current.manifest.id, models.complaint) == ("other", "")


def test_one_change_at_a_time(open_pair: OpenModels) -> None:
    models = open_pair(ModelChangeSettings(trial_parts=2))
    with pytest.raises(MessageError, match="first judges already"):
        models.begin(replace(ORDER, model="first"))
    models.begin(ORDER)
    with pytest.raises(MessageError, match="wait for its end"):
        models.begin(replace(ORDER, id="8"))
    settle(models)
    with pytest.raises(MessageError, match="wait for its end"):
        models.begin(replace(ORDER, id="8", model="first"))
    judge(models, 2)
    assert change(models, "first").obeyed


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("absent", "no model at"),
        ("tampered", "is not the file that was exported"),
        ("large", "takes frames of (512, 512), this line's are (256, 256)"),
    ],
)
def test_a_model_that_is_not_in_order_never_judges(packages: Path, model: str, why: str) -> None:
    config = LineConfig("first", models_dir=packages)
    with contextlib.closing(open_models(config, load_package(packages / "first"), None)) as models:
        answer = change(models, model)
        assert not answer.obeyed
        assert why in answer.reason
        assert models.current.manifest.id == "first"
        assert change(models).obeyed


def test_closing_waits_for_a_model_that_is_being_opened(open_pair: OpenModels, engines: dict[str, Watched]) -> None:
    models = open_pair(ModelChangeSettings())
    models.begin(ORDER)
    models.close()  # and once more when the test is over: that does no harm
    assert engines["first"].is_closed
    assert engines["second"].is_closed


def test_back_to_the_model_before(open_pair: OpenModels, tmp_path: Path) -> None:
    models = open_pair(ModelChangeSettings(trial_parts=2, remembered=tmp_path / "model"))
    with pytest.raises(MessageError, match="no model before this one"):
        models.begin(BACK)
    change(models)
    judge(models, 2)
    assert models.begin(BACK) is False
    answer = settle(models)
    assert (answer.id, answer.command, answer.obeyed) == ("8", "rollback", True)
    assert models.current.manifest.id == "first"
    judge(models, 2)
    assert recall_models(tmp_path / "model") == Chosen("first", "second")


def test_a_trial_can_be_ended_at_once(open_pair: OpenModels, engines: dict[str, Watched]) -> None:
    models = open_pair(ModelChangeSettings())
    change(models)
    judge(models, 1)
    assert models.begin(BACK) is True
    assert models.current.manifest.id == "first"
    assert (engines["first"].is_closed, engines["second"].is_closed) == (False, True)
    assert judge(models, 30, rejected=True) == []


def test_the_next_start_has_the_model_that_was_commanded_while_that_is_in_order(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remembered = tmp_path / "model"
    config = LineConfig(
        "first", models_dir=packages, threshold=0.1, model_change=ModelChangeSettings(remembered=remembered)
    )
    same, package, chosen = choose_package(config, None)
    assert (package.manifest.id, same.threshold, chosen) == ("first", 0.1, Chosen("first"))
    remember_models(remembered, Chosen("second", "first"), Disk())
    own, package, chosen = choose_package(config, None)
    assert (package.manifest.id, own.threshold, chosen.before) == ("second", None, "first")
    remember_models(remembered, Chosen("tampered", "second"), Disk())
    same, package, _ = choose_package(config, None)
    assert (package.manifest.id, same.threshold) == ("first", 0.1)
    assert "going on with first" in capsys.readouterr().err


def test_an_unfit_model_is_taken_by_nobody_who_does_not_say_so(
    open_pair: OpenModels, packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remembered = tmp_path / "model"
    models = open_pair(ModelChangeSettings(trial_parts=2, remembered=remembered))
    refusal = change(models, "unfit")
    assert not refusal.obeyed
    assert "unfit is unfit: it finds 1 of 128 small defects" in refusal.reason
    assert 'set [model_change] even_if_unfit = ["unfit"], or deploy it with --even-if-unfit' in refusal.reason
    assert models.current.manifest.id == "first"
    models.begin(replace(ORDER, model="unfit", even_if_unfit=True))
    assert settle(models).obeyed
    assert recall_models(remembered) == Chosen("unfit", "first", 1, ("unfit",))
    config = LineConfig("first", models_dir=packages, model_change=ModelChangeSettings(remembered=remembered))
    assert choose_package(config, None)[1].manifest.id == "unfit"  # what was commanded stays so
    judge(models, 2)
    assert recall_models(remembered) == Chosen("unfit", "first", 0, ("unfit",))
    change(models)
    judge(models, 2)
    models.begin(BACK)
    assert settle(models).obeyed  # it was taken before
    remember_models(remembered, Chosen("unfit", "first"), Disk())  # a package that came without anybody's word
    assert choose_package(config, None)[1].manifest.id == "first"
    assert "going on with first" in capsys.readouterr().err


def test_an_unfit_model_in_the_configuration(packages: Path) -> None:
    with pytest.raises(ManifestError, match="unfit is unfit"):
        choose_package(LineConfig("unfit", models_dir=packages), None)
    allowed = ModelChangeSettings(even_if_unfit=("unfit",))
    config, package, chosen = choose_package(LineConfig("unfit", models_dir=packages, model_change=allowed), None)
    assert (package.manifest.id, chosen.unfit) == ("unfit", ())
    with contextlib.closing(open_models(config, package, None, chosen)) as models:
        assert models.current.manifest.id == "unfit"


def test_the_configured_model_keeps_its_own_threshold_when_it_was_commanded_too(packages: Path, tmp_path: Path) -> None:
    change = ModelChangeSettings(remembered=tmp_path / "model")
    remember_models(tmp_path / "model", Chosen("first", "second"), Disk())
    own, package, chosen = choose_package(
        LineConfig("first", models_dir=packages, threshold=0.1, model_change=change), None
    )
    assert (package.manifest.id, own.threshold, chosen.before) == ("first", 0.1, "second")
    with contextlib.closing(open_models(own, package, None, chosen)) as models:
        assert (models.threshold, models.before) == (0.1, "second")


@pytest.mark.parametrize("value", [1.0, 1e300, float("nan"), -1.0])
def test_a_configured_threshold_that_the_model_cannot_reach_is_refused(packages: Path, value: float) -> None:
    with pytest.raises(InputError, match=r"threshold must be above -1\.0 and at most 0\.9921875"):
        choose_package(LineConfig("first", models_dir=packages, threshold=value), None)


@pytest.mark.parametrize("value", [1.0, 1e300, float("nan"), -1.0, -7.9])
def test_a_commanded_threshold_that_the_model_cannot_reach_is_refused(open_pair: OpenModels, value: float) -> None:
    models = open_pair(ModelChangeSettings())
    with pytest.raises(MessageError, match=r"value must be above -1\.0 and at most 0\.9921875"):
        models.set_threshold(value)
    assert models.threshold == 0.25
    models.set_threshold(127 / 128)
    assert models.threshold == 127 / 128


def test_a_model_that_was_installed_goes_before_one_that_was_fetched(packages: Path, tmp_path: Path) -> None:
    config = LineConfig("first", models_dir=packages, model_change=ModelChangeSettings(fetched=tmp_path))
    write_trivial_package(tmp_path / "second", threshold=0.75)
    write_trivial_package(tmp_path / "third", threshold=0.75)
    assert find_package(config, "second") == packages / "second"
    assert find_package(config, "third") == tmp_path / "third"
    assert find_package(config, "fourth") == tmp_path / "fourth"


def test_what_is_installed_is_not_fetched(packages: Path) -> None:
    """Nor is a station asked whether it fetches at all."""
    with contextlib.closing(
        open_models(LineConfig("first", models_dir=packages), load_package(packages / "first"), None)
    ) as models:
        models.begin(replace(ORDER, url="http://127.0.0.1:1/second"))
        assert settle(models).obeyed


def test_closing_during_a_trial_closes_both_models(open_pair: OpenModels, engines: dict[str, Watched]) -> None:
    models = open_pair(ModelChangeSettings(trial_parts=2))
    change(models)
    models.close()
    assert (engines["first"].is_closed, engines["second"].is_closed) == (True, True)


class BrokenDisk(Disk):
    """One that fails at one step, while it is broken."""

    def __init__(self, step: str) -> None:
        self._step, self.is_broken = step, True

    def _fail(self, step: str) -> None:
        if self.is_broken and step == self._step:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, path: Path, data: bytes) -> None:
        self._fail("write")
        super().write(path, data)

    def replace(self, fresh: Path, path: Path) -> None:
        self._fail("replace")
        super().replace(fresh, path)

    def sync_folder(self, folder: Path) -> None:
        self._fail("sync_folder")
        super().sync_folder(folder)


STEPS = ("write", "replace", "sync_folder")


@pytest.mark.parametrize("step", STEPS)
def test_a_change_that_cannot_be_kept_is_refused(
    open_pair: OpenModels, engines: dict[str, Watched], tmp_path: Path, step: str
) -> None:
    disk, memory = BrokenDisk(step), tmp_path / "model"
    models = open_pair(ModelChangeSettings(remembered=memory), disk)
    answer = change(models)
    assert (answer.obeyed, models.current.manifest.id, engines["second"].is_closed) == (False, "first", True)
    assert answer.reason == f"the choice of model cannot be kept in {memory} (No space left on device): see to its disk"
    assert models.complaint == answer.reason
    disk.is_broken = False
    wait_until(lambda: models.step() is None and not models.complaint)
    assert recall_models(memory) == Chosen("first")


@pytest.mark.parametrize("step", STEPS)
def test_a_rollback_that_cannot_be_kept_is_done_and_said(open_pair: OpenModels, tmp_path: Path, step: str) -> None:
    disk, memory = BrokenDisk(step), tmp_path / "model"
    disk.is_broken = False
    models = open_pair(ModelChangeSettings(remembered=memory), disk)
    change(models)
    disk.is_broken = True
    with pytest.raises(MessageError, match="first judges again, but after a restart: the choice of model cannot"):
        models.begin(BACK)
    assert models.current.manifest.id == "first"
    assert "cannot be kept" in models.complaint
    disk.is_broken = False
    wait_until(lambda: models.step() is None and not models.complaint)
    assert recall_models(memory) == Chosen("first")


def test_a_rollback_in_a_trial_is_on_the_disk_when_it_is_answered(open_pair: OpenModels, tmp_path: Path) -> None:
    models = open_pair(ModelChangeSettings(remembered=tmp_path / "model"))
    change(models)
    assert recall_models(tmp_path / "model") == Chosen("second", "first", 1)
    assert models.begin(BACK)
    assert recall_models(tmp_path / "model") == Chosen("first")


def test_a_trial_goes_on_after_a_restart(packages: Path, tmp_path: Path) -> None:
    change = ModelChangeSettings(trial_parts=3, remembered=tmp_path / "model")
    config = LineConfig("first", models_dir=packages, threshold=0.1, model_change=change)
    remember_models(tmp_path / "model", Chosen("second", "first", 1), Disk())
    own, package, chosen = choose_package(config, None)
    with contextlib.closing(open_models(own, package, None, chosen)) as models:
        assert (models.current.manifest.id, models.threshold) == ("second", 0.5)
        (answer,) = judge(models, 3, rejected=True)
        assert answer.reason == "it rejected 3 of its first 3 parts: back to first"
        assert (models.current.manifest.id, models.threshold) == ("first", 0.25)
    assert recall_models(tmp_path / "model") == Chosen("first")


def test_a_trial_whose_model_before_is_gone_goes_on_without(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = ModelChangeSettings(trial_parts=3, remembered=tmp_path / "model")
    config = LineConfig("first", models_dir=packages, model_change=change)
    remember_models(tmp_path / "model", Chosen("second", "absent", 1), Disk())
    own, package, chosen = choose_package(config, None)
    with contextlib.closing(open_models(own, package, None, chosen)) as models:
        assert "second was on trial, and goes on without: no model at" in capsys.readouterr().err
        assert judge(models, 5, rejected=True) == []
        assert models.current.manifest.id == "second"
