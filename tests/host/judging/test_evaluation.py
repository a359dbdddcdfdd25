"""Metrics against their definitions, computed the slow way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from host.judging.evaluation import aupro, best_f1, count_pixels, image_figures, pixel_figures

Masks = NDArray[np.bool_]


def test_pixel_figures_are_those_of_the_single_pixels() -> None:
    maps, masks = draw_maps()
    large = np.stack([enlarge(anomaly, 24) for anomaly in maps])
    figures = pixel_figures(count_pixels(maps, masks), threshold_steps=20.0)
    at_threshold = (large >= 20).ravel()
    assert figures["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), large.ravel()), abs=1e-4)
    assert figures["pixel_aupr"] == pytest.approx(average_precision_score(masks.ravel(), large.ravel()), abs=1e-3)
    assert figures["pixel_dice"] == pytest.approx(f1_score(masks.ravel(), at_threshold), abs=1e-3)
    assert figures["pixel_iou"] == pytest.approx(jaccard_score(masks.ravel(), at_threshold), abs=1e-3)
    every = [f1_score(masks.ravel(), large.ravel() >= level) for level in np.unique(large)]
    assert figures["pixel_best_dice"] == pytest.approx(max(every), abs=1e-3)
    every = [jaccard_score(masks.ravel(), large.ravel() >= level) for level in np.unique(large)]
    assert figures["pixel_best_iou"] == pytest.approx(max(every), abs=1e-3)


def test_aupro_is_the_mean_overlap_of_regions() -> None:
    maps, masks = draw_maps()
    large = np.stack([enlarge(anomaly, 24) for anomaly in maps])
    counts = count_pixels(maps, masks)
    assert aupro(counts) == pytest.approx(slow_aupro(large, masks, 0.3), abs=1e-3)
    assert aupro(counts) != pytest.approx(slow_aupro(large, masks, 0.5), abs=1e-2)


def test_masks_of_another_resolution_than_the_map() -> None:
    """One map pixel in eight columns and rows of the mask; the bilinear map is highest where the defect is."""
    maps = np.full((1, 8, 8), -100, np.int8)
    maps[0, 1, 6] = 100
    mask = np.zeros((64, 64), np.bool_)
    mask[8:16, 48:56] = True
    figures = pixel_figures(count_pixels(maps, [mask]), threshold_steps=0.0)
    assert figures["aupro"] > 0.99
    assert figures["pixel_dice"] == pytest.approx(float(dice(enlarge(maps[0], 64) >= 0, mask)))


def test_perfect_and_useless_maps() -> None:
    masks = np.zeros((1, 16, 16), np.bool_)
    masks[0, 4:8, 4:8] = True
    perfect = count_pixels(masks.astype(np.int8), masks)
    assert aupro(perfect) == 1
    assert pixel_figures(perfect, 1.0)["pixel_iou"] == 1
    assert aupro(count_pixels(np.zeros(masks.shape, np.int8), masks)) == pytest.approx(0.15)


def test_counts_of_two_sets_add_up() -> None:
    maps, masks = draw_maps()
    together = count_pixels(maps, masks)
    apart = count_pixels(maps[:1], masks[:1]) + count_pixels(maps[1:], masks[1:])
    assert pixel_figures(apart, 5.0) == pixel_figures(together, 5.0)


def test_figures_of_pictures_at_a_threshold() -> None:
    scores, defective = np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])
    figures = image_figures(scores, defective, 0.5)
    assert figures["image_auroc"] == pytest.approx(0.875)
    assert figures["image_aupr"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["recall"] == 1
    assert figures["false_reject_rate"] == 0.5  # at the threshold is rejected
    assert figures["image_f1"] == pytest.approx(0.8)
    assert figures["image_iou"] == pytest.approx(2 / 3)
    assert image_figures(scores, defective, 0.6)["recall"] == 0.5


def test_best_f1_lies_between_the_scores() -> None:
    f1, threshold = best_f1(np.array([1.0, 2.0, 5.0, 6.0]), np.array([False, False, True, True]))
    assert (f1, threshold) == (1.0, 3.5)
    f1, threshold = best_f1(np.array([3.0, 3.0]), np.array([False, True]))
    assert f1 == pytest.approx(2 / 3)
    assert threshold == 3.0


def draw_maps() -> tuple[NDArray[np.int8], Masks]:
    """Noisy maps of 12 × 12, masks of 24 × 24 with regions of unequal sizes."""
    rng = np.random.default_rng(4)
    masks = np.zeros((3, 24, 24), np.bool_)
    masks[0, 2:10, 3:9] = True
    masks[0, 15:17, 15:18] = True  # a small region weighs as much as a large one
    masks[1, 5:20, 5:7] = True
    maps = rng.normal(0, 20, (3, 12, 12)) + 40 * masks[:, ::2, ::2]
    return np.rint(maps.clip(-128, 127)).astype(np.int8), masks


def enlarge(anomaly: NDArray[np.int8], side_px: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(anomaly.astype(np.float32), (side_px, side_px)), np.float32)


def dice(one: Masks, other: Masks) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def slow_aupro(maps: NDArray[np.float32], masks: Masks, limit: float) -> float:
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


def test_what_nobody_looks_at_is_missed_if_defective_and_does_not_count_if_good() -> None:
    maps, mask = np.full((1, 8, 8), 50, np.int8), np.zeros((8, 8), np.bool_)
    mask[:, 2:6] = True
    inspected = np.zeros((8, 8), np.bool_)
    inspected[:, :4] = True
    counts = count_pixels(maps, [mask], (0, 0, 8, 8), inspected)
    assert counts.good.sum() == 16
    assert (counts.defective[0], counts.defective.sum()) == (16, 32)
    assert pixel_figures(counts, threshold_steps=20.0)["pixel_iou"] == pytest.approx(16 / 48)
