"""Training goes on where it was interrupted, and gives the same integers as if it had not been."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from host.checkpoint import Checkpoint
from host.integers import Conv, IntegerNet
from host.network import Widths
from host.quantization import extract
from host.recipe import Recipe
from host.synthetic import add_defects
from host.training import Trainer, shrink_label
from tests.host.conftest import train

SMALL = Recipe(float_steps=6, quantized_steps=4, pairs=2, widths=Widths((16, 16, 16, 16), 16))


class StoppedError(Exception):
    pass


def test_same_seed_same_integers_other_seed_others(rendered: NDArray[np.uint8], tmp_path: Path) -> None:
    nets = [
        extract(train(rendered[:16], SMALL, tmp_path / str(i), seed), (128, 128)) for i, seed in enumerate((1, 1, 2))
    ]
    assert same_integers(nets[0], nets[1])
    assert not same_integers(nets[0], nets[2])


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


def test_batches_do_not_depend_on_those_before(rendered: NDArray[np.uint8], tmp_path: Path) -> None:
    first, second = (Trainer(rendered[:16], SMALL, 4, Checkpoint(tmp_path, "test")) for _ in range(2))
    first.draw_batch(0)
    assert first.draw_batch(7)[0].equal(second.draw_batch(7)[0])


def test_defects_change_what_they_label(rendered: NDArray[np.uint8]) -> None:
    picture = rendered[0].astype(np.float32) / 255
    part = np.ones((128, 128), np.uint8)
    for seed in range(30):
        changed, label = add_defects(picture, part, rendered, np.random.default_rng(seed))
        untouched = np.abs(changed - picture).max(axis=2) == 0
        far = cv2.erode(untouched.astype(np.uint8), np.ones((5, 5))) == 1  # nothing changed within two pixels
        assert (label[far] == 0).all()
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_labels_shrink_to_defect_good_or_undecided() -> None:
    label = np.zeros((8, 8), np.float32)
    label[0, :2] = 1  # two of the first cell's sixteen
    label[4, 0] = np.nan
    assert np.array_equal(shrink_label(label), np.array([[1, 0], [np.nan, 0]], np.float32), equal_nan=True)


def same_integers(one: IntegerNet, other: IntegerNet) -> bool:
    def numbers(net: IntegerNet) -> list[NDArray[np.generic]]:
        convs = [layer for layer in net.layers if isinstance(layer, Conv)]
        return [array for conv in convs for array in (conv.weights, conv.weight_exponents, conv.bias)]

    pairs = zip(numbers(one), numbers(other), strict=True)
    return one.exponents() == other.exponents() and all(np.array_equal(*pair) for pair in pairs)
