"""Patches of pictures, to train on, and dense inference: a network that judges a patch, at every place of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from host.bench.detector import Images
from host.bench.net import Levels

PATCH_PX = 32
JUDGED_AT_ONCE = 1024


class Dense(nn.Module):
    """Images int8 (n, 3, h, w) to scores (n, 1, h / stride, w / stride) of the patches around every stride-th pixel.

    Pictures of any size. At the rim patches see the picture mirrored. `judge` takes patches (n, channels, 32, 32) in
    [0, 1] to scores (n, 1, 1, 1). Every patch is judged as in training, by itself: running the network over the whole
    picture would let its padding and its decoder see what lies around a patch.
    """

    def __init__(self, judge: nn.Module, channels: Literal[1, 3], stride: int) -> None:
        super().__init__()
        self.levels, self.judge, self.stride = Levels(channels), judge, stride

    def forward(self, images: Tensor) -> Tensor:
        count, _, height, width = (int(size) for size in images.shape)
        rows, columns = height // self.stride, width // self.stride
        before = (PATCH_PX - self.stride) // 2
        after = PATCH_PX - self.stride - before
        pictures = functional.pad(self.levels(images), (before, after, before, after), mode="reflect")
        pictures = pictures[:, :, : (rows - 1) * self.stride + PATCH_PX, : (columns - 1) * self.stride + PATCH_PX]
        channels = int(pictures.shape[1])
        patches = functional.unfold(pictures, PATCH_PX, stride=self.stride)  # (n, channels · 32 · 32, places)
        patches = patches.transpose(1, 2).reshape(count * rows * columns, channels, PATCH_PX, PATCH_PX)
        scores = torch.cat([self.judge(some) for some in torch.split(patches, JUDGED_AT_ONCE)])
        return scores.reshape(count, 1, rows, columns)


def draw_patches(images: Images, a_picture: int, rng: np.random.Generator) -> Images:
    """Patches at random places, as many from each picture, (n · a_picture, 32, 32, 3)."""
    chosen = []
    for image in images:
        tops = rng.integers(0, image.shape[0] - PATCH_PX + 1, a_picture)
        lefts = rng.integers(0, image.shape[1] - PATCH_PX + 1, a_picture)
        chosen += [cut(image, int(top), int(left)) for top, left in zip(tops, lefts, strict=True)]
    return np.stack(chosen)


def draw_labelled(
    images: Images, masks: Sequence[NDArray[np.bool_]], a_picture: int, rng: np.random.Generator
) -> tuple[Images, NDArray[np.bool_]]:
    """Patches and whether they are anomalous, which a patch is if its centre is.

    Half of a defective picture's patches are centred on its defects, where a patch fits around.
    """
    patches, labels = [], []
    for image, mask in zip(images, masks, strict=True):
        wrong = resize_mask(mask, image.shape[0])
        inside = wrong[PATCH_PX // 2 : -PATCH_PX // 2 + 1, PATCH_PX // 2 : -PATCH_PX // 2 + 1]
        anomalous = np.argwhere(inside)
        for number in range(a_picture):
            top, left = rng.integers(0, inside.shape[0]), rng.integers(0, inside.shape[1])
            if number % 2 and len(anomalous):
                top, left = anomalous[rng.integers(len(anomalous))]
            patches.append(cut(image, int(top), int(left)))
            labels.append(bool(inside[top, left]))
    return np.stack(patches), np.array(labels, np.bool_)


def cut(image: Images, top: int, left: int) -> Images:
    return image[top : top + PATCH_PX, left : left + PATCH_PX]


def resize_mask(mask: NDArray[np.bool_], side_px: int) -> NDArray[np.bool_]:
    """The nearest pixel."""
    rows, columns = ((np.arange(side_px) + 0.5) * size / side_px for size in mask.shape)
    return np.asarray(mask[rows.astype(int)][:, columns.astype(int)], np.bool_)
