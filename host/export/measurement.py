"""Set the threshold and measure: all of it on the exported integers, through ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from host.export.calibration import calibrate
from host.integers.parity import IntegerMaps, run_onnxruntime
from host.judging.evaluation import PixelCounts, count_pixels, image_auroc, image_figures, pixel_figures, recall
from host.judging.thresholds import Evidence, score_maps, set_threshold
from host.learning.pairs import Pairs
from host.learning.recipe import Recipe
from host.pictures.dataset import Dataset
from host.pictures.inspected import mask_ignored, mask_inspected
from protocol.manifest import AnomalyMap, Calibration, Threshold

SYNTHETIC_BATCHES = 24


@dataclass(frozen=True)
class Measurement:
    """A threshold from held-out pictures, and figures on the test pictures by the manifest's names.

    A figure of one kind of defect, against all good test pictures, is named `figure:kind`.
    """

    threshold: Threshold
    figures: dict[str, float]
    calibration: Calibration | None


def measure(
    model: onnx.ModelProto,
    float_maps: NDArray[np.float32],
    dataset: Dataset,
    meaning: AnomalyMap,
    recipe: Recipe,
) -> Measurement:
    """`float_maps` are the float network's answers to the test pictures, for comparison.

    Raises: InputError if the rule cannot set a threshold on these pictures.
    """
    evidence = _gather_evidence(model, dataset, recipe)
    threshold = set_threshold(evidence, recipe.threshold, meaning)
    figures: dict[str, float] = {
        "train_pictures": len(dataset.train),
        "held_out_pictures": len(dataset.held_out),
        "test_good": int((~dataset.defective).sum()),
        "test_defective": int(dataset.defective.sum()),
    }
    if dataset.has_test:
        maps = run_onnxruntime(model, dataset.test)
        figures |= _measure_pictures(score_maps(maps, meaning), dataset, threshold)
        figures["float_image_auroc"] = image_auroc(_float_scores(float_maps, meaning.top_pixels), dataset.defective)
        figures["integer_loss"] = figures["float_image_auroc"] - figures["image_auroc"]
        figures |= _measure_pixels(maps, dataset, threshold.value / meaning.scale)
    calibration = calibrate(dataset.held_out, score_maps(evidence.good, meaning), threshold.value)
    return Measurement(threshold, figures, calibration)


def _gather_evidence(model: onnx.ModelProto, dataset: Dataset, recipe: Recipe) -> Evidence:
    pairs = Pairs(dataset.held_out, recipe.variation, recipe.pairs, seed=0, ignored=mask_ignored(dataset.how))
    defects = np.concatenate([pairs[number][0][recipe.pairs :] for number in range(SYNTHETIC_BATCHES)])
    good, synthetic = run_onnxruntime(model, dataset.held_out), run_onnxruntime(model, defects)
    bad = run_onnxruntime(model, dataset.validation) if len(dataset.validation) else good[:0]
    return Evidence(good, synthetic, bad)


def _float_scores(maps: NDArray[np.float32], top_pixels: int) -> NDArray[np.float64]:
    return np.asarray(np.sort(maps.reshape(len(maps), -1))[:, -top_pixels:].mean(axis=1), np.float64)


def _measure_pictures(scores: NDArray[np.float64], dataset: Dataset, threshold: Threshold) -> dict[str, float]:
    figures = image_figures(scores, dataset.defective, threshold.value)
    for kind in _bad_kinds(dataset):
        chosen = (dataset.kinds == kind) | ~dataset.defective
        figures[f"test_defective:{kind}"] = int((dataset.kinds == kind).sum())
        figures[f"image_auroc:{kind}"] = image_auroc(scores[chosen], dataset.defective[chosen])
        figures[f"recall:{kind}"] = recall(scores[chosen], dataset.defective[chosen], threshold.value)
    return figures


def _measure_pixels(maps: IntegerMaps, dataset: Dataset, threshold_steps: float) -> dict[str, float]:
    """At the masks' own resolution; nothing where no mask says which pixels are defective."""
    counts = {kind: _count_kind(maps, dataset, kind) for kind in ("", *_bad_kinds(dataset))}
    good = counts.pop("")
    counts = {kind: count for kind, count in counts.items() if count.defective.any()}
    if not counts:
        return {}
    figures = pixel_figures(sum(counts.values(), good), threshold_steps)
    for kind, count in counts.items():
        of_kind = pixel_figures(good + count, threshold_steps)
        figures |= {f"{key}:{kind}": of_kind[key] for key in ("pixel_auroc", "aupro")}
    return figures


def _count_kind(maps: IntegerMaps, dataset: Dataset, kind: str) -> PixelCounts:
    chosen = np.flatnonzero((dataset.kinds == kind) & dataset.pixels_known)
    masks = [dataset.masks[index] for index in chosen]
    return count_pixels(maps[chosen], masks, dataset.how.crop_px, mask_inspected(dataset.how))


def _bad_kinds(dataset: Dataset) -> list[str]:
    return sorted(set(dataset.kinds[dataset.defective].tolist()))
