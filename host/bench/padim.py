"""PaDiM (Defard et al. 2020, arXiv 2011.08785): features of each place of good pictures are one Gaussian.

Three levels of a pretrained network are joined, some channels chosen at random (section III.A); a patch's score is its
Mahalanobis distance to the Gaussian of its place (equation 2), with covariance + 0.01 I (equation 1). The places' own
Gaussians need parts that lie alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from host.bench.detector import Advance, Given, Images, Maps, Pool
from host.bench.features import NetworkName, load_features
from host.bench.net import as_batch, run_net, trace

RIDGE = 0.01
SEEN_AT_ONCE = 8


@dataclass(frozen=True)
class Settings:
    network: NetworkName = "squeezenet1_1"
    channels: int = 100  # of those joined, at random


class Gaussians(nn.Module):
    """Images int8 (n, 3, h, w) to Mahalanobis distances (n, 1, h / 4, w / 4)."""

    def __init__(self, features: nn.Module, chosen: Tensor) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("chosen", chosen)
        self.register_buffer("middles", torch.zeros(0))
        self.register_buffer("whitening", torch.zeros(0))

    def describe(self, images: Tensor) -> Tensor:
        """(n, channels, h', w')."""
        near, *far = self.features(images)
        # subtle: sizes as plain numbers, so that the exported graph does not compute them
        size = (int(near.shape[2]), int(near.shape[3]))
        joined = torch.cat([near, *(functional.interpolate(level, size=size) for level in far)], 1)
        return joined.index_select(1, cast(Tensor, self.chosen))

    def forward(self, images: Tensor) -> Tensor:
        described = self.describe(images)
        height, width = int(described.shape[2]), int(described.shape[3])
        away = described.flatten(2).permute(2, 1, 0) - cast(Tensor, self.middles)[:, :, None]  # (places, channels, n)
        whitened = torch.bmm(cast(Tensor, self.whitening), away)
        return whitened.square().sum(1).sqrt().T.reshape(-1, 1, height, width)


class Padim:
    pools: Pool = "maximum"

    def __init__(self, settings: Settings, given: Given) -> None:
        self.settings, self.given = settings, given
        features = load_features(settings.network, given.weights, levels=3)
        probe = torch.zeros(1, 3, given.input_px, given.input_px, dtype=torch.int8)
        with torch.no_grad():
            available = sum(int(level.shape[1]) for level in features(probe))
        rng = np.random.default_rng(given.seed)
        chosen = np.sort(rng.permutation(available)[: settings.channels])
        self.net = Gaussians(features, torch.from_numpy(chosen.copy())).eval()

    @torch.no_grad()
    def fit(self, goods: Images, advance: Advance) -> None:
        parts = []
        for start in range(0, len(goods), SEEN_AT_ONCE):
            parts.append(self.net.describe(as_batch(goods[start : start + SEEN_AT_ONCE])).flatten(2))
            advance(0.5 * start / len(goods))
        described = torch.cat(parts).permute(2, 0, 1)  # (places, n, channels)
        middles = described.mean(1)
        self.net.middles, self.net.whitening = middles, torch.empty(len(middles), *[middles.shape[1]] * 2)
        for place, samples in enumerate(described):
            self.net.whitening[place] = _whiten((samples - middles[place]).double()).float()
            advance(0.5 + 0.5 * place / len(middles))

    def score_map(self, images: Images) -> Maps:
        return run_net(self.net, images, SEEN_AT_ONCE)

    def export(self) -> onnx.ModelProto:
        return trace(self.net, self.given.input_px)


def _whiten(away: Tensor) -> Tensor:
    """W with |W x|² = xᵀ C⁻¹ x, of samples (n, channels) less their mean: the inverse of C's Cholesky factor."""
    covariance = away.T @ away / (len(away) - 1) + RIDGE * torch.eye(away.shape[1], dtype=away.dtype)
    factor = torch.linalg.cholesky(covariance)
    whitening: Tensor = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).double(), upper=False)
    return whitening


build = Padim
