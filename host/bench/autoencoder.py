"""Autoencoders of good pictures: what they cannot reconstruct is anomalous.

mlp   multilayer perceptron (Hinton and Salakhutdinov 2006)
conv  strided convolutions and their transposes (Masci et al. 2011)
vae   the same, variational (Kingma and Welling 2014, equation 10); judged by the latent's mean
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast, get_args

import onnx
import torch
from torch import Tensor, nn

from host.bench.detector import Advance, Given, Images, Maps, Pool
from host.bench.losses import LOSSES, LossName, loss_map
from host.bench.net import Levels, as_levels, descend, fast_products, run_net, trace, walk_batches
from protocol.errors import InputError

Shape = Literal["mlp", "conv", "vae"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
STRIDE = 8  # of the convolutional encoder in all
__all__ = ["LOSSES", "SHAPES", "Settings", "build"]


@dataclass(frozen=True)
class Settings:
    shape: Shape = "conv"
    loss: LossName = "mse"
    latent: int = 32
    width: int = 32  # channels of the first convolution; hidden units of the perceptron are 16 times as many
    epochs: int = 50
    least_steps: int = 800  # few pictures are shown more often
    batch: int = 128
    learning_rate: float = 1e-3
    divergence: float = 1e-3  # weight of the variational one's Kullback–Leibler term, per pixel value


class Coder(nn.Module):
    """Pictures (n, c, h, w) in [0, 1] to the same shape, and the latent's mean and log of variance (n, latent)."""

    def __init__(self, settings: Settings, channels: int, side_px: int) -> None:
        super().__init__()
        self.is_variational = settings.shape == "vae"
        twice = 2 if self.is_variational else 1
        if settings.shape == "mlp":
            encoder, decoder = _perceptron(settings, (channels, side_px, side_px))
        else:
            encoder, decoder = _convolutions(settings, channels, side_px, twice)
        self.encoder, self.decoder = encoder, decoder

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        code = self.encoder(pictures)
        mean, log_variance = code.chunk(2, 1) if self.is_variational else (code, torch.zeros_like(code))
        latent = mean
        if self.is_variational and self.training:
            latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return self.decoder(latent), mean, log_variance


def _perceptron(settings: Settings, shape: tuple[int, int, int]) -> tuple[nn.Sequential, nn.Sequential]:
    values, wide, narrow = shape[0] * shape[1] * shape[2], 16 * settings.width, 4 * settings.width
    down = (values, wide, narrow, settings.latent)
    encoder: list[nn.Module] = [nn.Flatten()]
    for low, high in pairwise(down):
        encoder += [nn.Linear(low, high), nn.ReLU()]
    decoder: list[nn.Module] = []
    for low, high in pairwise(down[::-1]):
        decoder += [nn.Linear(low, high), nn.ReLU()]
    return nn.Sequential(*encoder[:-1]), nn.Sequential(*decoder[:-1], nn.Sigmoid(), nn.Unflatten(1, shape))


def _convolutions(settings: Settings, channels: int, side_px: int, twice: int) -> tuple[nn.Sequential, nn.Sequential]:
    widths = (settings.width, 2 * settings.width, 4 * settings.width)
    side = side_px // STRIDE
    encoder: list[nn.Module] = []
    for low, high in zip((channels, *widths), widths, strict=False):
        encoder += [nn.Conv2d(low, high, 4, 2, 1, bias=False), nn.BatchNorm2d(high), nn.LeakyReLU(0.2)]
    decoder: list[nn.Module] = [
        nn.Linear(settings.latent, widths[-1] * side * side),
        nn.Unflatten(1, (widths[-1], side, side)),
    ]
    for low, high in ((widths[2], widths[1]), (widths[1], widths[0])):
        decoder += [nn.BatchNorm2d(low), nn.LeakyReLU(0.2), nn.ConvTranspose2d(low, high, 4, 2, 1, bias=False)]
    decoder += [nn.BatchNorm2d(widths[0]), nn.LeakyReLU(0.2), nn.ConvTranspose2d(widths[0], channels, 4, 2, 1)]
    code = nn.Linear(widths[-1] * side * side, twice * settings.latent)
    return nn.Sequential(*encoder, nn.Flatten(), code), nn.Sequential(*decoder, nn.Sigmoid())


class Judge(nn.Module):
    """Images int8 to maps of the loss (n, 1, h, w)."""

    def __init__(self, coder: Coder, loss: LossName, channels: Literal[1, 3]) -> None:
        super().__init__()
        self.levels, self.coder, self.loss = Levels(channels), coder, loss

    def forward(self, images: Tensor) -> Tensor:
        pictures = self.levels(images)
        return loss_map(self.coder(pictures)[0], pictures, self.loss)


class Autoencoder:
    pools: Pool = "mean"  # the loss itself
    is_stepwise = True

    def __init__(self, settings: Settings, given: Given) -> None:
        if given.input_px % STRIDE:
            raise InputError(f"autoencoders take pictures of a multiple of {STRIDE} pixels, not {given.input_px}")
        self.settings, self.given = settings, given
        torch.manual_seed(given.seed)
        self.net = Judge(Coder(settings, given.channels, given.input_px), settings.loss, given.channels)

    def fit(self, goods: Images, advance: Advance) -> None:
        settings, coder = self.settings, self.net.coder
        optimizer = torch.optim.Adam(coder.parameters(), settings.learning_rate)
        seed, least = self.given.seed, settings.least_steps
        for chosen in walk_batches(len(goods), settings.batch, settings.epochs, seed, advance, least_steps=least):
            coder.train()
            pictures = as_levels(goods[chosen], self.given.channels)
            with fast_products():
                loss = total_loss(coder, pictures, settings)
            descend(optimizer, loss)

    def score_map(self, images: Images) -> Maps:
        return run_net(self.net, images, 128)

    def export(self) -> onnx.ModelProto:
        return trace(self.net, self.given.input_px)


def total_loss(coder: Coder, pictures: Tensor, settings: Settings) -> Tensor:
    """Reconstruction, and of the variational one the divergence of its latent from a standard normal one."""
    made, mean, log_variance = (part.float() for part in coder(pictures))
    loss = loss_map(made, pictures, settings.loss).mean()
    if not coder.is_variational:
        return loss
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
    return cast(Tensor, loss + settings.divergence * divergence)


build = Autoencoder
