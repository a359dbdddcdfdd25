"""A pretrained network helps the training and leaves no trace in what is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from host.learning.checkpoint import Checkpoint
from host.learning.learner import Learner
from host.learning.network import Widths
from host.learning.recipe import Recipe
from host.learning.teacher import CHANNELS, FIRES, STRIDES, Teacher, load_teacher
from host.learning.training import Trainer
from protocol.errors import InputError

SMALL = Recipe(float_steps=6, quantized_steps=4, pairs=2, widths=Widths((16, 16, 16, 16, 16), 16, 16))


def test_features_at_the_encoders_strides() -> None:
    features = Teacher(squeezenet("features.")).eval()(torch.rand(2, 3, 128, 128) * 2 - 1)
    for one, stride, channels in zip(features, STRIDES, CHANNELS, strict=True):
        assert one.shape[1] == channels
        assert one.shape[2] == one.shape[3] == 128 // stride - 1  # SqueezeNet's first convolution has no padding
        assert one.mean().abs() < 0.01


@pytest.mark.parametrize(("prefix", "first_channel"), [("features.", 0), ("", 2)])
def test_torchvisions_file_takes_rgb_and_caffes_bgr(prefix: str, first_channel: int) -> None:
    weights = squeezenet(prefix)
    weights[f"{prefix}0.weight"][:, 1:] = 0
    teacher = Teacher(weights).eval()
    pictures = torch.rand(2, 3, 64, 64)
    for channel in range(3):
        changed = pictures.clone()
        changed[:, channel] = torch.rand(2, 64, 64)
        is_seen = not torch.equal(teacher(changed)[0], teacher(pictures)[0])
        assert is_seen == (channel == first_channel)


def test_pupil_learns_the_features() -> None:
    torch.manual_seed(0)
    learner = Learner(SMALL.widths, Teacher(squeezenet("")).eval())
    pictures = torch.rand(4, 3, 64, 64) * 2 - 1
    optimizer = torch.optim.Adam([weight for weight in learner.parameters() if weight.requires_grad], 1e-2)
    errors = []
    for _ in range(30):
        optimizer.zero_grad()
        _, error = learner(pictures)
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.8 * errors[0]


def test_trained_network_is_the_same_but_for_its_weights(rendered: NDArray[np.uint8], tmp_path: Path) -> None:
    alone = Trainer(rendered[:16], SMALL, 0, Checkpoint(tmp_path / "alone", "test"))
    taught = make_taught(rendered, tmp_path / "taught")
    one, other = (trainer.train_float(lambda _step: None).state_dict() for trainer in (alone, taught))
    assert one.keys() == other.keys()
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])


def test_interrupted_training_with_a_teacher_goes_on(rendered: NDArray[np.uint8], tmp_path: Path) -> None:
    whole = make_taught(rendered, tmp_path / "whole").train_float(lambda _step: None).state_dict()

    def stop(step: int) -> None:
        if step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        make_taught(rendered, tmp_path / "cut").train_float(stop)
    continued = make_taught(rendered, tmp_path / "cut").train_float(lambda _step: None).state_dict()
    assert all(torch.equal(whole[key], continued[key]) for key in whole)


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.pth"
    if content is None:
        torch.save({"0.weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="squeezenet1_1"):
        load_teacher(path)
    with pytest.raises(InputError, match="squeezenet1_1"):
        load_teacher(tmp_path / "missing.pth")


def make_taught(rendered: NDArray[np.uint8], folder: Path) -> Trainer:
    teacher = Teacher(squeezenet("")).eval()
    return Trainer(rendered[:16], SMALL, 0, Checkpoint(folder, "test"), teacher=teacher, save_every_steps=2)


def squeezenet(prefix: str) -> dict[str, Tensor]:
    """Random weights in the layout of SqueezeNet 1.1's features."""
    random = torch.Generator().manual_seed(0)
    shapes = {"0": (64, 3, 3)}
    for index, (channels, squeezed, expanded) in FIRES.items():
        shapes |= {f"{index}.squeeze": (squeezed, channels, 1)}
        shapes |= {f"{index}.expand1x1": (expanded, squeezed, 1), f"{index}.expand3x3": (expanded, squeezed, 3)}
    weights = {}
    for name, (outputs, inputs, kernel_px) in shapes.items():
        weight = torch.randn((outputs, inputs, kernel_px, kernel_px), generator=random)
        weights[f"{prefix}{name}.weight"] = weight * (2 / (inputs * kernel_px**2)) ** 0.5
        weights[f"{prefix}{name}.bias"] = torch.zeros(outputs)
    return weights
