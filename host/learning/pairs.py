"""What a training step sees: good parts, and the same parts with synthetic defects and their labels.

Each step draws from a generator of its own (seed and step), so that a training that was interrupted and goes on sees
the same pictures as one that was not.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from board.preprocess import BLANK, as_input
from host.learning.augmentation import Variation, vary
from host.learning.network import MAP_STRIDE_PX
from host.learning.synthetic import Sources, add_defects
from host.learning.textures import Floats, make_bank
from host.learning.traits import find_traits

DEFECT_SHARE = 0.25  # of a map pixel's 4 × 4 image pixels; from here on the map pixel is a defect
OUTLINE_SIGMA = 1.5  # map pixels: people outline the same defect differently by as much
SOFT_RIM = 0.1  # cells that are this near to a defect are decided, however faint

Images = NDArray[np.uint8]
Batch = tuple[Images, Floats]


class Pairs(Dataset[Batch]):
    """Endless batches from good pictures, uint8 (n, h, w, 3)."""

    def __init__(
        self, goods: Images, variation: Variation, pairs: int, seed: int, ignored: NDArray[np.bool_] | None = None
    ) -> None:
        """`ignored` (h, w): pixels that are blank in every picture."""
        self._ignored = ignored
        self._goods, self._variation, self._pairs, self._seed = goods, variation, pairs, seed
        self._parts = find_traits(goods).parts
        self._sources = Sources(make_bank(seed), goods)

    def __getitem__(self, step: int) -> Batch:
        """Pictures (2 · pairs, h, w, 3), good ones first, and labels (pairs, h / 4, w / 4) of the defective ones.

        Labels: 1 defect, 0 good, between them how likely a person would outline the pixel too, NaN undecided. Negative
        steps are for calibration.
        """
        rng = np.random.default_rng([self._seed, step % (1 << 32)])
        chosen = rng.integers(0, len(self._goods), self._pairs)
        goods, defects, labels = zip(*(self._draw_pair(int(index), rng) for index in chosen), strict=True)
        return np.stack([*goods, *defects]), np.stack(labels)

    def _draw_pair(self, index: int, rng: np.random.Generator) -> tuple[Images, Images, Floats]:
        picture = self._goods[index].astype(np.float32) / 255
        picture, part = vary(picture, self._parts[index], self._variation, rng)
        changed, label = add_defects(picture, part if part.any() else np.ones_like(part), self._sources, rng)
        return self._blank(_as_image(picture)), self._blank(_as_image(changed)), shrink_label(self._forget(label))

    def _blank(self, picture: Images) -> Images:
        if self._ignored is not None:
            picture[self._ignored] = BLANK
        return picture

    def _forget(self, label: Floats) -> Floats:
        """Nothing is a defect where nobody looks."""
        return label if self._ignored is None else np.where(self._ignored, np.float32(0), label)


def as_pictures(images: Images) -> Tensor:
    """The network's input in float: what the integers stand for, float32 (n, 3, h, w) in -1..1."""
    integers = np.concatenate([as_input(image) for image in images])
    return torch.from_numpy(integers).float().div_(128).contiguous(memory_format=torch.channels_last)


def shrink_label(label: Floats) -> Floats:
    """To the map's resolution; the likelihood falls softly around a defect, elsewhere a doubtful cell is undecided."""
    cells = label.reshape(label.shape[0] // MAP_STRIDE_PX, MAP_STRIDE_PX, -1, MAP_STRIDE_PX)
    defect = ((cells == 1).mean((1, 3)) >= DEFECT_SHARE).astype(np.float32)
    clean = (cells == 0).all((1, 3))
    near = np.maximum(defect, cv2.GaussianBlur(defect, (0, 0), OUTLINE_SIGMA))
    return np.where(clean | (near > SOFT_RIM), near, np.nan).astype(np.float32)


def _as_image(picture: Floats) -> Images:
    return np.round(picture * 255).astype(np.uint8)
