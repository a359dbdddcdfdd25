"""A patch-wise convolutional autoencoder: the reference without adversary that Patch-GANomaly is compared with.

GANomaly's first encoder and decoder alone, trained by the squared error; score of a patch: its mean squared error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from host.bench.detector import Advance, Given, Images, Maps, Pool
from host.bench.ganomaly import make_decoder, make_encoder
from host.bench.net import as_levels, descend, fast_products, run_net, trace, walk_batches
from host.bench.patches import Dense, draw_patches


@dataclass(frozen=True)
class Settings:
    width: int = 32
    latent: int = 64
    epochs: int = 15
    batch: int = 64
    learning_rate: float = 1e-3
    patches_a_picture: int = 50
    stride: int = 8


class Judge(nn.Module):
    """Patches (n, channels, 32, 32) in [0, 1] to their mean squared errors (n, 1, 1, 1)."""

    def __init__(self, channels: int, settings: Settings) -> None:
        super().__init__()
        encoder = make_encoder(channels, settings.width, settings.latent)
        self.coder = nn.Sequential(encoder, make_decoder(channels, settings.width, settings.latent))

    def forward(self, patches: Tensor) -> Tensor:
        made = self.coder(2 * patches - 1)
        error: Tensor = (made.float() - (2 * patches - 1)).square().mean((1, 2, 3), keepdim=True)
        return error


class PatchAutoencoder:
    pools: Pool = "maximum"

    def __init__(self, settings: Settings, given: Given) -> None:
        self.settings, self.given = settings, given
        torch.manual_seed(given.seed)
        self.net = Dense(Judge(given.channels, settings), given.channels, settings.stride)

    def fit(self, goods: Images, advance: Advance) -> None:
        settings = self.settings
        patches = draw_patches(goods, settings.patches_a_picture, np.random.default_rng(self.given.seed))
        optimizer = torch.optim.Adam(self.net.parameters(), settings.learning_rate)
        self.net.train()
        for chosen in walk_batches(len(patches), settings.batch, settings.epochs, self.given.seed, advance):
            with fast_products():
                errors: Tensor = self.net.judge(as_levels(patches[chosen], self.given.channels))
            descend(optimizer, errors.mean())

    def score_map(self, images: Images) -> Maps:
        return run_net(self.net, images, 1)

    def export(self) -> onnx.ModelProto:
        return trace(self.net, self.given.input_px)


build = PatchAutoencoder
