"""Where the part is, without labels: everything that a flat background around the picture's rim does not reach."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

RIM_PX = 3
RIM_AGREES = 0.45  # below this share the rim shows no one background: a texture, or a part that fills the picture
COLOUR_TOLERANCE = 22  # of 255, largest channel difference to the background colour
SMALLEST_PART = 0.04  # of the picture; less means that the "background" is the part's own surface
LARGEST_PART = 0.97

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]


def find_object(image: Image, smallest: float = SMALLEST_PART) -> Mask:
    """uint8 (h, w), 1 on the part, from an image uint8 (h, w, 3); all ones where no background is found.

    `smallest`: the least share of the picture that a part has.
    """
    background = _rim_colour(image)
    if background is None:
        return np.ones(image.shape[:2], np.uint8)
    part = _unreached_from_rim(np.abs(image.astype(np.int16) - background).max(axis=2) <= COLOUR_TOLERANCE)
    if not smallest <= float(part.mean()) <= LARGEST_PART:
        return np.ones(image.shape[:2], np.uint8)
    return part


def _unreached_from_rim(alike: NDArray[np.bool_]) -> Mask:
    """Holes in the part stay part: what is alike but not connected to the rim lies inside it."""
    labels = cv2.connectedComponents(alike.astype(np.uint8), connectivity=4)[1]
    rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    part = np.isin(labels, rim[rim > 0], invert=True).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(part, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)


def _rim_colour(image: Image) -> NDArray[np.int16] | None:
    """The rim's commonest colour, int16 (3,), or None where the rim agrees on none."""
    strips = (image[:RIM_PX], image[-RIM_PX:], image[:, :RIM_PX], image[:, -RIM_PX:])
    pixels = np.concatenate([strip.reshape(-1, 3) for strip in strips]).astype(np.int16)
    bins = pixels // 16
    codes = (bins[:, 0] * 16 + bins[:, 1]) * 16 + bins[:, 2]
    commonest = np.median(pixels[codes == np.bincount(codes).argmax()], axis=0)
    agrees = np.abs(pixels - commonest).max(axis=1) <= COLOUR_TOLERANCE
    if agrees.mean() < RIM_AGREES:
        return None
    return np.asarray(np.median(pixels[agrees], axis=0), np.int16)
