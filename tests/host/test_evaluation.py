"""Metrics against their definitions, computed the slow way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from host.evaluation import aupro, enlarge, false_reject_rate, image_auroc, pixel_auroc, recall


def test_aupro_is_the_mean_overlap_of_regions() -> None:
    rng = np.random.default_rng(4)
    masks = np.zeros((3, 24, 24), np.bool_)
    masks[0, 2:10, 3:9] = True
    masks[0, 15:17, 15:18] = True  # a small region weighs as much as a large one
    masks[1, 5:20, 5:7] = True
    maps = (rng.normal(0, 1, masks.shape) + 1.5 * masks).round(1).astype(np.float32)
    assert aupro(maps, masks) == pytest.approx(slow_aupro(maps, masks, 0.3), abs=1e-4)


def test_perfect_and_useless_maps() -> None:
    masks = np.zeros((1, 16, 16), np.bool_)
    masks[0, 4:8, 4:8] = True
    assert aupro(masks.astype(np.float32), masks) == 1
    assert pixel_auroc(masks.astype(np.float32), masks) == 1
    assert aupro(np.zeros(masks.shape, np.float32), masks) == pytest.approx(0.15)


def test_rates_at_a_threshold() -> None:
    scores, defective = np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])
    assert image_auroc(scores, defective) == pytest.approx(0.875)
    assert recall(scores, defective, 0.5) == 1
    assert false_reject_rate(scores, defective, 0.5) == 0.5  # at the threshold is rejected
    assert recall(scores, defective, 0.6) == 0.5


def test_enlarged_maps_keep_their_place() -> None:
    small = np.zeros((1, 8, 8), np.float32)
    small[0, 1, 6] = 1
    large = enlarge(small, (32, 32))
    y, x = np.unravel_index(large[0].argmax(), (32, 32))
    assert (y // 4, x // 4) == (1, 6)


def slow_aupro(maps: NDArray[np.float32], masks: NDArray[np.bool_], limit: float) -> float:
    points = [(0.0, 0.0)]
    for level in np.unique(maps)[::-1]:
        hit = maps >= level
        overlaps = []
        for mask, inside in zip(masks, hit, strict=True):
            count, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            overlaps += [inside[regions == region].mean() for region in range(1, count)]
        points.append((float(hit[~masks].mean()), float(np.mean(overlaps))))
    rates, overlap = np.array(points).T
    x = np.linspace(0, limit, 200_001)
    return float(np.interp(x, rates, overlap).mean())
