"""The chart's promises, computed and simulated: how seldom it warns of nothing, how soon of something."""

from __future__ import annotations

import math

import numpy as np
import pytest

from board.drift.control_chart import CLIP_SIGMAS, ControlChart
from board.drift.watch import DriftSettings
from protocol.manifest import Distribution

SETTINGS = DriftSettings()
WELL_KNOWN = 10**9  # pictures of a calibration whose mean has no error
STATISTICS = 6
BRIGHTNESS = Distribution(60.0, 4.0, (53.4, 60.0, 66.6))


def open_chart(pictures: int = WELL_KNOWN, *, calibrated: Distribution = BRIGHTNESS, both: bool = True) -> ControlChart:
    return ControlChart(
        calibrated,
        pictures,
        weight=SETTINGS.weight,
        limit=SETTINGS.limit,
        tolerance=SETTINGS.tolerance,
        both_sides=both,
    )


def average_run_length(limit: float, shift: float, states: int = 601) -> float:
    """Parts until an EWMA of normal values leaves ±limit: the Markov chain of Brook and Evans 1972."""
    width = 2 * limit / states
    centres = -limit + width * (np.arange(states) + 0.5)
    edges = -limit + width * np.arange(states + 1)
    part = (edges[np.newaxis] - (1 - SETTINGS.weight) * centres[:, np.newaxis]) / SETTINGS.weight
    below = np.array([0.5 * math.erfc(-(x - shift) / math.sqrt(2)) for x in part.ravel()]).reshape(part.shape)
    stays = np.diff(np.where(part >= CLIP_SIGMAS, 1.0, np.where(part < -CLIP_SIGMAS, 0.0, below)), axis=1)
    return float(np.linalg.solve(np.eye(states) - stays, np.ones(states))[states // 2])


def test_all_charts_together_warn_of_nothing_once_in_a_hundred_thousand_parts_or_less() -> None:
    """Even where every statistic is off by all that is tolerated."""
    worst = average_run_length(open_chart().limit, SETTINGS.tolerance)
    assert worst == pytest.approx(1.2e6, rel=0.1)
    assert worst / STATISTICS > 100_000
    assert average_run_length(open_chart().limit, 0.3) > 1e10  # nearer to 0 the equations can no longer be solved


@pytest.mark.parametrize(("shift", "parts"), [(1.0, 126), (1.5, 51), (2.5, 25)])
def test_a_shift_is_seen_soon(shift: float, parts: int) -> None:
    assert average_run_length(open_chart().limit, shift) == pytest.approx(parts, rel=0.02)


def test_the_chart_runs_as_long_as_computed() -> None:
    rng = np.random.default_rng(1)
    lengths = []
    for _ in range(300):
        chart, parts = open_chart(), 0
        while not chart.is_beyond:
            chart.note(BRIGHTNESS.mean + BRIGHTNESS.deviation * (1.0 + rng.standard_normal()))
            parts += 1
        lengths.append(parts)
    assert np.mean(lengths) == pytest.approx(126, rel=0.1)


def test_a_calibration_of_few_pictures_does_not_warn_of_its_own_error() -> None:
    """10 pictures each, again and again: the mean that was found is off, the line is as it was."""
    rng = np.random.default_rng(2)
    warned = 0
    for _ in range(100):
        seen = 60.0 + 4.0 * rng.standard_normal(10)
        low, middle, high = (float(value) for value in np.quantile(seen, (0.05, 0.5, 0.95)))
        found = Distribution(float(seen.mean()), float(seen.std(ddof=1)), (low, middle, high))
        chart = open_chart(10, calibrated=found)
        warned += any(note(chart, 60.0 + 4.0 * rng.standard_normal()) for _ in range(2000))
    assert warned == 0


def note(chart: ControlChart, value: float) -> bool:
    chart.note(value)
    return chart.is_beyond


def test_skewed_scores_do_not_warn() -> None:
    """Scores of good parts have a long upper tail: an exponential one here."""
    rng = np.random.default_rng(3)
    chart = open_chart(300, calibrated=Distribution(1.0, 1.0, (0.05, 0.69, 3.0)), both=False)
    assert not any(note(chart, rng.exponential()) for _ in range(20_000))


def test_one_strange_picture_is_no_drift() -> None:
    chart = open_chart()
    chart.note(1e9)
    assert chart.sigmas == pytest.approx(CLIP_SIGMAS * SETTINGS.weight)
    assert not chart.is_beyond


def test_a_fall_of_a_one_sided_statistic_is_no_trouble() -> None:
    rising, falling = open_chart(both=False), open_chart(both=False)
    assert any(note(rising, 68.0) for _ in range(100))
    assert not any(note(falling, 52.0) for _ in range(1000))


def test_an_average_on_the_limit_is_one_warning() -> None:
    chart = open_chart()
    while not chart.is_beyond:
        chart.note(64.0)
    for value in (60.0, 64.0) * 5:  # back and forth across the limit
        assert note(chart, value)
    while chart.is_beyond:
        chart.note(60.0)
    assert abs(chart.sigmas) <= chart.limit / 2


def test_a_statistic_that_never_varied_has_room() -> None:
    flat = open_chart(calibrated=Distribution(0.0, 0.0, (0.0, 0.0, 0.0)))
    assert not any(note(flat, 0.0) for _ in range(100))
    assert any(note(flat, 0.001) for _ in range(100))
