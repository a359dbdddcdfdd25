"""A pretrained network whose features the encoder learns to predict while it trains; nothing of it is exported.

SqueezeNet 1.1 (Iandola et al. 2016), from torchvision's file or from one of its `features` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from protocol.errors import InputError

STRIDES = (4, 8, 16)
LAYERS = (4, 7, 10)  # of SqueezeNet's `features`: the last ones at these strides
CHANNELS = (128, 256, 384)
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128), 9: (256, 48, 192), 10: (384, 48, 192)}
PREFIX = "features."  # in torchvision's file, whose network takes RGB; the converted Caffe file has none and takes BGR
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BGR_MEAN = (104.0, 117.0, 123.0)


class Fire(nn.Module):
    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, source: Tensor) -> Tensor:
        squeezed = self.squeeze(source).relu()
        return torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], 1).relu()


class Teacher(nn.Module):
    """Pictures (n, 3, h, w) RGB, (pixel - 128) / 128, to features at `STRIDES` of `CHANNELS`."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        is_rgb = all(key.startswith(PREFIX) for key in weights if "classifier" not in key)
        mean = [255 * value for value in RGB_MEAN] if is_rgb else BGR_MEAN[::-1]
        scale = [255 * value for value in RGB_STD] if is_rgb else (1.0, 1.0, 1.0)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(scale).reshape(1, 3, 1, 1))
        self.is_rgb = is_rgb
        layers: dict[int, nn.Module] = {0: nn.Conv2d(3, 64, 3, 2), 1: nn.ReLU()}
        layers |= {index: nn.MaxPool2d(3, 2, ceil_mode=True) for index in (2, 5, 8)}
        layers |= {index: Fire(*channels) for index, channels in FIRES.items()}
        self.features = nn.Sequential(*(layers[index] for index in range(len(layers))))
        own = self.features.state_dict()
        self.features.load_state_dict({key: weights[PREFIX + key if is_rgb else key] for key in own})
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> list[Tensor]:
        level = (pictures * 128 + 128 - cast(Tensor, self.mean)) / cast(Tensor, self.scale)
        level = level if self.is_rgb else level.flip(1)
        seen = []
        for index, layer in enumerate(self.features):
            level = layer(level)
            if index in LAYERS:
                seen.append(_standardise(level.float()))
        return seen


class Pupil(nn.Module):
    """Predicts the teacher's features from the encoder's, by linear maps that nobody keeps."""

    def __init__(self, teacher: Teacher, channels: Sequence[int]) -> None:
        """`channels` of the encoder at `STRIDES`."""
        super().__init__()
        self.teacher = teacher
        self.maps = nn.ModuleList(nn.Conv2d(own, its, 1) for own, its in zip(channels, CHANNELS, strict=True))

    def forward(self, pictures: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """Squared error of the predictions, about 1 at the start."""
        errors = []
        for linear, level, features in zip(self.maps, levels, self.teacher(pictures), strict=False):  # not stride 32
            target = functional.interpolate(features, size=level.shape[2:], mode="bilinear", align_corners=False)
            errors.append((linear(level).float() - target).square().mean())
        return torch.stack(errors).mean()


def load_teacher(path: Path) -> Teacher:
    """Raises: InputError if the file is not SqueezeNet 1.1's weights."""
    try:
        weights = torch.load(path, weights_only=True)
        return Teacher(weights).eval()
    except (OSError, UnpicklingError, EOFError, RuntimeError, KeyError, AttributeError, TypeError):
        problem = f"{path} cannot be read or does not hold SqueezeNet 1.1's weights"
        raise InputError(f"{problem}: give --backbone-weights torchvision's squeezenet1_1 file") from None


def _standardise(features: Tensor) -> Tensor:
    """Each channel to mean 0 and deviation 1 within the batch."""
    mean, deviation = features.mean((0, 2, 3), keepdim=True), features.std((0, 2, 3), keepdim=True)
    return (features - mean) / (deviation + 1e-3)
