"""Pictures that do not belong among the good ones: another product, a black frame, a hand. Found before training.

A picture is a gross outlier when even its nearest tenth of the others lies far away, in colour and texture, compared
with how far apart the good pictures lie among themselves. Not for defects: those are for the network. Among pictures
that all differ much (photographs from the web) only the very strange are seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

NEIGHBOUR_SHARE = 0.1  # so many outliers of one kind would have to keep each other company to go unseen
FAR = 4.5  # robust standard deviations of the logarithmic distance; sets of good pictures reach 4.4
SMALLEST_DISTANCE = 0.005  # differences below it are noise of the camera
SMALLEST_SPREAD = 0.1  # of the logarithmic distance, where all pictures are alike
GRID = 4  # cells each way whose mean colour counts
LISTED = 5

Images = NDArray[np.uint8]
Features = NDArray[np.float64]


def find_outliers(images: Images) -> NDArray[np.intp]:
    """Numbers of the pictures that stand out among images uint8 (n, h, w, 3), the strangest first."""
    features = np.array([_describe(image) for image in images], np.float64)
    distances = np.array([np.sort(np.linalg.norm(features - one, axis=1)) for one in features])
    neighbour = min(max(2, round(NEIGHBOUR_SHARE * len(images))), len(images) - 1)
    strangeness = np.log(distances[:, neighbour] + SMALLEST_DISTANCE)
    middle = float(np.median(strangeness))
    spread = 1.4826 * float(np.median(np.abs(strangeness - middle)))  # a normal distribution's standard deviation
    order = np.argsort(-strangeness)
    return order[strangeness[order] > middle + FAR * max(spread, SMALLEST_SPREAD)]


def name_outliers(paths: Sequence[Path], images: Images) -> str:
    """A warning in one line that lists the gross outliers among good pictures, or "" if there are none."""
    found = [paths[number] for number in find_outliers(images)]
    if not found:
        return ""
    listed = ", ".join("/".join(path.parts[-2:]) for path in found[:LISTED])
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return (
        f"{len(found)} of {len(paths)} good pictures look unlike the others: {listed}{more}; "
        "remove them if they do not belong there, since the model learns them as good"
    )


def _describe(image: Images) -> Features:
    """Colours of a coarse grid, spread of each colour channel, and strength of the edges, on comparable scales."""
    lab = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), np.float64) / 255
    grid = np.asarray(cv2.resize(lab, (GRID, GRID), interpolation=cv2.INTER_AREA)).reshape(-1) / GRID
    light = lab[..., 0]
    edges = 3 * (np.abs(np.diff(light, axis=0)).mean() + np.abs(np.diff(light, axis=1)).mean())
    return np.concatenate([grid, lab.reshape(-1, 3).std(axis=0), [edges]])
