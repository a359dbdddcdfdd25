"""Training goes on where it was interrupted, and gives the same integers as if it had not been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from host.integers.arithmetic import Conv, IntegerNet
from host.learning.checkpoint import Checkpoint
from host.learning.muon import Muon, orthogonalise
from host.learning.network import Widths
from host.learning.pairs import Pairs, shrink_label
from host.learning.quantization import extract
from host.learning.recipe import LossWeights, Recipe
from host.learning.regions import draw_region
from host.learning.synthetic import MATERIALS, Sources, add_defects
from host.learning.textures import make_bank
from host.learning.training import Trainer, detection_loss, pixel_loss
from tests.host.conftest import train

WEIGHTS = LossWeights()
GOOD = WEIGHTS.good_pixels
SMALL = Recipe(float_steps=6, quantized_steps=4, pairs=2, widths=Widths((16, 16, 16, 16, 16), 16, 16))


class StoppedError(Exception):
    pass


def test_same_seed_same_integers_other_seed_others(rendered: NDArray[np.uint8], tmp_path: Path) -> None:
    nets = [
        extract(train(rendered[:16], SMALL, tmp_path / str(i), seed), (128, 128)) for i, seed in enumerate((1, 1, 2))
    ]
    assert same_integers(nets[0], nets[1])
    assert not same_integers(nets[0], nets[2])


@pytest.mark.parametrize("weights", [LossWeights(good_pixels=80), LossWeights(score=20)])
def test_weights_of_the_loss_shape_the_net(rendered: NDArray[np.uint8], tmp_path: Path, weights: LossWeights) -> None:
    recipes = (SMALL, replace(SMALL, loss=weights))
    nets = [extract(train(rendered[:16], recipe, tmp_path / str(i)), (128, 128)) for i, recipe in enumerate(recipes)]
    assert not same_integers(*nets)


@pytest.mark.parametrize("phase", ["float", "quantized"])
def test_interrupted_training_goes_on(rendered: NDArray[np.uint8], tmp_path: Path, phase: str) -> None:
    goods = rendered[:16]
    whole = extract(train(goods, SMALL, tmp_path / "whole"), (128, 128))

    def stop(step: int) -> None:
        if step == 3:
            raise StoppedError

    trainer = Trainer(goods, SMALL, 0, Checkpoint(tmp_path / "cut", "test"), save_every_steps=2)
    with pytest.raises(StoppedError):
        trainer.train_quantized(trainer.train_float(stop if phase == "float" else lambda _step: None), stop)
    continued = extract(train(goods, SMALL, tmp_path / "cut"), (128, 128))
    assert same_integers(whole, continued)


def test_state_of_another_order_is_not_used(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "one").save("float", {"step": 3})
    assert Checkpoint(tmp_path, "one").load("float") == {"step": 3}
    assert Checkpoint(tmp_path, "other").load("float") is None


def test_batches_do_not_depend_on_those_before(rendered: NDArray[np.uint8]) -> None:
    first, second = (Pairs(rendered[:16], SMALL.variation, 2, seed=4) for _ in range(2))
    first[0]
    assert np.array_equal(first[7][0], second[7][0])
    assert not np.array_equal(first[7][0], first[8][0])


def test_defects_change_what_they_label(rendered: NDArray[np.uint8]) -> None:
    picture = rendered[0].astype(np.float32) / 255
    part = np.ones((128, 128), np.uint8)
    sources = Sources(make_bank(0), rendered)
    for seed in range(60):
        changed, label = add_defects(picture, part, sources, np.random.default_rng(seed))
        assert changed.dtype == label.dtype == np.float32
        untouched = np.abs(changed - picture).max(axis=2) == 0
        far = cv2.erode(untouched.astype(np.uint8), np.ones((15, 15))) == 1  # nothing changed within seven pixels
        assert (label[far] == 0).all()
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_labels_shrink_to_defect_rim_good_or_undecided() -> None:
    label = np.zeros((40, 40), np.float32)
    label[:, 0] = 1  # four of a cell's sixteen pixels
    label[::2, 4] = 1  # two of the next one's
    label[36:, 36] = np.nan
    cells = shrink_label(label)
    assert (cells[:, 0] == 1).all()
    assert 0.1 < cells[5, 1] < 1
    assert (np.diff(cells[5]) <= 0).all()  # less likely the farther away
    assert cells[5, 9] == 0
    assert np.array_equal(np.argwhere(np.isnan(cells)), [[9, 9]])


def test_faint_rim_of_a_defect_is_decided() -> None:
    label = np.zeros((40, 40), np.float32)
    label[:, :4], label[:, 4:24] = 1, np.nan
    cells = shrink_label(label)
    assert 0.1 < cells[5, 1] < 1
    assert np.isnan(cells[5, 5])


def test_thin_defects_stay_visible() -> None:
    """A scratch that is blurred as widely as it is long would be gone."""
    bank = make_bank(0)
    part = np.ones((128, 128), np.uint8)
    regions = [draw_region(part, bank, np.random.default_rng(seed)) for seed in range(300)]
    assert np.mean([region.max() > 0.35 for region in regions]) > 0.97


def test_every_material_gives_a_picture(rendered: NDArray[np.uint8]) -> None:
    picture = rendered[0].astype(np.float32) / 255
    sources = Sources(make_bank(0), rendered)
    for material in MATERIALS:
        painted = [material(picture, sources, np.random.default_rng(seed)) for seed in range(5)]
        assert all(one.shape == picture.shape and one.dtype == np.float32 for one in painted)
        assert all(np.isfinite(one).all() for one in painted)
        assert max(float(np.abs(one - picture).mean()) for one in painted) > 0.005


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_follows_the_gradient() -> None:
    """Least squares: the weight goes to the only solution."""
    target = torch.randn((4, 6, 1, 1), generator=torch.Generator().manual_seed(0))
    weight = nn.Parameter(torch.zeros_like(target))
    optimizer = Muon([weight], 0.2)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        optimizer.zero_grad()
        (weight - target).square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (weight - target).abs().max() < 0.05


def test_loss_is_low_where_maps_agree_with_labels() -> None:
    labels = torch.zeros(1, 8, 8)
    labels[0, :2, :2] = 1
    labels[0, 2, 2] = torch.nan
    right = torch.full((2, 1, 8, 8), -8.0)
    right[1, 0, :2, :2] = 8
    doubtful = right.clone()
    doubtful[1, 0, 2, 2] = 8
    assert detection_loss(right, labels, 4, WEIGHTS) < 0.01
    assert detection_loss(doubtful, labels, 4, WEIGHTS) == detection_loss(right, labels, 4, WEIGHTS)
    assert detection_loss(-right, labels, 4, WEIGHTS) > 10
    assert detection_loss(torch.full_like(right, -8.0), labels, 4, WEIGHTS) > 8


def test_loss_weighs_good_pixels_and_scores_as_the_recipe_says() -> None:
    labels = torch.zeros(1, 8, 8)
    labels[0, :2, :2] = 1
    alarms = torch.full((2, 1, 8, 8), -8.0)
    alarms[0, 0, 5, 5], alarms[1, 0, :2, :2] = 8, 8
    alone = pixel_loss(alarms, labels, GOOD)
    assert detection_loss(alarms, labels, 1, LossWeights(score=0)) == alone
    assert detection_loss(alarms, labels, 1, LossWeights(score=0.5)) - alone == pytest.approx(4, rel=0.01)
    assert pixel_loss(alarms, labels, 2 * GOOD) / alone == pytest.approx(2, rel=0.01)


def test_loss_is_lowest_at_the_rims_likelihood() -> None:
    """A pixel labelled 0.3 wants neither a defect's logit nor a good pixel's."""
    labels = torch.zeros(1, 8, 8)
    labels[0, 0, 0], labels[0, 4, 4] = 1, 0.3
    losses = []
    for logit in (-8.0, 0.0, 8.0):
        maps = torch.full((2, 1, 8, 8), -8.0)
        maps[1, 0, 0, 0], maps[1, 0, 4, 4] = 8, logit
        losses.append(detection_loss(maps, labels, 1, WEIGHTS).item())
    assert losses[1] < min(losses[0], losses[2])


def test_small_defect_counts_beside_a_large_one() -> None:
    """Sixty-four times smaller, it weighs half, not a sixty-fourth."""
    labels = torch.zeros(2, 32, 32)
    labels[0, :16, :16], labels[1, :2, :2] = 1, 1
    right = torch.cat([torch.zeros_like(labels), labels])[:, None] * 16 - 8
    losses = []
    for missed in (2, 3):
        maps = right.clone()
        maps[missed] = -8
        losses.append(pixel_loss(maps, labels, GOOD).item())
    assert 0.4 < losses[1] / losses[0] < 0.6


def test_loss_of_coarser_logits_looks_at_the_share_of_defect() -> None:
    labels = torch.zeros(1, 8, 8)
    labels[0, :4, :4], labels[0, 4:, 4:] = 1, torch.nan
    right = torch.full((2, 1, 2, 2), -8.0)
    right[1, 0, 0, 0] = 8
    undecided = right.clone()
    undecided[1, 0, 1, 1] = 8
    assert pixel_loss(right, labels, GOOD) < 0.01
    assert pixel_loss(undecided, labels, GOOD) == pixel_loss(right, labels, GOOD)
    assert pixel_loss(-right, labels, GOOD) > 10
    half, even_odds = labels.clone(), torch.where(right > 0, 0, right)
    half[0, :2, :4] = 0
    assert pixel_loss(even_odds, half, GOOD) < pixel_loss(right, half, GOOD)
    half[0, :2, :4] = torch.nan  # all that is decided of the cell is defect
    assert pixel_loss(even_odds, half, GOOD) > pixel_loss(right, half, GOOD)
    assert pixel_loss(right, half, GOOD) < 0.01


def same_integers(one: IntegerNet, other: IntegerNet) -> bool:
    def numbers(net: IntegerNet) -> list[NDArray[np.generic]]:
        convs = [layer for layer in net.layers if isinstance(layer, Conv)]
        return [array for conv in convs for array in (conv.weights, conv.weight_exponents, conv.bias)]

    pairs = zip(numbers(one), numbers(other), strict=True)
    return one.exponents() == other.exponents() and all(np.array_equal(*pair) for pair in pairs)
