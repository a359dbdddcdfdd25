"""Self-supervised: a network that tells intact pictures from pasted polygons and lines knows what intact looks like.

ResNet-18 (He et al. 2016), features of its layers 2 to 4 pooled and joined, a projection head, and a classifier of the
pretext's three classes (pretext.py). The score is the mean cosine distance of the projection to the 3 nearest of good
pictures'. Level "image": the whole picture is one vector, and Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) says
where; level "patch": patches of 32×32 pixels every 8, each against patches of good pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from host.bench.detector import Advance, Given, Images, Maps, MissingError, Pool
from host.bench.net import as_levels, count_batches, descend, fast_products, run_net, trace, walk_batches
from host.bench.patches import PATCH_PX, Dense, draw_patches
from host.bench.pretext import INTACT, draw_triplet
from host.learning.backbone import RGB, import_torchvision
from protocol.errors import InputError

NEAREST = 3
FEATURES, LAST_FEATURES = 128 + 256 + 512, 512
SEEN_AT_ONCE = 32


@dataclass(frozen=True)
class Settings:
    level: Literal["image", "patch"] = "image"
    pretrained: bool = True  # False: trained from scratch by the pretext alone
    hidden: int = 512
    projection: int = 128
    epochs: int = 30
    batch: int = 32  # good pictures; each gives three
    learning_rate: float = 0.03
    patches_a_picture: int = 20
    stride: int = 8


class Pretext(nn.Module):
    """Pictures (n, 3, h, w) in [0, 1]."""

    def __init__(self, trunk: Any, settings: Settings) -> None:
        super().__init__()
        self.stem = nn.Sequential(trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool, trunk.layer1)
        self.layers = nn.ModuleList([trunk.layer2, trunk.layer3, trunk.layer4])
        self.widen = nn.Linear(FEATURES, settings.hidden)
        self.project = nn.Linear(settings.hidden, settings.projection)
        self.classify = nn.Linear(settings.projection, 3)
        self.register_buffer("mean", torch.tensor(RGB.mean).reshape(1, 3, 1, 1) / 255)
        self.register_buffer("deviation", torch.tensor(RGB.deviation).reshape(1, 3, 1, 1) / 255)

    def describe(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The last layer's features (n, 512, h', w'), what the head's first layer gives (n, hidden), the projection."""
        features = self.stem((pictures - cast(Tensor, self.mean)) / cast(Tensor, self.deviation))
        pooled = []
        for layer in self.layers:
            features = layer(features)
            pooled.append(features.mean((2, 3)))
        wide = functional.relu(self.widen(torch.cat(pooled, 1)))
        return features, wide, self.project(wide)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits (n, 3)."""
        logits: Tensor = self.classify(self.describe(pictures)[2])
        return logits

    def explain(self, features: Tensor, wide: Tensor) -> Tensor:
        """Grad-CAM of "not intact" on the last layer, (n, 1, h', w'), not negative.

        The head is two layers and a ReLU, so its gradient is written out, and the exported graph has it too.
        """
        against = (self.classify.weight.sum(0) - (1 + 2) * self.classify.weight[INTACT]) / 2  # mean of two minus one
        at_hidden = (against @ self.project.weight) * (wide > 0).float()
        gradient = (at_hidden @ self.widen.weight)[:, -LAST_FEATURES:]
        return functional.relu((features * gradient[:, :, None, None]).sum(1, keepdim=True))


class Bank(nn.Module):
    """Mean cosine distance of vectors (n, d) to the nearest of those remembered, (n,)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("remembered", torch.zeros(0))

    def forward(self, vectors: Tensor) -> Tensor:
        likeness = functional.normalize(vectors) @ cast(Tensor, self.remembered).T
        nearest = min(NEAREST, int(cast(Tensor, self.remembered).shape[0]))
        distances: Tensor = 1 - likeness.topk(nearest, 1).values.mean(1)
        return distances


class OfPicture(nn.Module):
    """Images int8 to Grad-CAM maps (n, 1, h / 32, w / 32) whose maximum is the picture's score."""

    def __init__(self, pretext: Pretext, bank: Bank) -> None:
        super().__init__()
        self.pretext, self.bank = pretext, bank

    def forward(self, images: Tensor) -> Tensor:
        features, wide, vectors = self.pretext.describe((images.float() + 128) / 255)
        cam = self.pretext.explain(features, wide) + 1e-12  # where nothing speaks against intact, all places alike
        scores: Tensor = self.bank(vectors)[:, None, None, None]
        return cam / cam.amax((2, 3), keepdim=True) * scores


