"""A patch-wise supervised network: the reference that Patch-GANomaly is compared with where labels exist.

Patches of labelled pictures, anomalous if their centre is, binary cross-entropy; good pictures give more good patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from host.bench.detector import Advance, Given, Images, Labelled, Maps, MissingError, Pool
from host.bench.ganomaly import make_encoder
from host.bench.net import as_levels, descend, fast_products, run_net, trace, walk_batches
from host.bench.patches import Dense, draw_labelled, draw_patches

LABELLED_TIMES = 8  # as many patches of a labelled picture as of a good one: labelled pictures are few


@dataclass(frozen=True)
class Settings:
    width: int = 32
    epochs: int = 15
    batch: int = 64
    learning_rate: float = 1e-3
    patches_a_picture: int = 20
    stride: int = 8


class PatchCnn:
    pools: Pool = "maximum"

    def __init__(self, settings: Settings, given: Given) -> None:
        self.settings, self.given = settings, given
        torch.manual_seed(given.seed)
        self.net = Dense(make_encoder(given.channels, settings.width, 1), given.channels, settings.stride)

    def teach(self, labelled: Labelled) -> None:
        """Raises: MissingError without masks."""
        if not labelled.masks:
            raise MissingError("a supervised patch network needs masks of the defects: this data has none")
        known = [index for index, mask in enumerate(labelled.masks) if mask.any() or not labelled.defective[index]]
        masks = [labelled.masks[index] for index in known]
        rng = np.random.default_rng(self.given.seed)
        a_picture = LABELLED_TIMES * self.settings.patches_a_picture
        self.patches, self.labels = draw_labelled(labelled.images[known], masks, a_picture, rng)

    def fit(self, goods: Images, advance: Advance) -> None:
        settings = self.settings
        good = draw_patches(goods, settings.patches_a_picture, np.random.default_rng(self.given.seed + 1))
        patches = np.concatenate([self.patches, good])
        labels = torch.from_numpy(np.concatenate([self.labels, np.zeros(len(good), np.bool_)])).float()
        del self.patches, self.labels
        weight = (len(labels) - labels.sum()) / labels.sum().clamp(min=1)
        optimizer = torch.optim.Adam(self.net.parameters(), settings.learning_rate)
        self.net.train()
        for chosen in walk_batches(len(patches), settings.batch, settings.epochs, self.given.seed, advance):
            with fast_products():
                logits: Tensor = self.net.judge(as_levels(patches[chosen], self.given.channels)).flatten().float()
            descend(optimizer, functional.binary_cross_entropy_with_logits(logits, labels[chosen], pos_weight=weight))

    def score_map(self, images: Images) -> Maps:
        return run_net(self.net, images, 1)

    def export(self) -> onnx.ModelProto:
        return trace(self.net, self.given.input_px)


build = PatchCnn
