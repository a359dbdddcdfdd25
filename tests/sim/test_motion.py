"""The belt's motion and its sensors, against sums that can be done by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sim.motion import RUNS_S, STANDS_S, BeltMotion, Stop, draw_stops, lay_parts
from sim.sensors import READS_EVERY_S, RUNS_ON_S, Sensors

TWO_STOPS = BeltMotion(100.0, [Stop(50.0, 2.0), Stop(150.0, 1.0)])


def test_a_belt_of_one_speed() -> None:
    motion = BeltMotion(600.0)
    assert [motion.way_mm(t_s) for t_s in (0.0, 0.5, 100.0)] == [0.0, 300.0, 60000.0]
    assert motion.time_s(300.0) == motion.left_s(300.0) == 0.5
    assert motion.time_s(-60.0) == -0.1


def test_a_belt_that_stops() -> None:
    ways = {0.0: 0.0, 0.25: 25.0, 0.5: 50.0, 1.0: 50.0, 2.5: 50.0, 3.0: 100.0, 3.5: 150.0, 4.5: 150.0, 5.5: 250.0}
    assert {t_s: TWO_STOPS.way_mm(t_s) for t_s in ways} == pytest.approx(ways)
    assert (TWO_STOPS.time_s(50.0), TWO_STOPS.left_s(50.0)) == (0.5, 2.5)
    assert (TWO_STOPS.time_s(150.0), TWO_STOPS.left_s(150.0)) == (3.5, 4.5)
    assert TWO_STOPS.time_s(100.0) == TWO_STOPS.left_s(100.0) == 3.0
    assert TWO_STOPS.time_s(250.0) == 5.5


def test_way_and_time_belong_together() -> None:
    motion = BeltMotion(370.0, draw_stops(370.0, 20_000.0, seed=3))
    times_s = np.linspace(0, 60, 3001)
    ways_mm = [motion.way_mm(t_s) for t_s in times_s]
    assert all(0 <= after - before <= 370.0 * 0.0201 for before, after in pairwise(ways_mm))
    for way_mm in np.linspace(1, 15_000, 500):
        assert motion.way_mm(motion.time_s(way_mm)) == pytest.approx(way_mm)
        assert motion.way_mm(motion.left_s(way_mm)) == pytest.approx(way_mm)


def test_stops_are_drawn_by_the_seed() -> None:
    stops = draw_stops(500.0, 100_000.0, seed=1)
    assert stops == draw_stops(500.0, 100_000.0, seed=1) != draw_stops(500.0, 100_000.0, seed=2)
    runs_mm = [after.at_mm - before.at_mm for before, after in pairwise(stops)]
    assert RUNS_S[0] * 500 <= min(runs_mm) < max(runs_mm) <= RUNS_S[1] * 500
    assert all(STANDS_S[0] <= stop.lasts_s <= STANDS_S[1] for stop in stops)
    assert 0 < len(stops) < 300


def test_parts_lie_at_random_pitches() -> None:
    centres_mm = lay_parts(500, (20.0, 150.0), seed=1)
    pitches_mm = np.diff(centres_mm)
    assert (len(centres_mm), centres_mm[0]) == (500, 0.0)
    assert 20 <= pitches_mm.min() < 25
    assert 145 < pitches_mm.max() <= 150
    assert lay_parts(3, (120.0, 120.0), seed=9) == [0.0, 120.0, 240.0]
    assert lay_parts(1, (20.0, 30.0), seed=9) == [0.0]


def sensors(motion: BeltMotion, *, second_barrier_mm: float | None = None, has_encoder: bool = False) -> Sensors:
    return Sensors(motion, [0.0, 30.0, 180.0], second_barrier_mm, gate_mm=300.0, has_encoder=has_encoder)


def test_barriers_see_each_part_at_its_place() -> None:
    seen = sensors(TWO_STOPS, second_barrier_mm=260.0)
    ticks = list(seen.ticks(seen.exposures_s()))
    assert [tick.t_s for tick in ticks] == sorted(tick.t_s for tick in ticks)
    exposed = [(tick.number, tick.t_s) for tick in ticks if tick.what == "exposure"]
    assert exposed == [(0, 0.0), (1, pytest.approx(0.3)), (2, pytest.approx(4.8))]
    passed_s = [tick.t_s for tick in ticks if tick.what == "passage"]
    assert passed_s == pytest.approx([5.6, 5.9, 7.4])
    assert ticks[-1].what == "motion"
    assert ticks[-1].t_s == pytest.approx(4.8 + 3.0 + RUNS_ON_S)
    assert seen.position_um(4.8) is None


def test_the_encoder_is_read_while_the_belt_stands_too() -> None:
    seen = sensors(TWO_STOPS, has_encoder=True)
    ticks = [tick for tick in seen.ticks(seen.exposures_s()) if tick.what == "motion"]
    assert max(after.t_s - before.t_s for before, after in pairwise(ticks)) <= READS_EVERY_S * 1.001
    assert [seen.position_um(t_s) for t_s in (0.0, 0.25, 1.0, 2.0, 3.0)] == [0, 25_000, 50_000, 50_000, 100_000]
