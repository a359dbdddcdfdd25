"""Conv-Processing: one convolution, learned on a few labelled score maps and masks, after Patch- or TL-GANomaly.

PG-Detector and TL-Detector. The constant filter that they are compared with is a mean of the same size. A map is
standardised by the good pictures' mean and deviation first; the convolution learns by binary cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from host.bench import patch_ganomaly
from host.bench.detector import Advance, Given, Images, Labelled, Maps, MissingError, Pool
from host.bench.net import descend, run_net, trace
from host.bench.patch_ganomaly import PatchGanomaly
from host.bench.patches import resize_mask

SHARE_OF_FIT = 0.9  # of the work: what the generator takes


@dataclass(frozen=True)
class Settings(patch_ganomaly.Settings):
    learned: bool = True  # False: the constant filter
    kernel: int = 5  # map pixels
    steps: int = 300
    rate: float = 0.02  # of the convolution
    labelled: int = 12  # pictures at most: "a few"


class Processed(nn.Module):
    """Images int8 to maps (n, 1, h', w')."""

    def __init__(self, scores: nn.Module, kernel: int) -> None:
        super().__init__()
        self.scores = scores
        self.conv = nn.Conv2d(1, 1, kernel, padding=kernel // 2, padding_mode="replicate")
        self.register_buffer("middle", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        nn.init.constant_(self.conv.weight, 1 / kernel**2)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        return self.process(self.scores(images))

    def process(self, scores: Tensor) -> Tensor:
        processed: Tensor = self.conv((scores - cast(Tensor, self.middle)) / cast(Tensor, self.deviation))
        return processed


class Detector:
    pools: Pool = "maximum"

    def __init__(self, settings: Settings, given: Given) -> None:
        self.settings, self.given = settings, given
        self.scorer = PatchGanomaly(settings, given)
        self.net = Processed(self.scorer.net, settings.kernel)
        self.labelled: Labelled | None = None

    def teach(self, labelled: Labelled) -> None:
        """Keeps a few for `fit`. Raises: MissingError without masks."""
        if not self.settings.learned:
            return
        if not labelled.masks:
            raise MissingError("a learned filter needs masks of the defects: this data has none")
        marked = [index for index, mask in enumerate(labelled.masks) if mask.any() or not labelled.defective[index]]
        order = np.random.default_rng(self.given.seed).permutation(marked)[: self.settings.labelled]
        masks = [labelled.masks[int(index)] for index in order]
        self.labelled = Labelled(labelled.images[order], labelled.defective[order], masks)

    def fit(self, goods: Images, advance: Advance) -> None:
        self.scorer.fit(goods, lambda share: advance(SHARE_OF_FIT * share))
        usual = self.scorer.score_map(goods[:32])
        self.net.middle, self.net.deviation = torch.tensor(usual.mean()), torch.tensor(usual.std() + 1e-12)
        if self.labelled is not None:
            self._learn(self.labelled, advance)
            self.labelled = None

    def _learn(self, labelled: Labelled, advance: Advance) -> None:
        scores = torch.from_numpy(self.scorer.score_map(labelled.images))[:, None]
        masks = np.stack([resize_mask(mask, int(scores.shape[2])) for mask in labelled.masks])
        truth = torch.from_numpy(masks.astype(np.float32))[:, None]
        learn_filter(self.net, scores, truth, self.settings)
        advance(1.0)

    def score_map(self, images: Images) -> Maps:
        return run_net(self.net, images, 1)

    def export(self) -> onnx.ModelProto:
        return trace(self.net, self.given.input_px)


def learn_filter(net: Processed, scores: Tensor, truth: Tensor, settings: Settings) -> None:
    """Score maps and masks float32 (n, 1, h', w')."""
    # defects are few pixels: without weight the answer "nothing" is hard to beat
    weight = (truth.numel() - truth.sum()) / truth.sum().clamp(min=1)
    optimizer = torch.optim.Adam(net.conv.parameters(), settings.rate)
    for _ in range(settings.steps):
        descend(optimizer, functional.binary_cross_entropy_with_logits(net.process(scores), truth, pos_weight=weight))


build = Detector
