"""YUYV buffers of a camera (4:2:2, Y0 U Y1 V), read by us: what of one is short, left over or empty, nobody tells.

OpenCV copies a buffer that is too short over the one before: the rest of that picture stays at the bottom.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

BYTES = 2  # of a pixel
DARKEST, LIGHTEST = 20, 231  # luma that noise changes; beyond it, pixels of two pictures are alike
EMPTY_PX = 4  # at the end: zeros are no colour, black has its chroma at 128
SENSITIVE_SHARE = 0.5  # of a row, for two of them never to be alike bit for bit


class YuyvReader:
    """Of one camera: it remembers the last row."""

    def __init__(self, size_px: tuple[int, int]) -> None:
        """(height, width)."""
        self._size_px = size_px
        self._last_row: NDArray[np.uint8] | None = None

    def read(self, buffer: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """uint8 (h, w, 3) RGB, never a view of the buffer; None where it is not all of a new picture.

        subtle: rows of another length, too, come as another number of bytes.
        """
        height, width = self._size_px
        if buffer.dtype != np.uint8 or buffer.size != height * width * BYTES:
            return None
        picture = np.ascontiguousarray(buffer).reshape(height, width, BYTES)
        row, before = picture[-1].copy(), self._last_row
        self._last_row = row
        if not row[-EMPTY_PX:].any() or (before is not None and _is_left_over(row, before)):
            return None
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_YUY2), np.uint8)


def _is_left_over(row: NDArray[np.uint8], before: NDArray[np.uint8]) -> bool:
    if not np.array_equal(row, before):
        return False
    luma = row[:, 0]
    return bool(((luma > DARKEST) & (luma < LIGHTEST)).mean() >= SENSITIVE_SHARE)
