"""An autoencoder in AlexNet's shape, on grey pictures of 227×227 pixels.

Encoder: AlexNet's convolutions and poolings (Krizhevsky et al. 2012), decoder: their mirror image. Trained by SSIM with
Adam at 1e-4, batches of 8, random flips, and early stopping after 10 epochs without progress on a tenth of the good
pictures. The difference map is by SSIM or L2, the difference score its mean. Its source sets the threshold on 30 % of
the labelled test pictures and reports the F-score of the other 70 %: the report's column "F1, 30 % labels".
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from host.bench.detector import Advance, Given, Images, Maps, Pool
from host.bench.losses import dissimilarity, loss_map
from host.bench.net import Levels, as_levels, descend, draw_batches, fast_products, run_net, trace
from protocol.errors import InputError

SMALLEST_PX = 67  # below, the last pooling has nothing left
WATCHED_SHARE = 0.1  # of the good pictures: they say when to stop


@dataclass(frozen=True)
class Settings:
    difference: Literal["ssim", "l2"] = "l2"
    epochs: int = 200  # at most
    batch: int = 8
    learning_rate: float = 1e-4
    patience: int = 10


class AlexCoder(nn.Module):
    """Pictures (n, 1, h, w) in [0, 1] to the same shape, h = w = 67 + 32 k (227 in the source)."""

    def __init__(self, side_px: int) -> None:
        super().__init__()
        if side_px < SMALLEST_PX or (side_px - SMALLEST_PX) % 32:
            raise InputError(f"AlexNet's shape takes pictures of 67 + 32 k pixels (227), not {side_px}")
        first = (side_px - 11) // 4 + 1
        second, third = (first - 3) // 2 + 1, ((first - 3) // 2 - 2) // 2 + 1
        self.encoder = nn.Sequential(
            *_layer(1, 96, 11, stride=4, padding=0),
            nn.MaxPool2d(3, 2),
            *_layer(96, 256, 5),
            nn.MaxPool2d(3, 2),
            *_layer(256, 384, 3),
            *_layer(384, 384, 3),
            *_layer(384, 256, 3),
            nn.MaxPool2d(3, 2),
        )
        self.decoder = nn.Sequential(
            nn.Upsample((third, third)),
            *_layer(256, 384, 3),
            *_layer(384, 384, 3),
            *_layer(384, 256, 3),
            nn.Upsample((second, second)),
            *_layer(256, 96, 5),
            nn.Upsample((first, first)),
            nn.ConvTranspose2d(96, 1, 11, 4),
            nn.Sigmoid(),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.encoder(pictures))
        return made


def _layer(low: int, high: int, kernel_px: int, *, stride: int = 1, padding: int | None = None) -> list[nn.Module]:
    return [nn.Conv2d(low, high, kernel_px, stride, kernel_px // 2 if padding is None else padding), nn.ReLU()]


class Difference(nn.Module):
    """Images int8 (n, 3, h, w) to difference maps (n, 1, h, w)."""

    def __init__(self, coder: AlexCoder, difference: Literal["ssim", "l2"]) -> None:
        super().__init__()
        self.levels, self.coder, self.by = Levels(1), coder, difference

    def forward(self, images: Tensor) -> Tensor:
        pictures = self.levels(images)
        return loss_map(self.coder(pictures), pictures, "ssim" if self.by == "ssim" else "mse")


class AlexAutoencoder:
    pools: Pool = "mean"

    def __init__(self, settings: Settings, given: Given) -> None:
        self.settings, self.given = settings, given
        torch.manual_seed(given.seed)
        self.net = Difference(AlexCoder(given.input_px), settings.difference)

    def fit(self, goods: Images, advance: Advance) -> None:
        rng = np.random.default_rng(self.given.seed)
        order = rng.permutation(len(goods))
        count = max(1, round(len(goods) * WATCHED_SHARE))
        watched, learned = as_levels(goods[order[:count]], 1), goods[order[count:]]
        coder, settings = self.net.coder, self.settings
        optimizer = torch.optim.Adam(coder.parameters(), settings.learning_rate)
        best, best_loss, since = copy.deepcopy(coder.state_dict()), np.inf, 0
        for epoch in range(settings.epochs):
            self._run_epoch(optimizer, learned, rng)
            loss = self._watch(watched)
            since += 1
            if loss < best_loss:
                best, best_loss, since = copy.deepcopy(coder.state_dict()), loss, 0
            if since >= settings.patience:
                break
            advance((epoch + 1) / settings.epochs)
        coder.load_state_dict(best)

    def _run_epoch(self, optimizer: torch.optim.Optimizer, goods: Images, rng: np.random.Generator) -> None:
        self.net.coder.train()
        for chosen in draw_batches(len(goods), self.settings.batch, 1, int(rng.integers(1 << 30))):
            pictures = flip(as_levels(goods[chosen], 1), rng)
            with fast_products():
                loss = dissimilarity(self.net.coder(pictures).float(), pictures).mean()
            descend(optimizer, loss)

    @torch.no_grad()
    def _watch(self, pictures: Tensor) -> float:
        self.net.coder.eval()
        losses = [float(dissimilarity(self.net.coder(one[None]), one[None]).mean()) for one in pictures]
        return float(np.mean(losses))

    def score_map(self, images: Images) -> Maps:
        return run_net(self.net, images, 8)

    def export(self) -> onnx.ModelProto:
        return trace(self.net, self.given.input_px)


def flip(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Each picture upside down or mirrored, or both, or neither."""
    flipped = []
    for picture in pictures:
        axes = [axis for axis in (1, 2) if rng.random() < 0.5]
        flipped.append(picture.flip(axes))
    return torch.stack(flipped)


build = AlexAutoencoder
