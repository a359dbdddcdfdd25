"""How well maps and scores tell good from defective, with the trivial answer beside every F1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from host.bench.detector import Maps, Pool, Scores, localizes, pool
from host.bench.limits import RULES, has_region, largest_area, set_level
from host.bench.problems import Problem, choose_labelled
from host.judging.evaluation import PixelCounts, best_f1, count_pixels, image_auroc, pixel_figures

Labels = NDArray[np.bool_]  # True where defective
Figures = dict[str, float]
CURVE_POINTS = 80
# What host/judging/evaluation.py counts pixels at: levels between -128 and 127.
LOWEST, HIGHEST = -128.0, 127.0


def measure_maps(problem: Problem, held_out: Maps, test: Maps, pools: Pool) -> Figures:
    """All figures by name; one that cannot be measured on these pictures is not there.

    `rule:name` is at the threshold that a rule sets on held-out good pictures.
    """
    scores, defective = pool(test, pools), problem.defective
    figures: Figures = {"test_good": int((~defective).sum()), "test_defective": int(defective.sum())}
    if has_both(defective):
        figures |= {
            "image_auroc": image_auroc(scores, defective),
            "image_aupr": float(average_precision_score(defective, scores)),
            "image_best_f1": best_f1(scores, defective)[0],
            "image_best_accuracy": best_accuracy(scores, defective),
            "trivial_f1": trivial_f1(defective),
            "trivial_accuracy": float(max(defective.mean(), 1 - defective.mean())),
        }
    figures |= _with_labels(problem, scores)
    for rule in RULES[:-1]:
        level = set_level(pool(held_out, pools), rule)
        if np.isfinite(level):  # one picture has no deviation
            figures |= {f"{rule}:{key}": value for key, value in decide(scores >= level, defective).items()}
    if localizes(test):
        figures |= _measure_pixels(problem, held_out, test)
        level, area = set_level(held_out, "max-area"), largest_area(held_out)
        rejected = np.array([has_region(anomaly, level, area) for anomaly in test])
        figures |= {f"max-area:{key}": value for key, value in decide(rejected, defective).items()}
    return figures


def has_both(defective: Labels) -> bool:
    """Whether there are good and defective pictures: without one of them there is nothing to tell apart."""
    return bool(defective.any() and not defective.all())


def decide(rejected: Labels, defective: Labels) -> Figures:
    """Of pictures that are rejected or not; a share of nothing is not there."""
    hits, false = int((rejected & defective).sum()), int((rejected & ~defective).sum())
    bad, good = int(defective.sum()), int((~defective).sum())
    figures: Figures = {}
    if bad and good:
        figures |= {
            "image_f1": 2 * hits / (hits + bad + false),
            "image_accuracy": float((rejected == defective).mean()),
        }
        figures |= {"image_precision": hits / (hits + false)} if hits + false else {}
    if bad:
        figures["image_recall"] = hits / bad
    if good:
        figures["false_reject_rate"] = false / good
    return figures


def trivial_f1(defective: Labels) -> float:
    """Of calling everything bad: all defects found, precision is the share of defects."""
    share = float(defective.mean())
    return 2 * share / (1 + share)


def best_accuracy(scores: Scores, defective: Labels) -> float:
    """The highest of any threshold."""
    false_rate, hit_rate, _ = roc_curve(defective, scores, drop_intermediate=False)
    right = hit_rate * defective.sum() + (1 - false_rate) * (~defective).sum()
    return float(right.max() / len(defective))


def _with_labels(problem: Problem, scores: Scores) -> Figures:
    """Best threshold on 30 % of the labelled test pictures, F-score on the other 70 % (the AlexNet autoencoder's)."""
    setting = choose_labelled(problem.defective)
    measured = np.setdiff1d(np.arange(len(scores)), setting)
    if not (has_both(problem.defective[setting]) and has_both(problem.defective[measured])):
        return {}
    _, level = best_f1(scores[setting], problem.defective[setting])
    defective = problem.defective[measured]
    return {
        "labelled_30_f1": decide(scores[measured] >= level, defective)["image_f1"],
        "labelled_30_trivial_f1": trivial_f1(defective),
    }


def draw_curves(scores: Scores, defective: Labels) -> dict[str, list[list[float]]]:
    """ROC and precision–recall curves as points (x, y), thinned; none where they cannot be drawn."""
    if not has_both(defective):
        return {}
    false_rate, hit_rate, _ = roc_curve(defective, scores)
    precision, sensitivity, _ = precision_recall_curve(defective, scores)
    return {"roc": _thin(false_rate, hit_rate), "pr": _thin(sensitivity[::-1], precision[::-1])}


def _thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[list[float]]:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    return [[round(float(x[index]), 4), round(float(y[index]), 4)] for index in kept]


def _measure_pixels(problem: Problem, held_out: Maps, test: Maps) -> Figures:
    """At the masks' own resolution; nothing where no mask says which pixels are defective."""
    if not problem.masks:
        return {}
    chosen = np.flatnonzero(problem.pixels_known)
    lowest, highest = float(test.min()), float(test.max())
    step = max((highest - lowest) / (HIGHEST - LOWEST), 1e-30)
    counts = _count(test[chosen], [problem.masks[int(index)] for index in chosen], lowest, step)
    if not counts.defective.any() or not counts.good.any():
        return {}
    whole = pixel_figures(counts, 0.0)
    figures = {key: value for key, value in whole.items() if key not in ("pixel_dice", "pixel_iou")}
    figures["trivial_dice"] = float(2 * counts.defective.sum() / (2 * counts.defective.sum() + counts.good.sum()))
    for rule in RULES:
        level = (set_level(held_out, rule) - lowest) / step + LOWEST
        if not np.isfinite(level):
            continue
        at_level = pixel_figures(counts, float(np.clip(level, LOWEST, HIGHEST + 1)))
        figures |= {f"{rule}:{key}": at_level[key] for key in ("pixel_dice", "pixel_iou")}
    return figures


def _count(maps: Maps, masks: Sequence[Labels], lowest: float, step: float) -> PixelCounts:
    return count_pixels(((maps - lowest) / step + LOWEST).astype(np.float32), masks)
