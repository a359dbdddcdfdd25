"""Every rule, on scores whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from host.thresholds import ThresholdRule, set_threshold
from protocol.strict import FieldError

SCORES = np.arange(101) / 100.0
STEP = 0.001


def test_max_is_just_above_the_highest_good_score() -> None:
    threshold = set_threshold(SCORES, ThresholdRule("max"), STEP)
    assert threshold.value == pytest.approx(1.0 + STEP)
    assert threshold.method == "above the highest score on 101 held-out good pictures"


def test_quantile() -> None:
    assert set_threshold(SCORES, ThresholdRule("quantile", 0.9), STEP).value == pytest.approx(0.9 + STEP)


def test_sigmas() -> None:
    expected = SCORES.mean() + 2 * SCORES.std(ddof=1)
    assert set_threshold(SCORES, ThresholdRule("k-sigma", 2.0), STEP).value == pytest.approx(expected)


def test_false_rejects_continue_the_tail() -> None:
    """Forty exponential scores cannot show a rate of 1 in 1,000; their tail can."""
    rng = np.random.default_rng(1)
    fresh = rng.exponential(1.0, 100_000)
    rates = []
    for _ in range(50):
        threshold = set_threshold(rng.exponential(1.0, 40), ThresholdRule("false-rejects", 0.001), 0.0)
        rates.append((fresh >= threshold.value).mean())
    assert np.median(rates) == pytest.approx(0.001, abs=0.001)


def test_false_rejects_of_equal_scores() -> None:
    assert set_threshold(np.full(10, -3.0), ThresholdRule("false-rejects", 0.01), STEP).value == pytest.approx(
        -3 + STEP
    )


def test_impossible_values_are_refused() -> None:
    with pytest.raises(FieldError, match="value: of quantile must lie between 0 and 1"):
        ThresholdRule("quantile", 1.0)
