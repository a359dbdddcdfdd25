"""How well scores and maps find defects, by scikit-learn's definitions. On pixels, F1 is the Dice coefficient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]  # True where defective
Maps = NDArray[np.int8] | NDArray[np.float32]  # of floats: -128..127 as well
Counts = NDArray[np.float64]

AUPRO_LIMIT = 0.3  # false-positive rate up to which the per-region overlap is integrated
# Between two integers of a map interpolation gives fractions; finer ones than this make no difference to any figure.
LEVELS_PER_STEP = 256
LEVELS = 255 * LEVELS_PER_STEP + 1


def image_figures(scores: Scores, defective: Labels, threshold: float) -> dict[str, float]:
    """Of pictures: curves, then what happens at the threshold."""
    rejected = scores >= threshold
    hits, misses, false = (int(x.sum()) for x in (rejected & defective, ~rejected & defective, rejected & ~defective))
    return {
        "image_auroc": image_auroc(scores, defective),
        "image_aupr": float(average_precision_score(defective, scores)),
        "image_best_f1": best_f1(scores, defective)[0],
        "image_f1": 2 * hits / (2 * hits + misses + false),
        "image_iou": hits / (hits + misses + false),
        "recall": recall(scores, defective, threshold),
        "false_reject_rate": false_reject_rate(scores, defective, threshold),
    }


def image_auroc(scores: Scores, defective: Labels) -> float:
    return float(roc_auc_score(defective, scores))


def recall(scores: Scores, defective: Labels, threshold: float) -> float:
    """Share of the defective pictures that are rejected."""
    return float((scores[defective] >= threshold).mean())


def false_reject_rate(scores: Scores, defective: Labels, threshold: float) -> float:
    """Share of the good pictures that are rejected."""
    return float((scores[~defective] >= threshold).mean())


def best_f1(scores: Scores, defective: Labels) -> tuple[float, float]:
    """The highest F1 of any threshold, and a threshold that has it, halfway down to the next lower score."""
    precision, sensitivity, levels = precision_recall_curve(defective, scores)
    f1 = _f1(precision, sensitivity)
    best = int(f1.argmax())
    level = float(levels[best])
    lower = scores[scores < level]
    return float(f1[best]), (level + float(lower.max())) / 2 if lower.size else level


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of enlarged maps by their level, float64 (LEVELS,): good ones, defective ones, and shares of regions.

    A defective pixel is 1 / (pixels of its region) of a region, so that every region weighs the same.
    """

    good: Counts
    defective: Counts
    regions: Counts

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.good + other.good, self.defective + other.defective, self.regions + other.regions)


def count_pixels(
    maps: Maps,
    masks: Iterable[Labels],
    crop_px: tuple[int, int, int, int] | None = None,
    inspected: Labels | None = None,
) -> PixelCounts:
    """Maps (n, h', w'), each enlarged by bilinear interpolation to its mask's size (h, w), or to the crop of it.

    What is defective outside of the crop, or where nobody looks (False in `inspected` (h, w)), is missed at every
    threshold; what is good there does not count.
    """
    total = PixelCounts(np.zeros(LEVELS), np.zeros(LEVELS), np.zeros(LEVELS))
    for anomaly, mask in zip(maps, masks, strict=True):
        levels, seen = _place_levels(anomaly, mask.shape, crop_px)
        if inspected is not None:
            levels, seen = np.where(inspected, levels, 0), seen & inspected
        weights = _region_weights(mask)
        total = total + PixelCounts(
            np.bincount(levels[~mask & seen], minlength=LEVELS).astype(np.float64),
            np.bincount(levels[mask], minlength=LEVELS).astype(np.float64),
            np.bincount(levels[mask], weights[mask], minlength=LEVELS).astype(np.float64),
        )
    return total


def pixel_figures(counts: PixelCounts, threshold_steps: float) -> dict[str, float]:
    """Of pixels; the threshold in the map's integer steps."""
    labels, levels, weights = _as_samples(counts.good, counts.defective)
    precision, sensitivity, _ = precision_recall_curve(labels, levels, sample_weight=weights)
    best = float(_f1(precision, sensitivity).max())
    first = int(np.clip(np.ceil((threshold_steps + 128) * LEVELS_PER_STEP), 0, LEVELS))
    hits, false = counts.defective[first:].sum(), counts.good[first:].sum()
    misses = counts.defective.sum() - hits
    return {
        "pixel_auroc": float(roc_auc_score(labels, levels, sample_weight=weights)),
        "pixel_aupr": float(average_precision_score(labels, levels, sample_weight=weights)),
        "pixel_best_dice": best,
        "pixel_best_iou": best / (2 - best),
        "pixel_dice": float(2 * hits / (2 * hits + misses + false)),
        "pixel_iou": float(hits / (hits + misses + false)),
        "aupro": aupro(counts),
    }


def aupro(counts: PixelCounts, limit: float = AUPRO_LIMIT) -> float:
    """Area under the per-region overlap curve up to a false-positive rate (Bergmann et al. 2020), scaled to 0..1.

    The mean overlap of regions is a true-positive rate in which every region weighs the same.
    """
    labels, levels, weights = _as_samples(counts.good, counts.regions)
    false_rate, overlap, _ = roc_curve(labels, levels, sample_weight=weights)
    inside = false_rate <= limit
    x = np.append(false_rate[inside], limit)
    y = np.append(overlap[inside], np.interp(limit, false_rate, overlap))
    return float(np.trapezoid(y, x) / limit)


def _place_levels(
    anomaly: Maps, size_px: tuple[int, ...], crop_px: tuple[int, int, int, int] | None
) -> tuple[NDArray[np.int32], Labels]:
    """(h, w) levels, the lowest outside of the crop, and what lies inside."""
    if crop_px is None or crop_px == (0, 0, *size_px):
        return _levels(anomaly, size_px), np.ones(size_px, np.bool_)
    top, left, height, width = crop_px
    levels, seen = np.zeros(size_px, np.int32), np.zeros(size_px, np.bool_)
    inside = slice(top, top + height), slice(left, left + width)
    levels[inside], seen[inside] = _levels(anomaly, (height, width)), True
    return levels, seen


def _levels(anomaly: Maps, size_px: tuple[int, ...]) -> NDArray[np.int32]:
    large = cv2.resize(anomaly.astype(np.float32), size_px[::-1], interpolation=cv2.INTER_LINEAR)
    return np.rint((large + 128) * LEVELS_PER_STEP).astype(np.int32)


def _region_weights(mask: Labels) -> Counts:
    _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    per_region = 1 / stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    return np.asarray(per_region[regions], np.float64)


def _as_samples(good: Counts, defective: Counts) -> tuple[Labels, NDArray[np.intp], Counts]:
    """One weighted sample for each level that occurs: what scikit-learn takes in place of millions of pixels."""
    at_good, at_defective = np.flatnonzero(good), np.flatnonzero(defective)
    labels = np.repeat([False, True], [at_good.size, at_defective.size])
    weights = np.concatenate([good[at_good], defective[at_defective]])
    return labels, np.concatenate([at_good, at_defective]), weights


def _f1(precision: Counts, sensitivity: Counts) -> Counts:
    return np.asarray(2 * precision * sensitivity / np.maximum(precision + sensitivity, 1e-12), np.float64)
