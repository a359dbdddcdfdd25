"""Where a picture is defective: masks, outlines, boxes and brush strokes, as people's tools save them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError
from protocol.pictures.files import shown
from protocol.pictures.reader import Stored, read_stored
from protocol.pictures.runs import Runs, decode_runs

FEW_VALUES = 32  # a mask with more of them has soft edges, or went through JPEG
HALF = 128  # of such a mask: the value from which a pixel is defective
SIDES_MAY_DIFFER_PX = 1.0  # of a mask that was saved at another scale than its picture

Mask = NDArray[np.bool_]
Outline = tuple[tuple[float, float], ...]  # corners (x, y), in shares of the picture's width and height


@dataclass(frozen=True)
class Strokes:
    """Label Studio's brush: run lengths of an RGBA picture, of which the alpha tells where the brush was."""

    size_px: tuple[int, int]
    packed: bytes


@dataclass(frozen=True)
class Truth:
    """All of it together."""

    files: tuple[Path, ...] = ()
    outlines: tuple[Outline, ...] = ()
    strokes: tuple[Strokes | Runs, ...] = ()
    is_rough: bool = False  # boxes: they hold more than the defect

    def __bool__(self) -> bool:
        return bool(self.files or self.outlines or self.strokes)


NOWHERE = Truth()


def draw_truth(truth: Truth, size_px: tuple[int, int]) -> Mask:
    """(h, w) of the upright picture, True where defective. Raises: InputError for a mask of another picture."""
    mask = np.zeros(size_px, np.bool_)
    for path in truth.files:
        mask |= _fit(read_mask(path), size_px, path)
    for outline in truth.outlines:
        mask |= _fill(outline, size_px)
    for strokes in truth.strokes:
        mask |= (
            decode_runs(strokes, size_px) if isinstance(strokes, Runs) else _resize(decode_strokes(strokes), size_px)
        )
    return mask


def read_mask(path: Path) -> Mask:
    """(h, w), True where the mask picture says defective, in whatever values it does. Raises: InputError."""
    stored = read_stored(path)
    grey = _flatten(stored)
    values = np.count_nonzero(np.bincount(grey.reshape(-1)))
    if path.suffix.lower() in (".jpg", ".jpeg") or values > FEW_VALUES:
        return np.asarray(grey >= HALF * (257 if grey.dtype == np.uint16 else 1), np.bool_)
    return np.asarray(grey > 0, np.bool_)


def decode_strokes(strokes: Strokes) -> Mask:
    """Raises: InputError if they are damaged, or of another size than they say."""
    reader = _Bits(strokes.packed)
    height, width = strokes.size_px
    count, word, sizes = reader.take(32), reader.take(5) + 1, [reader.take(4) + 1 for _ in range(4)]
    if count != 4 * height * width:
        raise InputError("brush strokes are not of their picture's size: export them again")
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        repeated = reader.take(1)
        end = min(at + 1 + reader.take(sizes[reader.take(2)]), count)
        if repeated:
            values[at:end] = reader.take(word) & 255
        else:
            values[at:end] = [reader.take(word) & 255 for _ in range(end - at)]
        at = end
    return np.asarray(values.reshape(height, width, 4)[..., 3] > 0, np.bool_)


class _Bits:
    """Whole numbers out of packed bits, the highest bit first."""

    def __init__(self, packed: bytes) -> None:
        self._packed, self._at = packed, 0

    def take(self, bits: int) -> int:
        first, last = self._at // 8, (self._at + bits + 7) // 8
        if last > len(self._packed):
            raise InputError("brush strokes end too early: export them again")
        value = int.from_bytes(self._packed[first:last], "big") >> (8 * last - self._at - bits)
        self._at += bits
        return value & ((1 << bits) - 1)


def _flatten(stored: Stored) -> Stored:
    """The strongest colour; where all of them are black, what is not transparent."""
    if stored.ndim == 2:
        return stored
    colours = stored[..., :3].max(axis=2)
    if stored.shape[2] == 3:
        return np.asarray(colours)
    alpha = stored[..., 3]
    return np.asarray(np.where(alpha > 0, colours, 0) if colours.any() else alpha)


def _fit(mask: Mask, size_px: tuple[int, int], path: Path) -> Mask:
    """A mask may have been saved at another scale, not in another shape."""
    (height, width), (wanted_height, wanted_width) = mask.shape, size_px
    scale = max(wanted_height / height, wanted_width / width)
    off_px = max(abs(height * scale - wanted_height), abs(width * scale - wanted_width))
    if off_px > SIDES_MAY_DIFFER_PX * max(1.0, scale):
        raise InputError(
            f"{shown(path)} is {width}x{height} pixels, its picture {wanted_width}x{wanted_height}: "
            "use the mask of this picture, or remove it"
        )
    return _resize(mask, size_px)


def _resize(mask: Mask, size_px: tuple[int, int]) -> Mask:
    if mask.shape == size_px:
        return mask
    resized = cv2.resize(mask.astype(np.uint8), size_px[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.bool_)


def _fill(outline: Outline, size_px: tuple[int, int]) -> Mask:
    """Pixels whose middle lies inside, at least one."""
    height, width = size_px
    corners = np.clip(np.array(outline, np.float64), 0, 1) * (width, height)
    crossings = np.zeros((height, width + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        first, last = (int(np.ceil(y - 0.5)) for y in sorted((y0, y1)))
        rows = np.arange(first, last)  # whose middle the edge passes
        columns = np.ceil(x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0) - 0.5) if rows.size else rows
        np.add.at(crossings, (rows, np.clip(columns, 0, width).astype(np.intp)), 1)
    filled = np.asarray(crossings.cumsum(axis=1)[:, :width] % 2 == 1, np.bool_)
    if not filled.any():
        x, y = corners.mean(axis=0)
        filled[min(int(y), height - 1), min(int(x), width - 1)] = True
    return filled
