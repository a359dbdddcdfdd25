"""Is the picture as light as good parts were when the model was made? If not by far, no score of it says anything.

Slow changes are for `board/drift`, which warns long before. This one is for a lamp that is off, a lens that is half
covered, an exposure that jumped: their parts are UNKNOWN.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.manifest import Calibration

FARTHEST = 12.0  # deviations of good parts
FARTHEST_SHARE = 0.5  # of the light, or of what is left to white: the farther of the two counts
EVERY_ROW = 4
CALM_PARTS = 20  # in the usual light, after which nothing is said any more
TROUBLE = "the pictures are far darker or lighter than the model's calibration: check lamp, lens and exposure"


class Light:
    """Without a calibration every light is right."""

    def __init__(self, calibration: Calibration | None) -> None:
        usual = calibration.statistics.get("brightness") if calibration else None
        self._low, self._high = -1.0, 256.0
        if usual:
            spread = FARTHEST * usual.deviation
            self._low = usual.mean - max(spread, FARTHEST_SHARE * usual.mean)
            self._high = usual.mean + max(spread, FARTHEST_SHARE * (255 - usual.mean))
        self._calm_parts = CALM_PARTS

    def fault(self, image: NDArray[np.uint8]) -> str:
        """Of the network's image, uint8 (h, w, 3); empty if there is none."""
        mean = sum(cv2.mean(image[::EVERY_ROW])[:3]) / 3
        if self._low <= mean <= self._high:
            self._calm_parts += 1
            return ""
        self._calm_parts = 0
        return f"picture's mean is {mean:.0f}, {self._low:.0f} to {self._high:.0f} is usual: check lamp and exposure"

    @property
    def trouble(self) -> str:
        return TROUBLE if self._calm_parts < CALM_PARTS else ""
