"""From a frame to the network's image, in integers only: part of the integer truth.

A frame of another size is fitted where the manifest says how. Then a crop, an exact box reduction by a whole factor, a
bilinear resize with 8-bit weights, and blank pixels where nobody is to look. NumPy alone, no floating point in the
pixel path: the same bytes on every processor and library version.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError
from protocol.manifest import Preprocess

Image = NDArray[np.uint8]
WEIGHT_BITS = 8
BLANK = 128  # what pixels that are not looked at show: zero to the network


def preprocess(frame: Image, how: Preprocess) -> Image:
    """The network's image, uint8 (h, w, 3) RGB C-contiguous, from a frame uint8 (H, W, 3) RGB.

    Raises: InputError if the frame is not of the size the model was trained on.
    """
    frame = fit_frame(frame, how)
    top, left, height, width = how.crop_px
    crop = frame[top : top + height, left : left + width]
    image = shrink(crop, how.input_px)
    if how.ignored:
        image = image.copy()  # subtle: it may be the frame itself
        image.reshape(-1, 3)[list_ignored(how.ignored)] = BLANK
    return image


def fit_frame(frame: Image, how: Preprocess) -> Image:
    """uint8 (H, W, 3) of the size the crop refers to. Raises: InputError if such frames are not taken."""
    if frame.shape == (*how.frame_px, 3):
        return frame
    if frame.ndim != 3 or frame.shape[2] != 3 or not how.takes(frame.shape[:2]):
        raise InputError(
            f"frame is {_size(frame.shape)}, the model expects {_size(how.frame_px)}: "
            "set the camera to that size, or export a model from such frames"
        )
    top, left, height, width = place_frame(frame.shape[:2], how)
    below, right = how.frame_px[0] - top - height, how.frame_px[1] - left - width
    inner = shrink(frame, (height, width))
    return np.pad(inner, ((top, below), (left, right), (0, 0)), mode="edge")


def place_frame(size_px: tuple[int, ...], how: Preprocess) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a frame of another size inside `frame_px`: in its middle, as large as fits."""
    (height, width), (most_height, most_width) = size_px[:2], how.frame_px
    if how.fit == "scale":
        # subtle: whichever side is reached first, compared without a division
        if height * most_width >= width * most_height:
            height, width = most_height, max(1, (2 * width * most_height + height) // (2 * height))
        else:
            height, width = max(1, (2 * height * most_width + width) // (2 * width)), most_width
    height, width = min(height, most_height), min(width, most_width)
    return (most_height - height) // 2, (most_width - width) // 2, height, width


def shrink(image: Image, size: tuple[int, int]) -> Image:
    """Or enlarge. Boxes of a whole factor first, the rest bilinearly."""
    factor = max(1, min(image.shape[0] // size[0], image.shape[1] // size[1]))
    return resize_bilinear(reduce_box(image, factor), size)


@lru_cache(maxsize=4)
def list_ignored(runs: tuple[int, ...]) -> NDArray[np.intp]:
    """Numbers of pixels, row by row, from pairs of first and count."""
    ranges = [np.arange(first, first + count) for first, count in zip(runs[0::2], runs[1::2], strict=True)]
    return np.concatenate(ranges).astype(np.intp)


def as_input(image: Image) -> NDArray[np.int8]:
    """Integer normalisation: the network's input int8 (1, 3, h, w) is the image minus 128, channels first."""
    # subtle: flipping the top bit of a byte subtracts 128 in two's complement
    return np.ascontiguousarray((image ^ np.uint8(0x80)).view(np.int8).transpose(2, 0, 1)[np.newaxis])


def reduce_box(image: Image, factor: int) -> Image:
    """Mean of factor × factor pixels, rounded half up; rows and columns that fill no box are cut off evenly."""
    if factor == 1:
        return image
    height, width = image.shape[0] // factor, image.shape[1] // factor
    top, left = (image.shape[0] - height * factor) // 2, (image.shape[1] - width * factor) // 2
    image = image[top : top + height * factor, left : left + width * factor]
    dtype = np.uint16 if factor <= 16 else np.uint32  # 16·16·255 + 128 < 2¹⁶
    rows = image[0::factor].astype(dtype)
    for i in range(1, factor):
        rows += image[i::factor]
    total = rows[:, 0::factor].copy()
    for i in range(1, factor):
        total += rows[:, i::factor]
    area = factor * factor
    mean: Image = ((total + dtype(area // 2)) // dtype(area)).astype(np.uint8)
    return mean


def resize_bilinear(image: Image, size: tuple[int, int]) -> Image:
    """Bilinear resize with aligned pixel centres, weights of 8 bits, one rounding (half up) at the end."""
    if image.shape[:2] == size:
        return np.ascontiguousarray(image)
    above, below, weight = _taps(image.shape[0], size[0])
    w = weight[:, np.newaxis, np.newaxis]
    one = np.uint16(1 << WEIGHT_BITS)
    rows = image[above] * (one - w) + image[below] * w  # uint16: at most 255 · 256
    left, right, weight = _taps(image.shape[1], size[1])
    w32 = weight[np.newaxis, :, np.newaxis].astype(np.uint32)
    total = rows[:, left] * (np.uint32(one) - w32) + rows[:, right] * w32
    half = np.uint32(1 << (2 * WEIGHT_BITS - 1))
    # subtle: picking columns leaves the array in another order
    image = ((total + half) >> np.uint32(2 * WEIGHT_BITS)).astype(np.uint8, order="C")
    return image


@lru_cache(maxsize=16)
def _taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint16]]:
    """For each target pixel its two source pixels and the weight of the second, of 2⁸."""
    # position of the target's centre in source pixels, in 1/(2·target): ((2t + 1)·source − target) / (2·target)
    numerator = np.maximum((2 * np.arange(target) + 1) * source - target, 0)
    first = numerator // (2 * target)
    rest = numerator - first * 2 * target
    weight = ((rest << WEIGHT_BITS) + target) // (2 * target)
    return first.astype(np.intp), np.minimum(first + 1, source - 1).astype(np.intp), weight.astype(np.uint16)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels" if len(shape) >= 2 else f"of shape {shape}"
