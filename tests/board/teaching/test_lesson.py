"""A picture is judged by what the others alone have taught, and its threshold says what so few can promise."""

from __future__ import annotations

import numpy as np
import pytest

from board.score import score_map
from board.teaching.certainty import Tail, describe_certainty, highest_rate
from board.teaching.lesson import FOLDS, Lesson, learn
from board.teaching.whitening import Int8
from protocol.manifest import AnomalyMap

MEANING = AnomalyMap((6, 6), 2.0**-4, 3)
EXPONENT = -5


def draw_features(pictures: int, seed: int) -> Int8:
    """int8 (n, 24, 6, 6): every picture with a direction of its own, which whitens away once it is seen."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 8, (pictures, 24, 6, 6))
    own = rng.normal(0, 10, (pictures, 24, 1, 1)) * rng.normal(size=(pictures, 1, 6, 6))
    return np.rint(noise + own).clip(-128, 127).astype(np.int8)


def teach(features: Int8) -> Lesson:
    return learn(features, EXPONENT, np.random.default_rng(0))


def score(maps: Int8) -> list[float]:
    return [score_map(anomaly, MEANING) for anomaly in maps]


def test_pictures_score_as_new_ones_do() -> None:
    """Whitening that had seen them would make them look better: that is what the threshold was wrong by."""
    lesson = teach(draw_features(8, seed=0))
    own, new = np.array(score(lesson.maps)), np.array(score(lesson.detector.judge(draw_features(40, seed=1))))
    spread = own.std(ddof=1)
    assert abs(own.mean() - new.mean()) < spread
    seen = np.array(score(lesson.detector.judge(draw_features(8, seed=0))))
    assert seen.max() < own.min(), "what is in the bank lies at distance 0"


def test_the_threshold_rejects_about_as_many_good_ones_as_it_says() -> None:
    rejected = 0
    for seed in range(12):
        lesson = teach(draw_features(8, seed))
        threshold = Tail.of(np.array(score(lesson.maps))).find_level(0.02)
        new = lesson.detector.judge(draw_features(20, seed + 100))
        rejected += sum(one > threshold for one in score(new))
    assert rejected / 240 < 0.06


def test_no_bank_without_a_picture_has_seen_it() -> None:
    features = draw_features(2 * FOLDS + 3, seed=0)
    lesson = teach(features)
    assert len(lesson.without) == FOLDS
    for picture in (0, 1, len(features) - 1):
        maps = lesson.judge_unseen(features[[picture]], picture)
        assert np.array_equal(maps[0], lesson.maps[picture])
        assert maps.min() > lesson.detector.judge(features[[picture]]).min()


def test_few_pictures_promise_little_and_say_it() -> None:
    line = describe_certainty(0, 10)
    assert "with 90% confidence at most 20.6% of good parts will be" in line
    assert "10 pictures can promise nothing below 20.6%" in line
    assert "\n" not in line


@pytest.mark.parametrize(("rejected", "pictures", "rate"), [(0, 10, 0.2057), (0, 22, 0.0994), (1, 10, 0.3368)])
def test_rates_are_those_of_clopper_and_pearson(rejected: int, pictures: int, rate: float) -> None:
    assert highest_rate(rejected, pictures) == pytest.approx(rate, abs=1e-4)


def test_rates_of_many_pictures() -> None:
    assert highest_rate(200, 10_000) == pytest.approx(0.0219, abs=2e-4)
    assert highest_rate(5, 5) == 1.0
