"""Every rule, on maps whose answer is known."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from host.judging.thresholds import Evidence, ThresholdRule, score_maps, set_threshold
from protocol.errors import InputError
from protocol.manifest import AnomalyMap, Threshold
from protocol.strict import FieldError

FINE = AnomalyMap((1, 100), 2.0**-4, 100)  # the score is the mean of all pixels
COARSE = AnomalyMap((8, 8), 2.0**-4, 1)  # the score is the highest pixel
NONE = np.zeros((0, 8, 8), np.int8)
STEP = FINE.scale / FINE.top_pixels


def maps_of(scores: NDArray[np.float64]) -> NDArray[np.int8]:
    """Maps of 1 × 100 pixels whose mean is the score, to a hundredth of an integer step."""
    hundredths = np.rint(scores / STEP).astype(int)
    rows = [np.full(100, value // 100) + (np.arange(100) < value % 100) for value in hundredths]
    return np.stack(rows).astype(np.int8)[:, np.newaxis]


def set_by(rule: ThresholdRule, scores: NDArray[np.float64]) -> Threshold:
    return set_by_maps(maps_of(scores), rule, FINE)


def set_by_maps(maps: NDArray[np.int8], rule: ThresholdRule, meaning: AnomalyMap) -> Threshold:
    return set_threshold(Evidence(maps, NONE, NONE), rule, meaning)


SCORES = np.arange(101) / 100.0


def test_default_is_a_false_reject_rate_of_one_in_fifty() -> None:
    assert ThresholdRule() == ThresholdRule("false-rejects", 0.02, "scores")


def test_max_is_just_above_the_highest_good_score() -> None:
    threshold = set_by(ThresholdRule("max"), SCORES)
    assert threshold.value == pytest.approx(1.0 + STEP, abs=STEP)
    assert threshold.method == "above the highest score on 101 held-out good pictures"


def test_quantile() -> None:
    threshold = set_by(ThresholdRule("quantile", 0.9), SCORES)
    assert threshold.value == pytest.approx(0.9 + STEP, abs=STEP)
    assert threshold.method == "above the 0.9 quantile of the scores on 101 held-out good pictures"


def test_quantile_that_so_few_pictures_cannot_show_says_so() -> None:
    assert set_by(ThresholdRule("quantile", 0.999), SCORES).method.endswith("too few to show it: near the highest")


def test_sigmas() -> None:
    expected = SCORES.mean() + 2 * SCORES.std(ddof=1)
    assert set_by(ThresholdRule("k-sigma", 2.0), SCORES).value == pytest.approx(expected, abs=STEP)


def test_rules_of_single_pixels() -> None:
    maps = np.zeros((4, 8, 8), np.int8)
    maps[2, 3, 3] = 50
    wide = AnomalyMap((8, 8), 2.0**-4, 64)
    highest = set_by_maps(maps, ThresholdRule("max", of="pixels"), wide)
    assert highest.value == 51 / 16
    assert highest.method == "above the highest pixel on 4 held-out good pictures"
    sigmas = set_by_maps(maps, ThresholdRule("k-sigma", 3.0, "pixels"), wide)
    assert sigmas.value == pytest.approx((maps.mean() + 3 * maps.std(ddof=1)) / 16)
    assert set_by_maps(maps, ThresholdRule("quantile", 0.5, "pixels"), wide).value == 1 / 16


@pytest.mark.parametrize("area", [1, 3, 6, 40])
def test_no_good_picture_has_a_larger_region_than_max_area(area: int) -> None:
    maps = np.random.default_rng(area).integers(-60, 90, (6, 8, 8)).astype(np.int8)
    level = round(set_by_maps(maps, ThresholdRule("max-area", area), COARSE).value / COARSE.scale)
    assert largest_region(maps >= level) <= area
    assert largest_region(maps >= level - 1) > area


def test_best_f1_needs_and_uses_labelled_validation_pictures() -> None:
    good, bad = maps_of(np.array([0.1, 0.2, 0.3])), maps_of(np.array([0.25, 0.9, 1.1]))
    threshold = set_threshold(Evidence(good, NONE, bad), ThresholdRule("best-f1"), FINE)
    assert 0.2 < threshold.value <= 0.25
    assert "best F1 (0.857) on 3 held-out good and 3 defective validation pictures" in threshold.method
    with pytest.raises(InputError, match=r"needs labelled validation pictures: put defective ones into validation/"):
        set_threshold(Evidence(good, NONE, good[:0]), ThresholdRule("best-f1"), FINE)


@pytest.mark.parametrize(("shape", "count"), [("exponential", 8), *product(("exponential", "normal"), (16, 50, 300))])
def test_false_reject_rate_of_the_next_picture(shape: str, count: int) -> None:
    """Over many small sets of good pictures the mean rate on fresh ones is the target, or below it."""
    rng = np.random.default_rng(1)
    draw = rng.standard_exponential if shape == "exponential" else rng.standard_normal
    fresh = np.sort(draw(100_000)) / 4
    rates = []
    for _ in range(150):
        value = set_by(ThresholdRule("false-rejects", 0.01), draw(count) / 4).value
        rates.append(1 - np.searchsorted(fresh, value) / len(fresh))
    assert 0.003 < np.mean(rates) < 0.015
    assert np.quantile(rates, 0.9) < 0.04


def test_false_rejects_of_equal_scores() -> None:
    threshold = set_by(ThresholdRule("false-rejects", 0.01), np.full(10, -3.0))
    assert threshold.value == pytest.approx(-3 + STEP)
    told = "target false-reject rate 0.01, on 10 held-out good pictures, 0 of them above it: "
    assert threshold.method == told + "with 95 % confidence at most 25.9% of good parts are rejected"


def set_against(good: NDArray[np.float64], defects: NDArray[np.float64], rate: float = 0.02) -> Threshold:
    evidence = Evidence(maps_of(good), maps_of(defects), NONE)
    return set_threshold(evidence, ThresholdRule("false-rejects", rate), FINE)


def test_false_rejects_are_not_avoided_at_the_price_of_many_defects() -> None:
    """Few, scattered pictures: the wish lies beyond most defects."""
    scattered = np.append(np.linspace(-2, 0, 20), [1.0, 2.0])
    defects = np.linspace(-1, 4, 501)
    wished, threshold = set_by(ThresholdRule(), scattered), set_against(scattered, defects)
    assert threshold.value < 2.0 < wished.value
    assert (scattered >= threshold.value).sum() == 1
    assert (
        "target false-reject rate 0.02, lowered to where 5.0% are expected, which finds 26.5% more" in threshold.method
    )


def test_wish_is_left_where_each_good_part_buys_its_price_in_defects() -> None:
    """A model that tells good and bad apart only just, with an AUROC of 0.97, and one whose defects lie far off."""
    rng = np.random.default_rng(2)
    good, fresh = rng.normal(-3, 1, 67), rng.normal(-3, 1, 2000)
    near, far = rng.normal(-0.6, 0.9, 300), rng.normal(3, 1.5, 300)
    wished = set_by(ThresholdRule(), good).value
    lowered = set_against(good, near).value
    assert (near >= lowered).mean() > (near >= wished).mean() + 0.15
    assert 0.03 < (fresh >= lowered).mean() < 0.06
    assert set_against(good, far).value == pytest.approx(wished, abs=STEP)


@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_wish_is_never_left_by_more_than_two_and_a_half_times(rate: float) -> None:
    """Whatever it would find: all defects lie within the good scores."""
    good = np.random.default_rng(3).exponential(0.3, 400)
    lowered = set_against(good, np.random.default_rng(4).normal(0.8, 0.2, 300), rate)
    assert 2 * rate < (good >= lowered.value).mean() < 3 * rate


def test_a_blind_model_rejects_no_more_for_it() -> None:
    """Its defects score as good parts do: a good part more buys one share of defects, not two and a half."""
    rng = np.random.default_rng(5)
    good, blind = rng.exponential(0.3, 400), rng.exponential(0.3, 400)
    assert set_against(good, blind).value == set_by(ThresholdRule(), good).value


def test_defects_that_score_high_leave_the_target_alone() -> None:
    few = np.linspace(-2, 0, 20)
    threshold, alone = set_against(few, np.linspace(3, 4, 100)), set_by(ThresholdRule(), few)
    assert threshold.value == alone.value
    assert threshold.method == f"{alone.method}; 100 of 100 synthetic defects are found (96% to 100%)"


def test_high_rates_are_quantiles() -> None:
    assert set_by(ThresholdRule("false-rejects", 0.5), SCORES).value == pytest.approx(0.5 + STEP, abs=STEP)


def test_threshold_that_no_part_can_reach_is_refused() -> None:
    saturated = np.full((5, 8, 8), 127, np.int8)
    with pytest.raises(InputError, match=r"at 8\.0 no part, however bad, would be rejected; choose another"):
        set_by_maps(saturated, ThresholdRule("max"), COARSE)


def test_threshold_that_every_part_reaches_is_refused() -> None:
    with pytest.raises(InputError, match=r"at -8\.0 every part would be rejected; choose another"):
        set_by_maps(np.full((5, 8, 8), -128, np.int8), ThresholdRule("max-area", 64), COARSE)


def test_extrapolated_threshold_stays_reachable() -> None:
    """Some good pictures score high, but below the ceiling: a rule may not end up above it."""
    maps = np.linspace(-128, 126, 40).astype(np.int8)[:, np.newaxis, np.newaxis] + np.zeros((1, 8, 8), np.int8)
    threshold = set_by_maps(maps, ThresholdRule("k-sigma", 9.0), COARSE)
    assert threshold.value == 127 / 16
    assert threshold.method.endswith("lowered to the highest possible score")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("quantile", 1.0), "value: of quantile must lie between 0 and 1"),
        (("k-sigma", 0.0), "value: of k-sigma must be above 0"),
        (("max-area", 0.0), "value: of max-area must be above 0"),
        (("false-rejects", 0.01, "pixels"), "of: false-rejects cannot look at single pixels"),
    ],
)
def test_impossible_rules_are_refused(words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(FieldError, match=problem):
        ThresholdRule(*words)  # type: ignore[arg-type]


def test_scores_are_means_of_the_highest_pixels() -> None:
    maps = np.arange(64, dtype=np.int8).reshape(1, 8, 8)
    assert score_maps(maps, AnomalyMap((8, 8), 0.5, 4)) == pytest.approx([0.5 * (63 + 62 + 61 + 60) / 4])


def largest_region(inside: NDArray[np.bool_]) -> int:
    largest = 0
    for one in inside:
        count, regions = cv2.connectedComponents(one.astype(np.uint8), connectivity=8)
        largest = max([largest, *(int((regions == region).sum()) for region in range(1, count))])
    return largest
