"""What the board is to compare its parts with later: how held-out good pictures look and score when a model is made."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from board.drift.picture_statistics import PICTURE_STATISTICS, SCORE, measure_picture
from host.export.card import TILE_PX
from host.pictures.reading import Images
from protocol.manifest import Calibration, Distribution

FEWEST_PICTURES = 8  # of fewer, a mean is too uncertain to tell a drift by
QUANTILES = (0.05, 0.5, 0.95)
TILES = 8
JPEG_QUALITY = 90


def calibrate(images: Images, scores: NDArray[np.float64], threshold: float) -> Calibration | None:
    """Of the network's images uint8 (n, h, w, 3) of good parts and their scores (n,); None for too few of them.

    Pictures that the model rejects are left out: a line has only accepted parts to compare.
    """
    accepted = np.flatnonzero(scores < threshold)
    if len(accepted) < FEWEST_PICTURES:
        return None
    measured = [measure_picture(images[index]) | {SCORE: float(scores[index])} for index in accepted]
    names = (*PICTURE_STATISTICS, SCORE)
    return Calibration(len(accepted), {name: _summarise([part[name] for part in measured]) for name in names})


def draw_calibration(images: Images) -> bytes:
    """JPEG: a row of some of the images uint8 (n, h, w, 3), from the darkest to the brightest."""
    order = np.argsort([measure_picture(image)["brightness"] for image in images])
    chosen = order[np.linspace(0, len(images) - 1, TILES).astype(int)]
    tiles = [cv2.resize(images[index], (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA) for index in chosen]
    row = cv2.cvtColor(np.hstack(tiles), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", row, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _summarise(values: list[float]) -> Distribution:
    low, middle, high = (float(value) for value in np.quantile(values, QUANTILES))
    return Distribution(float(np.mean(values)), float(np.std(values, ddof=1)), (low, middle, high))
