"""What the belt's sensors see while it moves, in the order of time: light barriers and encoder."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sim.motion import BeltMotion

READS_EVERY_S = 0.005  # at 600 mm/s 3 mm of belt
RESOLUTION_UM = 100  # of the encoder
RUNS_ON_S = 0.2  # behind the last part, so that whoever follows the belt sees it leave


@dataclass(frozen=True)
class Tick:
    """At a time since the belt's start: a frame is exposed, a part is at the second barrier, the encoder is read."""

    t_s: float
    what: Literal["exposure", "passage", "motion"]
    number: int = 0  # of the exposure


@dataclass(frozen=True)
class Sensors:
    """Of one run. `gate_mm` is the way from the light barrier to where a part's window at the gate begins."""

    motion: BeltMotion
    centres_mm: Sequence[float]  # way of the belt at which each part is at the light barrier
    second_barrier_mm: float | None  # its way from the first; None where there is none
    gate_mm: float  # way from the light barrier to the gate's line
    has_encoder: bool

    def ticks(self, exposures_s: Iterator[float]) -> Iterator[Tick]:
        """Until the last part has left the gate. `exposures_s`: when the camera exposes, in order."""
        frames = (Tick(t_s, "exposure", number) for number, t_s in enumerate(exposures_s))
        return heapq.merge(frames, self._passages(), self._readings(), key=lambda tick: tick.t_s)

    def exposures_s(self) -> Iterator[float]:
        """Of a camera that the light barrier triggers."""
        return (self.motion.time_s(centre_mm) for centre_mm in self.centres_mm)

    def position_um(self, t_s: float) -> int | None:
        """What the encoder reads."""
        if not self.has_encoder:
            return None
        return round(self.motion.way_mm(t_s) * 1000) // RESOLUTION_UM * RESOLUTION_UM

    @property
    def ends_s(self) -> float:
        return self.motion.time_s(self.centres_mm[-1] + self.gate_mm) + RUNS_ON_S

    def _passages(self) -> Iterator[Tick]:
        if self.second_barrier_mm is not None:
            for centre_mm in self.centres_mm:
                yield Tick(self.motion.time_s(centre_mm + self.second_barrier_mm), "passage")

    def _readings(self) -> Iterator[Tick]:
        """Also while the belt stands; without an encoder only the last, at which the belt ends."""
        reading = 0
        while self.has_encoder and reading * READS_EVERY_S < self.ends_s:
            yield Tick(reading * READS_EVERY_S, "motion")
            reading += 1
        yield Tick(self.ends_s, "motion")
