"""A known-bad frame is shown when it is due and surely delays no part."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from board.engines.chain import EngineChain, open_engine
from board.engines.settings import EngineSettings
from board.loop.showing import FEWER, NO_TIME, OVERDUE, UNPROVED, Showing
from board.models.change import ModelChangeSettings, Models
from board.models.inspector import Inspector
from protocol.manifest import Calibration, Distribution, Package
from tests.examples import only_model

TOOK_NS = 1_000_000


@pytest.fixture
def models(trivial_package: Package) -> Iterator[Models]:
    settings = EngineSettings()
    models = only_model(trivial_package, settings, lambda name: open_engine(name, trivial_package, settings))
    models.current.known_bad.took_ns = TOOK_NS
    yield models
    models.close()


def after(models: Models, parts: int, margin_ns: int, every: int = 3) -> Showing:
    showing = Showing(models, every)
    for _ in range(parts):
        showing.note_part(margin_ns)
    return showing


@pytest.mark.parametrize(
    ("parts", "margin_ns", "every", "is_due"),
    [
        (3, 2 * TOOK_NS, 3, True),
        (3, 2 * TOOK_NS - 1, 3, False),
        (3, -1, 3, False),
        (2, 2 * TOOK_NS, 3, False),
        (9, 2 * TOOK_NS, 0, False),
    ],
)
def test_due_is_one_every_so_many_parts_where_there_is_time(
    models: Models, parts: int, margin_ns: int, every: int, is_due: bool
) -> None:
    assert after(models, parts, margin_ns, every).is_due is is_due


def test_one_at_a_time(models: Models) -> None:
    showing = after(models, 3, 10_000 * TOOK_NS)
    assert showing.step() is None
    assert not showing.is_due


def test_no_time_is_said(models: Models) -> None:
    assert after(models, 3 * OVERDUE - 1, 0).complaint() is None
    complaint = after(models, 3 * OVERDUE, 0).complaint()
    assert complaint is not None
    assert (complaint.state, complaint.reason) == ("degraded", NO_TIME)


@pytest.mark.parametrize(("own", "threshold", "state"), [(0.25, 0.25, "running"), (0.25, 0.26, "degraded")])
def test_without_known_bad_parts_a_threshold_above_the_models_own_is_said(
    trivial_package: Package, own: float, threshold: float, state: str
) -> None:
    bare = replace(trivial_package, manifest=replace(trivial_package.manifest, challenge=None))
    settings = EngineSettings()
    models = only_model(bare, settings, lambda name: open_engine(name, bare, settings))
    with contextlib.closing(models):
        assert models.threshold == own
        models.set_threshold(threshold)
        complaint = Showing(models, 3).complaint()
        assert complaint is not None
        assert complaint.state == state


@pytest.mark.parametrize(("mean", "state"), [(0.2, "running"), (-0.2, "degraded")])
def test_without_known_bad_parts_a_threshold_far_above_good_parts_is_said(
    trivial_package: Package, mean: float, state: str
) -> None:
    good = Calibration(9, {"score": Distribution(mean, 0.02, (mean - 0.03, mean, mean + 0.03))})
    bare = replace(trivial_package, manifest=replace(trivial_package.manifest, challenge=None, calibration=good))
    settings = EngineSettings()
    with contextlib.closing(only_model(bare, settings, lambda name: open_engine(name, bare, settings))) as models:
        complaint = Showing(models, 3).complaint()
        assert complaint is not None
        assert complaint.state == state


def test_a_configuration_may_ask_for_fewer_known_bad_parts_and_it_is_said(trivial_package: Package) -> None:
    """One of its two parts is found at the higher threshold."""
    settings = EngineSettings()
    engines = EngineChain(
        settings, trivial_package.load_golden(), lambda name: open_engine(name, trivial_package, settings)
    )
    inspector = Inspector(trivial_package, engines, least_share=0.5)
    inspector.known_bad._scores = [0.9, 0.3]
    models = Models(inspector, 0.5, ModelChangeSettings(), lambda *_: inspector)
    with contextlib.closing(models):
        complaint = Showing(models, 3).complaint()
        assert (models.fault, complaint and (complaint.state, complaint.reason)) == ("", ("degraded", FEWER))
        models.set_threshold(0.3)
        assert Showing(models, 3).complaint() is None


def test_without_known_bad_parts_the_highest_threshold_is_said(trivial_package: Package) -> None:
    own = trivial_package.manifest
    highest = replace(own, challenge=None, threshold=replace(own.threshold, value=own.map.highest))
    bare = replace(trivial_package, manifest=highest)
    settings = EngineSettings()
    with contextlib.closing(only_model(bare, settings, lambda name: open_engine(name, bare, settings))) as models:
        complaint = Showing(models, 3).complaint()
        assert complaint is not None
        assert (complaint.state, complaint.reason.startswith(UNPROVED)) == ("degraded", True)
