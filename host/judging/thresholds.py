"""Where good ends: a threshold for the score, from held-out good pictures. No rule touches the graph.

The rules "max", "quantile", "k-sigma" and "max-area" are those of Bergmann et al. 2021 (IJCV 129, 1038-1059, section
5.3); there they look at pixels, here at the pictures' scores unless `of` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from board.score import score_map
from board.teaching.certainty import Tail, highest_rate
from host.judging.evaluation import best_f1
from host.judging.fitness import Share
from protocol.errors import InputError
from protocol.manifest import AnomalyMap, Threshold
from protocol.strict import require

PRICE = 0.05  # of the synthetic defects are worth as much as all the good parts that may be rejected
MOST_WISHES = 2.5  # so many times the wished share of good parts may be rejected, if that finds defects enough

IntegerMaps = NDArray[np.int8]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class ThresholdRule:
    """How the threshold is set.

    false-rejects  `value` is the share of good parts that may be rejected; more, where that finds many more defects
    max            above the highest; `value` is not used
    quantile       `value` is the quantile
    k-sigma        `value` is the number of standard deviations above the mean
    max-area       no good picture has a connected region of more than `value` map pixels at or above the threshold
    best-f1        the best F1 on labelled validation pictures; `value` is not used

    `of`: "max", "quantile" and "k-sigma" look at the pictures' scores or at all pixels of their maps.
    """

    method: Literal["false-rejects", "max", "quantile", "k-sigma", "max-area", "best-f1"] = "false-rejects"
    value: float = 0.02
    of: Literal["scores", "pixels"] = "scores"

    def __post_init__(self) -> None:
        if self.method in ("quantile", "false-rejects"):
            require(0 < self.value < 1, "value", f"of {self.method} must lie between 0 and 1")
        if self.method in ("k-sigma", "max-area"):
            require(self.value > 0, "value", f"of {self.method} must be above 0")
        by_pixels = self.method in ("max", "quantile", "k-sigma")
        require(self.of == "scores" or by_pixels, "of", f"{self.method} cannot look at single pixels: leave `of` out")


def check_rule(rule: ThresholdRule, bad_pictures: int) -> None:
    """Raises: InputError if the rule needs defective validation pictures and there are none."""
    if rule.method == "best-f1" and not bad_pictures:
        raise InputError(
            "threshold method best-f1 needs labelled validation pictures: put defective ones into validation/<kind> "
            "of the data folder, or choose another [threshold] method (test pictures are never used to set it)"
        )


@dataclass(frozen=True)
class Evidence:
    """int8 maps (n, h', w') that a threshold is set from."""

    good: IntegerMaps  # of held-out good pictures
    synthetic: IntegerMaps  # of the same pictures with synthetic defects; only "false-rejects" looks at them
    bad: IntegerMaps  # of defective validation pictures; only "best-f1" looks at them


def set_threshold(evidence: Evidence, rule: ThresholdRule, meaning: AnomalyMap) -> Threshold:
    """A score at or above the threshold rejects.

    Raises: InputError if the rule needs bad pictures and there are none, or if no part could ever be rejected, or
    every part would be.
    """
    check_rule(rule, len(evidence.bad))
    good = evidence.good
    threshold = _set(evidence, rule, meaning)
    fault = meaning.threshold_fault(threshold.value)
    if not fault:
        return threshold
    # a rule that looks beyond the scores seen: the highest that there can be is enough
    if threshold.value > meaning.highest > score_maps(good, meaning).max():
        return Threshold(meaning.highest, f"{threshold.method}, lowered to the highest possible score")
    raise InputError(
        f"the threshold ({threshold.method}) {fault}; choose another [threshold] in the recipe, or look at the good "
        "pictures for defective ones"
    )


def score_maps(maps: IntegerMaps, meaning: AnomalyMap) -> Scores:
    """(n,) of int8 maps (n, h', w')."""
    return np.array([score_map(anomaly, meaning) for anomaly in maps], np.float64)


def _set(evidence: Evidence, rule: ThresholdRule, meaning: AnomalyMap) -> Threshold:
    good = evidence.good
    on = f"on {len(good)} held-out good pictures"
    scores = score_maps(good, meaning)
    step = meaning.scale / meaning.top_pixels  # the smallest difference of two scores
    if rule.method == "best-f1":
        return _best_f1(scores, score_maps(evidence.bad, meaning))
    if rule.method == "max-area":
        level = _smallest_level(good, rule.value) * meaning.scale
        return Threshold(level, f"no region of more than {rule.value:g} map pixels {on}")
    if rule.method == "false-rejects":
        return _limit_false_rejects(scores, score_maps(evidence.synthetic, meaning), rule.value, step)
    values, what = scores, "score"
    if rule.of == "pixels":
        values, what, step = good.reshape(-1).astype(np.float64) * meaning.scale, "pixel", meaning.scale
    if rule.method == "max":
        return Threshold(float(values.max()) + step, f"above the highest {what} {on}")
    if rule.method == "k-sigma":
        value = float(values.mean() + rule.value * values.std(ddof=1))
        return Threshold(value, f"mean plus {rule.value:g} standard deviations of the {what}s {on}")
    seen = "" if len(values) * (1 - rule.value) >= 1 else ", too few to show it: near the highest"
    value = float(np.quantile(values, rule.value)) + step
    return Threshold(value, f"above the {rule.value:g} quantile of the {what}s {on}{seen}")


def _limit_false_rejects(scores: Scores, synthetic: Scores, rate: float, step: float) -> Threshold:
    tail = Tail.of(scores)
    wished = tail.find_level(rate) + step
    value = _weigh(tail, wished, synthetic, rate, step)
    target = f"target false-reject rate {rate:g}"
    if value < wished:
        expected = float(tail.rate_above(np.array([value]))[0])
        more = float((synthetic >= value).mean() - (synthetic >= wished).mean())
        target += f", lowered to where {expected:.1%} are expected, which finds {more:.1%} more of synthetic defects"
    above = int((scores >= value).sum())
    bound = f"with 95 % confidence at most {highest_rate(above, len(scores), 0.95):.1%} of good parts are rejected"
    told = f"{target}, on {len(scores)} held-out good pictures, {above} of them above it: {bound}"
    return Threshold(value, told + _tell_found(synthetic, value))


def _weigh(tail: Tail, wished: float, synthetic: Scores, rate: float, step: float) -> float:
    """The `wished` threshold, or a lower one where every lost share of good parts buys its price in synthetic defects.

    With few or scattered pictures the wish can lie beyond what any defect scores; with a model that tells good and bad
    apart only just, a little above the wish a defect more is found for each good part. Never so low that both more
    than `MOST_WISHES` are expected to be rejected and a good picture is.
    """
    if not len(synthetic):
        return wished
    lowest = min(wished, min(tail.find_level(min(1.0, MOST_WISHES * rate)), float(tail.ordered[-1])) + step)
    levels = np.sort(np.clip(np.append(synthetic, wished), lowest, wished))[::-1]
    found = (synthetic >= levels[:, np.newaxis]).mean(axis=1)
    worth = found - PRICE * tail.rate_above(levels) / rate
    return float(levels[worth.argmax()])  # of equal ones the highest


def _tell_found(synthetic: Scores, value: float) -> str:
    if not len(synthetic):
        return ""
    found = Share(int((synthetic >= value).sum()), len(synthetic))
    return f"; {found} synthetic defects are found ({found.lower:.0%} to {found.upper:.0%})"


def _smallest_level(maps: IntegerMaps, area: float) -> int:
    """The smallest integer at or above which no map has a connected region of more than `area` pixels."""
    low, high = int(maps.min()), int(maps.max()) + 1  # at `high` there are no regions at all
    while low < high:
        middle = (low + high) // 2
        if max(_largest_region(anomaly >= middle) for anomaly in maps) > area:
            low = middle + 1
        else:
            high = middle
    return low


def _largest_region(inside: NDArray[np.bool_]) -> int:
    _, _, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max(initial=0))


def _best_f1(good: Scores, bad: Scores) -> Threshold:
    scores, defective = np.concatenate([good, bad]), np.repeat([False, True], [len(good), len(bad)])
    f1, value = best_f1(scores, defective)
    on = f"on {len(good)} held-out good and {len(bad)} defective validation pictures"
    return Threshold(value, f"best F1 ({f1:.3f}) {on}")
