"""Weights that were never trained, in the files' real layouts, and pictures to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from host.bench import runner
from host.bench.features import MOBILENET_WIDTHS
from host.bench.weights import Weights
from host.learning.backbone import import_torchvision


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture
def without_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time and memory take longer to measure than all the rest of a tiny row."""
    monkeypatch.setattr(runner, "measure_cost", lambda *_: {})


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Of every network that a detector asks for; what lies behind the features is left out."""
    torch.manual_seed(0)
    folder, models = tmp_path_factory.mktemp("weights"), import_torchvision().models
    squeezenet = models.squeezenet1_1().features.state_dict()
    torch.save(squeezenet, folder / "squeezenet1_1_features.pth")
    torch.save(models.resnet18().state_dict(), folder / "resnet18.pth")
    vgg16 = models.vgg.make_layers([64, 64, "M", 128, 128, "M", 256, 256, 256, "M"])
    torch.save({f"features.{key}": value for key, value in vgg16.state_dict().items()}, folder / "vgg16.pth")
    np.savez(folder / "mobilenet_v1_1.0_224.npz", **make_mobilenet(np.random.default_rng(0)))  # type: ignore[arg-type]
    return Weights(folder)


def make_mobilenet(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Keras' names and shapes of MobileNetV1."""
    stored = {"conv1/kernel": _draw(rng, (3, 3, 3, 32))} | _norm(rng, "conv1_bn", 32)
    for number, (low, high) in enumerate(zip((32, *MOBILENET_WIDTHS), MOBILENET_WIDTHS, strict=False), start=1):
        stored[f"conv_dw_{number}/depthwise_kernel"] = _draw(rng, (3, 3, low, 1))
        stored[f"conv_pw_{number}/kernel"] = _draw(rng, (1, 1, low, high))
        stored |= _norm(rng, f"conv_dw_{number}_bn", low) | _norm(rng, f"conv_pw_{number}_bn", high)
    return stored


def _draw(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    inputs = np.prod(shape[:2]) if shape[3] == 1 else np.prod(shape[:3])  # a depthwise kernel sees one channel
    return np.asarray(rng.standard_normal(shape) * np.sqrt(2 / inputs), np.float32)


def _norm(rng: np.random.Generator, name: str, channels: int) -> dict[str, NDArray[np.float32]]:
    return {
        f"{name}/{key}": rng.uniform(low, high, channels).astype(np.float32)
        for key, low, high in (
            ("gamma", 0.8, 1.2),
            ("beta", -0.1, 0.1),
            ("moving_mean", -0.1, 0.1),
            ("moving_variance", 0.8, 1.2),
        )
    }


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Smooth ones, each unlike the others: uint8 (20, 64, 64, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (20, 8, 8, 3))
    return np.asarray(coarse.repeat(8, axis=1).repeat(8, axis=2), np.uint8)
