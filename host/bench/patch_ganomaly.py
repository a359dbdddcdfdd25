"""Patch-GANomaly and TL-GANomaly: GANomaly on patches of 32×32 pixels, and dense inference on pictures of any size.

N patches of each good picture train it; a patch is anomalous if its centre is. TL-GANomaly's first encoder is VGG16
(Simonyan and Zisserman 2015) pretrained on ImageNet, cut off after its third block and adapted to the latent by one
convolution; only that convolution is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from host.bench import ganomaly
from host.bench.detector import Advance, Given, Images, Maps, MissingError, Pool
from host.bench.ganomaly import Generator, Trainer, latent_distance
from host.bench.net import run_net, trace
from host.bench.patches import Dense, draw_patches
from host.learning.backbone import RGB, import_torchvision
from protocol.errors import InputError

VGG16_LAYERS, VGG16_CHANNELS = 17, 256  # up to the third pooling: 4 × 4 of a patch of 32 × 32


@dataclass(frozen=True)
class Settings(ganomaly.Settings):
    encoder: Literal["dcgan", "vgg16"] = "dcgan"
    patches_a_picture: int = 50
    stride: int = 8


class TruncatedVgg(nn.Module):
    """Patches (n, channels, 32, 32) in -1..1 to (n, latent, 1, 1)."""

    def __init__(self, path: Path, latent: int) -> None:
        super().__init__()
        self.features = load_vgg16(path)
        self.adapter = nn.Conv2d(VGG16_CHANNELS, latent, 4, bias=False)
        self.register_buffer("mean", torch.tensor(RGB.mean).reshape(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(RGB.deviation).reshape(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        levels = (pictures + 1) * 127.5
        code: Tensor = self.adapter(self.features((levels - cast(Tensor, self.mean)) / cast(Tensor, self.deviation)))
        return code


def load_vgg16(path: Path) -> nn.Module:
    """The first three blocks, frozen. Raises: InputError for a file that does not hold them."""
    features = import_torchvision().models.vgg16().features[:VGG16_LAYERS]
    try:
        stored = torch.load(path, weights_only=True)
        wanted = features.state_dict()
        features.load_state_dict({key: stored[f"features.{key}"] for key in wanted})
    except (OSError, UnpicklingError, EOFError, RuntimeError, KeyError, TypeError):
        raise InputError(f"{path} does not hold the weights of vgg16: give torchvision's file") from None
    return cast(nn.Module, features.eval().requires_grad_(False))


class Judge(nn.Module):
    """Patches (n, channels, 32, 32) in [0, 1] to the length of z − z′ (n, 1, 1, 1)."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, patches: Tensor) -> Tensor:
        return latent_distance(self.generator, 2 * patches - 1)


class PatchGanomaly:
    pools: Pool = "maximum"

    def __init__(self, settings: Settings, given: Given) -> None:
        self.settings, self.given = settings, given
        torch.manual_seed(given.seed)
        first, channels = None, given.channels
        if settings.encoder == "vgg16":
            path = given.weights.find("vgg16")
            if path is None:
                raise MissingError(given.weights.explain("vgg16"))
            first, channels = TruncatedVgg(path, settings.latent), 3
        self.channels: Literal[1, 3] = channels
        generator = Generator(channels, settings.width, settings.latent, first)
        self.net = Dense(Judge(generator), channels, settings.stride)
        self.generator = generator

    def fit(self, goods: Images, advance: Advance) -> None:
        patches = draw_patches(goods, self.settings.patches_a_picture, np.random.default_rng(self.given.seed))
        Trainer(self.generator, self.channels, self.settings).learn(patches, self.given.seed, advance)

    def score_map(self, images: Images) -> Maps:
        return run_net(self.net, images, 1)

    def export(self) -> onnx.ModelProto:
        return trace(self.net, self.given.input_px)


build = PatchGanomaly
