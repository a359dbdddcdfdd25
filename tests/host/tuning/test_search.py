"""Searching and ablating with trainings of a few steps: what is tried, what is kept, what goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import optuna
import pytest
from numpy.typing import NDArray

from host.learning.augmentation import Variation, turn_hue, vary
from host.learning.heldout import DEFECTS, draw_heldout
from host.learning.network import Widths
from host.learning.recipe import Recipe, load_recipe
from host.tuning.ablation import TABLE_MD, ablate, list_variants
from host.tuning.search import BEST_TOML, STUDIES_DB, search
from host.tuning.trial import load_field, run_trial

TINY = Recipe(float_steps=2, pairs=1, widths=Widths((16, 16, 16, 16, 16), 16, 16))
PART = np.ones((64, 64), np.uint8)


@pytest.fixture(scope="module")
def goods(rendered: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("goods")
    for number, image in enumerate(rendered[:20]):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def test_heldout_defects_are_seen_and_repeat(rendered: NDArray[np.uint8]) -> None:
    drawn = draw_heldout(rendered[:4], 6, seed=3)
    assert drawn.keys() == DEFECTS.keys()
    again = draw_heldout(rendered[:4], 6, seed=3)
    for kind, images in drawn.items():
        assert images.shape == (6, 128, 128, 3)
        assert np.array_equal(images, again[kind])
        changes = np.abs(images[:, np.newaxis].astype(int) - rendered[np.newaxis, :4]).max(axis=4)
        assert ((changes > 8).sum(axis=(2, 3)).min(axis=1) >= 20).all(), kind


def test_hue_turns_colours_and_keeps_grey() -> None:
    assert np.allclose(np.array([[0.4, 0.4, 0.4]]) @ turn_hue(35.0), 0.4, atol=1e-6)
    assert np.allclose(np.array([[1.0, 0.0, 0.0]]) @ turn_hue(120.0), [[0, 0, 1]], atol=1e-6)
    assert np.allclose(turn_hue(20.0) @ turn_hue(-20.0), np.eye(3), atol=1e-6)


def test_hue_is_varied_only_where_asked_for() -> None:
    still = Variation(flips=False, rotation_deg=0, shift=0, zoom=0, illumination=0, tint=0, saturation=0)
    red = np.zeros((64, 64, 3), np.float32)
    red[..., 0] = 0.5
    assert vary(red, PART, still, np.random.default_rng(1))[0][..., 1].mean() < 0.01
    turned = [vary(red, PART, replace(still, hue_deg=30.0), np.random.default_rng(seed))[0] for seed in range(6)]
    assert max(float(picture[..., 1:].max(axis=2).mean()) for picture in turned) > 0.05


def test_every_augmentation_is_ablated() -> None:
    variants = list_variants(Variation())
    assert len(variants) == 9
    assert variants["without flips"].flips is False
    assert variants["without rotation"].rotation_deg == 0
    assert variants["with hue"].hue_deg == 5
    assert len(set(variants.values())) == 9


def test_ablation_writes_a_table_and_goes_on(goods: Path, tmp_path: Path) -> None:
    few = replace(TINY, float_steps=1)
    table = ablate(goods, few, (0,), tmp_path)
    assert (tmp_path / TABLE_MD).read_text() == table + "\n"
    assert table.count("\n") == 2 + len(list_variants(few.variation)) - 1
    results = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert len(results) == 9
    next(iter(results)).unlink()
    assert ablate(goods, few, (0,), tmp_path) == table  # the missing one is trained again, to the same result
    kept = [path.stat().st_mtime_ns == before for path, before in results.items()]
    assert kept == [False] + [True] * 8
    assert not list(tmp_path.glob("*.unfinished"))


def test_search_goes_on_and_its_best_recipe_can_be_used(goods: Path, tmp_path: Path) -> None:
    search(goods, TINY, 2, tmp_path, seed=0)
    table = search(goods, TINY, 3, tmp_path, seed=0)
    assert len(list(tmp_path.glob("*.json"))) == 3
    best = load_recipe(tmp_path / BEST_TOML)
    field = load_field(goods, TINY)
    trained = run_trial(best, field, 0, tmp_path, lambda _step: pytest.fail("was trained already"))
    assert f"| {trained:.4f} |" in table.splitlines()[2]
    assert best.widths == TINY.widths


def test_interrupted_trial_is_the_next_one(goods: Path, tmp_path: Path) -> None:
    search(goods, TINY, 1, tmp_path, seed=0)
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / STUDIES_DB}")
    opened = optuna.load_study(study_name=study.study_name, storage=f"sqlite:///{tmp_path / STUDIES_DB}")
    opened.ask()  # a trial begins and never ends
    search(goods, TINY, 2, tmp_path, seed=0)
    assert [trial.state for trial in opened.trials] == [optuna.trial.TrialState.COMPLETE] * 2