class OfPatch(nn.Module):
    """Patches (n, 3, 32, 32) in [0, 1] to scores (n, 1, 1, 1)."""

    def __init__(self, pretext: Pretext, bank: Bank) -> None:
        super().__init__()
        self.pretext, self.bank = pretext, bank

    def forward(self, patches: Tensor) -> Tensor:
        scores: Tensor = self.bank(self.pretext.describe(patches)[2])
        return scores[:, None, None, None]


class SelfSupervised:
    pools: Pool = "maximum"

    def __init__(self, settings: Settings, given: Given) -> None:
        self.settings, self.given = settings, given
        torch.manual_seed(given.seed)
        trunk = import_torchvision().models.resnet18()
        if settings.pretrained:
            path = given.weights.find("resnet18")
            if path is None:
                raise MissingError(given.weights.explain("resnet18") + f"; ssl-{settings.level}-scratch needs none")
            load_resnet18(trunk, path)
        self.pretext, self.bank = Pretext(trunk, settings), Bank()
        if settings.level == "image":
            self.net: nn.Module = OfPicture(self.pretext, self.bank)
        else:
            self.net = Dense(OfPatch(self.pretext, self.bank), 3, settings.stride)

    def fit(self, goods: Images, advance: Advance) -> None:
        rng = np.random.default_rng(self.given.seed)
        seen = goods if self.settings.level == "image" else draw_patches(goods, self.settings.patches_a_picture, rng)
        self._train(seen, rng, advance)
        self.bank.remembered = functional.normalize(torch.from_numpy(self._describe(seen)))

    def _train(self, goods: Images, rng: np.random.Generator, advance: Advance) -> None:
        settings = self.settings
        steps = settings.epochs * count_batches(len(goods), settings.batch)
        # CutPaste's: momentum 0.9, weight decay 3e-5, a learning rate that falls as a cosine
        optimizer = torch.optim.SGD(self.pretext.parameters(), settings.learning_rate, 0.9, weight_decay=3e-5)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        self.pretext.train()
        for chosen in walk_batches(len(goods), settings.batch, settings.epochs, self.given.seed, advance):
            triplets = np.concatenate([draw_triplet(goods[index], rng) for index in chosen])
            with fast_products():
                logits = self.pretext(as_levels(triplets, 3))
            descend(optimizer, functional.cross_entropy(logits.float(), torch.arange(3).repeat(len(chosen))))
            schedule.step()

    @torch.no_grad()
    def _describe(self, images: Images) -> NDArray[np.float32]:
        """Projections (n, d)."""
        self.pretext.eval()
        parts = [
            self.pretext.describe(as_levels(images[start : start + SEEN_AT_ONCE], 3))[2].numpy()
            for start in range(0, len(images), SEEN_AT_ONCE)
        ]
        return np.asarray(np.concatenate(parts), np.float32)

    def embed(self, images: Images) -> NDArray[np.float32]:
        """Projections (n, d): of the whole picture, or of the patch at its centre."""
        if self.settings.level == "image":
            return self._describe(images)
        start = (images.shape[1] - PATCH_PX) // 2
        return self._describe(images[:, start : start + PATCH_PX, start : start + PATCH_PX])

    def score_map(self, images: Images) -> Maps:
        return run_net(self.net, images, 8 if self.settings.level == "image" else 1)

    def export(self) -> onnx.ModelProto:
        return trace(self.net, self.given.input_px)


def load_resnet18(trunk: nn.Module, path: Path) -> None:
    """Raises: InputError for a file that does not hold the weights."""
    try:
        missing, unknown = trunk.load_state_dict(torch.load(path, weights_only=True), strict=False)
    except (OSError, UnpicklingError, EOFError, RuntimeError, AttributeError, TypeError):
        missing, unknown = ["all"], []
    if unknown or not all(key.startswith("fc.") for key in missing):
        raise InputError(f"{path} does not hold the weights of resnet18: give torchvision's file")


build = SelfSupervised
