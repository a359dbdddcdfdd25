"""A network trained for a few seconds on rendered parts, and pictures to compare engines on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from board.preprocess import preprocess
from protocol.manifest import Preprocess
from sim.camera import Camera, CameraSettings
from sim.parts import RenderedParts

if TYPE_CHECKING:  # torch and Brevitas take seconds: they are imported where something is trained
    from host.integers.arithmetic import IntegerNet
    from host.learning.quantization import LayerNet
    from host.learning.recipe import Recipe

HOW = Preprocess(frame_px=(256, 256), crop_px=(0, 0, 256, 256), input_px=(128, 128))
RENDERED_IMAGES, RANDOM_IMAGES = 120, 90


@dataclass(frozen=True)
class Trained:
    quantized: LayerNet
    integers: IntegerNet


@pytest.fixture(scope="session")
def rendered() -> NDArray[np.uint8]:
    """Oranges and bottles, good and bad, uint8 (n, 128, 128, 3)."""
    camera = Camera(CameraSettings(), seed=3)
    belts = [RenderedParts(product, seed=3, defect_share=0.5) for product in ("orange", "bottle")]
    shots = [camera.shoot(parts.part(number)).image for number in range(RENDERED_IMAGES // 2) for parts in belts]
    return np.stack([preprocess(shot, HOW) for shot in shots])


@pytest.fixture(scope="session")
def images(rendered: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rendered and random images: noise, black-and-white noise, flat extremes."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (RANDOM_IMAGES - 2, 128, 128, 3), np.uint8)
    noise[::2] = np.where(noise[::2] < 128, 0, 255)
    flat = np.stack([np.zeros((128, 128, 3), np.uint8), np.full((128, 128, 3), 255, np.uint8)])
    return np.concatenate([rendered, noise, flat])


@pytest.fixture(scope="session")
def trained(rendered: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    import torch

    from host.learning.network import Widths
    from host.learning.quantization import extract
    from host.learning.recipe import Recipe

    torch.set_num_threads(1)
    quick = Recipe(float_steps=40, quantized_steps=12, pairs=4, widths=Widths((16, 32, 48, 48, 48), 32, 16))
    quantized = train(rendered[:32], quick, tmp_path_factory.mktemp("checkpoint"))
    return Trained(quantized, extract(quantized, (128, 128)))


def train(goods: NDArray[np.uint8], recipe: Recipe, folder: Path, seed: int = 0) -> LayerNet:
    from host.learning.checkpoint import Checkpoint
    from host.learning.training import Trainer

    trainer = Trainer(goods, recipe, seed, Checkpoint(folder, "test"))
    return trainer.train_quantized(trainer.train_float(lambda _step: None), lambda _step: None)
