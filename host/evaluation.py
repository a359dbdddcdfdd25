"""How well scores and maps find defects. All of it is measured on the exported integers."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]  # True where defective
Maps = NDArray[np.float32]

AUPRO_LIMIT = 0.3  # false-positive rate up to which the per-region overlap is integrated


def image_auroc(scores: Scores, labels: Labels) -> float:
    return float(roc_auc_score(labels, scores))


def pixel_auroc(maps: Maps, masks: Labels) -> float:
    """maps and masks (n, h, w)."""
    return float(roc_auc_score(masks.ravel(), maps.ravel()))


def aupro(maps: Maps, masks: Labels, limit: float = AUPRO_LIMIT) -> float:
    """Area under the per-region overlap curve up to a false-positive rate (Bergmann et al. 2020), scaled to 0..1.

    The mean overlap of regions is a true-positive rate in which every region weighs the same: each defective pixel
    counts 1 / (pixels of its region).
    """
    weights = np.stack([_region_weights(mask) for mask in masks])
    false_rate, overlap, _ = roc_curve(masks.ravel(), maps.ravel(), sample_weight=weights.ravel())
    inside = false_rate <= limit
    x = np.append(false_rate[inside], limit)
    y = np.append(overlap[inside], np.interp(limit, false_rate, overlap))
    return float(np.trapezoid(y, x) / limit)


def recall(scores: Scores, labels: Labels, threshold: float) -> float:
    """Share of the defective pictures that are rejected."""
    return float((scores[labels] >= threshold).mean())


def false_reject_rate(scores: Scores, labels: Labels, threshold: float) -> float:
    """Share of the good pictures that are rejected."""
    return float((scores[~labels] >= threshold).mean())


def enlarge(maps: Maps, size_px: tuple[int, int]) -> Maps:
    """Maps (n, h', w') at the masks' size (n, h, w), bilinear."""
    return np.stack([np.asarray(cv2.resize(anomaly, size_px[::-1]), np.float32) for anomaly in maps])


def _region_weights(mask: Labels) -> NDArray[np.float64]:
    _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    per_region = 1 / stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    per_region[0] = 1  # good pixels all weigh the same
    return np.asarray(per_region[regions], np.float64)
