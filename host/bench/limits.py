"""Where good ends, set on held-out good pictures: the four rules of Bergmann et al. 2021 (IJCV 129, section 5.3).

As in host/judging/thresholds.py, for float maps of any scale: an int8 map's 256 levels would not suit all.
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Rule = Literal["maximum", "quantile", "k-sigma", "max-area"]
RULES: tuple[Rule, ...] = ("maximum", "quantile", "k-sigma", "max-area")
QUANTILE = 0.95  # of normal patches in Patch-GANomaly's paper
SIGMAS = 3.0
AREA_SHARE = 0.002  # of the map's pixels: the largest region that a good picture may have

Floats = NDArray[np.float32] | NDArray[np.float64]


def set_level(values: Floats, rule: Rule) -> float:
    """At or above it is anomalous. `values`: scores (n,), or maps (n, h', w') whose pixels are looked at.

    NaN where they cannot say it: a single value has no deviation.
    """
    flat = values.reshape(-1).astype(np.float64)
    if rule == "maximum":
        return float(np.nextafter(np.float32(flat.max()), np.float32(np.inf)))
    if rule == "quantile":
        return float(np.quantile(flat, QUANTILE))
    if rule == "k-sigma":
        return float(flat.mean() + SIGMAS * flat.std(ddof=1)) if flat.size > 1 else math.nan
    return _smallest_level(values, largest_area(values))


def largest_area(maps: Floats) -> int:
    """Map pixels that a region of a good picture may have."""
    return int(AREA_SHARE * maps.shape[1] * maps.shape[2])


def has_region(anomaly: Floats, level: float, area: int) -> bool:
    """Whether more than `area` connected pixels of a map (h', w') are at or above the level."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((anomaly >= level).astype(np.uint8), connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max(initial=0)) > area


def _smallest_level(maps: Floats, area: int) -> float:
    """The smallest value that occurs, or one just above all, at which no map has a region of more than `area`."""
    levels = np.append(np.unique(maps), np.nextafter(np.float32(maps.max()), np.float32(np.inf)))
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if any(has_region(anomaly, float(levels[middle]), area) for anomaly in maps):
            low = middle + 1
        else:
            high = middle
    return float(levels[low])
