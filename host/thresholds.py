"""Where good ends: a threshold from the scores of held-out good pictures alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from protocol.manifest import Threshold
from protocol.strict import require

TAIL_SHARE = 0.2  # of the scores: the upper tail that "false-rejects" continues


@dataclass(frozen=True)
class ThresholdRule:
    """`value` is the quantile, the number of sigmas, or the target false-reject rate; "max" does not use it."""

    method: Literal["max", "quantile", "k-sigma", "false-rejects"] = "false-rejects"
    value: float = 0.005

    def __post_init__(self) -> None:
        if self.method in ("quantile", "false-rejects"):
            require(0 < self.value < 1, "value", f"of {self.method} must lie between 0 and 1")
        if self.method == "k-sigma":
            require(self.value > 0, "value", "of k-sigma must be above 0")


def set_threshold(scores: NDArray[np.float64], rule: ThresholdRule, step: float) -> Threshold:
    """A score at or above the threshold rejects; `step` is the smallest difference of two scores."""
    on = f"on {len(scores)} held-out good pictures"
    if rule.method == "max":
        return Threshold(float(scores.max()) + step, f"above the highest score {on}")
    if rule.method == "quantile":
        return Threshold(float(np.quantile(scores, rule.value)) + step, f"above the {rule.value:g} quantile {on}")
    if rule.method == "k-sigma":
        value = float(scores.mean() + rule.value * scores.std(ddof=1))
        return Threshold(value, f"mean plus {rule.value:g} standard deviations {on}")
    return Threshold(_tail_quantile(scores, rule.value) + step, f"target false-reject rate {rule.value:g} {on}")


def _tail_quantile(scores: NDArray[np.float64], rate: float) -> float:
    """The score that a share `rate` of good pictures exceeds, also where fewer than 1 / rate were seen.

    The upper tail is continued as an exponential (peaks over threshold, Pickands 1975, with shape 0).
    """
    if rate >= TAIL_SHARE:
        return float(np.quantile(scores, 1 - rate))
    start = float(np.quantile(scores, 1 - TAIL_SHARE))
    excess = scores[scores > start] - start
    mean_excess = float(excess.mean()) if excess.size else 0.0
    return start + mean_excess * float(np.log(TAIL_SHARE / rate))
