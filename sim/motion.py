"""The belt's true motion: how far it has gone at any time, when it will have gone so far, and where the parts lie.

Pure: nothing here has a clock. Times are seconds since the belt started, ways are millimetres of belt since then.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STOPS, _PITCH = range(30, 32)  # purposes of random numbers, beside those of sim/parts.py, camera.py and scene.py
RUNS_S = (0.4, 2.5)  # how long a belt that stops and goes runs in one go
STANDS_S = (0.03, 1.2)


@dataclass(frozen=True)
class Stop:
    at_mm: float  # of the belt's way
    lasts_s: float


class BeltMotion:
    """One speed, and stops in between.

    The belt stops and starts at once: whoever believes in the speed is wrong by more than behind a motor's ramp.
    """

    def __init__(self, speed_mm_s: float, stops: Sequence[Stop] = ()) -> None:
        """`stops` in the order of the way."""
        self.speed_mm_s = speed_mm_s
        self._times_s, self._ways_mm = [0.0], [0.0]  # where the speed changes
        for stop in stops:
            begins_s = self._times_s[-1] + (stop.at_mm - self._ways_mm[-1]) / speed_mm_s
            self._times_s += [begins_s, begins_s + stop.lasts_s]
            self._ways_mm += [stop.at_mm, stop.at_mm]

    def way_mm(self, t_s: float) -> float:
        """How far the belt has gone at a time."""
        leg = max(0, bisect_right(self._times_s, t_s) - 1)
        way_mm = self._ways_mm[leg] + (t_s - self._times_s[leg]) * self.speed_mm_s
        return min(way_mm, self._ways_mm[leg + 1]) if leg + 1 < len(self._ways_mm) else way_mm

    def time_s(self, way_mm: float) -> float:
        """When the belt has first gone so far; before 0 for a way that lies before its start."""
        leg = max(0, bisect_left(self._ways_mm, way_mm) - 1)
        return self._times_s[leg] + (way_mm - self._ways_mm[leg]) / self.speed_mm_s

    def ways_mm(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """`way_mm` of many times at once."""
        legs = np.maximum(0, np.searchsorted(self._times_s, times_s, side="right") - 1)
        ends_mm = np.array([*self._ways_mm[1:], np.inf])
        begins_s, begins_mm = np.array(self._times_s), np.array(self._ways_mm)
        found: NDArray[np.float64] = np.minimum(
            begins_mm[legs] + (times_s - begins_s[legs]) * self.speed_mm_s, ends_mm[legs]
        )
        return found

    def times_s(self, ways_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """`time_s` of many ways at once."""
        legs = np.maximum(0, np.searchsorted(self._ways_mm, ways_mm, side="left") - 1)
        begins_s, begins_mm = np.array(self._times_s), np.array(self._ways_mm)
        found: NDArray[np.float64] = begins_s[legs] + (ways_mm - begins_mm[legs]) / self.speed_mm_s
        return found

    def stops_s(self) -> list[tuple[float, float]]:
        """From when to when the belt stands."""
        return list(zip(self._times_s[1::2], self._times_s[2::2], strict=True))

    def left_s(self, way_mm: float) -> float:
        """When the belt goes on from there: later than `time_s` where it stands with exactly this way."""
        leg = max(0, bisect_right(self._ways_mm, way_mm) - 1)
        return self._times_s[leg] + (way_mm - self._ways_mm[leg]) / self.speed_mm_s


def draw_stops(speed_mm_s: float, until_mm: float, seed: int) -> list[Stop]:
    """Of a belt that runs and stands for random times, on a way of `until_mm`."""
    rng = np.random.default_rng([seed, 0, _STOPS])
    stops: list[Stop] = []
    at_mm = float(rng.uniform(*RUNS_S)) * speed_mm_s
    while at_mm < until_mm:
        stops.append(Stop(at_mm, float(rng.uniform(*STANDS_S))))
        at_mm += float(rng.uniform(*RUNS_S)) * speed_mm_s
    return stops


def lay_parts(count: int, pitch_mm: tuple[float, float], seed: int) -> list[float]:
    """Way of the belt at which each part's centre is at the light barrier; from part to part a random pitch."""
    if pitch_mm[0] == pitch_mm[1]:
        return [number * pitch_mm[0] for number in range(count)]
    rng = np.random.default_rng([seed, 0, _PITCH])
    pitches_mm = rng.uniform(*pitch_mm, max(0, count - 1))
    return [0.0, *np.cumsum(pitches_mm).tolist()][:count]
