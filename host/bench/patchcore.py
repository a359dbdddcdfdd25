"""PatchCore (Roth et al. 2022, arXiv 2106.08265), as host/large/patchcore.py has it, on any of the backbones.

A picture's score is its highest patch; the paper's reweighting by the neighbourhood (equation 7) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from host.bench.detector import Advance, Given, Images, Maps, Pool
from host.bench.features import NetworkName, load_features
from host.bench.net import run_net, trace
from host.large.patchcore import PatchCore, choose_coreset, sample_patches
from host.learning.backbone import Backbone

SEEN_AT_ONCE = 4


@dataclass(frozen=True)
class Settings:
    network: NetworkName = "squeezenet1_1"
    bank: int = 2000  # patches that are remembered


class Distances(nn.Module):
    """Images int8 (n, 3, h, w) to distances (n, 1, h / 8, w / 8) to the nearest patch remembered."""

    def __init__(self, model: PatchCore) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.distances(images)


class BankOfPatches:
    pools: Pool = "maximum"

    def __init__(self, settings: Settings, given: Given) -> None:
        self.settings, self.given = settings, given
        # host/large/patchcore.py asks for any module that gives two levels
        self.backbone = cast(Backbone, load_features(settings.network, given.weights, levels=2))

    @torch.no_grad()
    def fit(self, goods: Images, advance: Advance) -> None:
        patches = sample_patches(self.backbone, goods, np.random.default_rng(self.given.seed))
        advance(0.5)
        chosen = choose_coreset(patches, self.settings.bank, self.given.seed)
        self.net = Distances(PatchCore(self.backbone, patches[chosen])).eval()
        del self.backbone  # the network holds it now

    def score_map(self, images: Images) -> Maps:
        return run_net(self.net, images, SEEN_AT_ONCE)

    def export(self) -> onnx.ModelProto:
        return trace(self.net, self.given.input_px)


build = BankOfPatches
