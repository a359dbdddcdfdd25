"""Set the threshold and measure: all of it on the exported integers, through ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from board.score import score_map
from host.dataset import Dataset
from host.evaluation import aupro, enlarge, false_reject_rate, image_auroc, pixel_auroc, recall
from host.parity import IntegerMaps, run_onnxruntime
from host.thresholds import ThresholdRule, set_threshold
from protocol.manifest import AnomalyMap, Threshold


@dataclass(frozen=True)
class Measurement:
    """A threshold from held-out good pictures, and figures on the test pictures by the manifest's names."""

    threshold: Threshold
    figures: dict[str, float]


def measure(
    model: onnx.ModelProto,
    float_maps: NDArray[np.float32],
    dataset: Dataset,
    meaning: AnomalyMap,
    rule: ThresholdRule,
) -> Measurement:
    """`float_maps` are the float network's answers to the test pictures, for comparison."""
    held_out = score_maps(run_onnxruntime(model, dataset.held_out), meaning)
    threshold = set_threshold(held_out, rule, meaning.scale / meaning.top_pixels)
    figures: dict[str, float] = {
        "train_pictures": len(dataset.train),
        "held_out_pictures": len(dataset.held_out),
        "test_good": int((~dataset.defective).sum()),
        "test_defective": int(dataset.defective.sum()),
    }
    if dataset.has_test:
        maps = run_onnxruntime(model, dataset.test)
        figures |= _image_figures(score_maps(maps, meaning), dataset.defective, threshold)
        figures["float_image_auroc"] = image_auroc(_float_scores(float_maps, meaning.top_pixels), dataset.defective)
        figures |= _pixel_figures(maps, dataset)
    return Measurement(threshold, figures)


def score_maps(maps: IntegerMaps, meaning: AnomalyMap) -> NDArray[np.float64]:
    """(n,) of int8 maps (n, h', w')."""
    return np.array([score_map(anomaly, meaning) for anomaly in maps])


def _float_scores(maps: NDArray[np.float32], top_pixels: int) -> NDArray[np.float64]:
    return np.asarray(np.sort(maps.reshape(len(maps), -1))[:, -top_pixels:].mean(axis=1), np.float64)


def _image_figures(scores: NDArray[np.float64], defective: NDArray[np.bool_], threshold: Threshold) -> dict[str, float]:
    return {
        "image_auroc": image_auroc(scores, defective),
        "recall": recall(scores, defective, threshold.value),
        "false_reject_rate": false_reject_rate(scores, defective, threshold.value),
    }


def _pixel_figures(maps: IntegerMaps, dataset: Dataset) -> dict[str, float]:
    known = dataset.pixels_known
    masks = dataset.masks[known]
    if not masks.any():
        return {}
    large = enlarge(maps[known].astype(np.float32), dataset.how.input_px)
    return {"pixel_auroc": pixel_auroc(large, masks), "aupro": aupro(large, masks)}
