"""A belt for the crossing bench: its true motion, its parts, and all that the station is told of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from board.gate.ahead import Driver
from board.gate.motion import Origin
from board.gate.settings import GateSettings
from protocol.messages import Decision, Trigger
from sim.motion import BeltMotion, Stop
from tests.survival.fabric_model import NEVER

BeltKind = Literal["right", "wrong speed", "stop and go", "wrong speed, stop and go"]
SPEED_MM_S = 400.0
SETTINGS = GateSettings()  # 300 mm to the gate, windows of 80 mm
PITCH_MM = (20.0, 150.0)
SPEED_ERROR = (0.5, 2.0)
STOP_EVERY_MM, STOP_S = (100.0, 1500.0), (0.02, 1.2)
BEHIND = 6  # parts that follow the last one that counts
DECISIONS: tuple[Decision, ...] = ("OK", "REJECT", "UNKNOWN")
SHARES = (0.7, 0.25, 0.05)
NEVER_SHARE = 0.02  # of the verdicts never come
VERDICT_S = (0.04, 0.12)
TOLD_NS = (200_000, 3_000_000)  # after it happened, the gate is told
READ_NS = (3_000_000, 12_000_000)  # from one reading of the encoder, and of the barriers, to the next
VIEW_NS = 33_000_000
VIEW_MM = 240.0  # of the belt that a free-running camera sees, its middle where the trigger lies
UM_PER_COUNT = 100
CYCLE_NS = 1000  # of the timer's model
NS = 1_000_000_000
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Event(NamedTuple):
    t_ns: int
    what: int
    trigger: Trigger | None
    decision: Decision
    happened_ns: int
    position_um: int

    def tell(self, gate: Driver) -> None:
        if self.what == MOVED:
            gate.moved(self.position_um, self.happened_ns)
        elif self.what == SEEN:
            gate.seen_until(self.happened_ns)
        elif self.what == PASSAGE:
            gate.at_gate(self.happened_ns)
        elif self.trigger and self.what == CAME:
            gate.expect(self.trigger)
        elif self.trigger:
            gate.apply(self.trigger, self.decision)


CAME, VERDICT, PASSAGE, MOVED, SEEN = range(5)


@dataclass(frozen=True)
class CrossedBelt:
    """`speed_mm_s` is what the station was told; times begin at one second."""

    by: Origin
    motion: BeltMotion
    ways_mm: Floats  # of the belt, when each part's middle is at the light barrier
    decisions: list[Decision]
    verdicts_s: Floats  # after the trigger; infinite: never
    told_ns: int
    read_ns: int

    @cached_property
    def is_good(self) -> NDArray[np.bool_]:
        return np.array([decision == "OK" for decision in self.decisions]) & np.isfinite(self.verdicts_s)

    def times_ns(self, ways_mm: Floats) -> Ints:
        return NS + (self.motion.times_s(ways_mm) * NS).astype(np.int64)

    @cached_property
    def came_ns(self) -> Ints:
        return self.times_ns(self.ways_mm)

    @cached_property
    def passed_ns(self) -> Ints:
        """At the second barrier, where their windows begin."""
        return self.times_ns(self.ways_mm + SETTINGS.distance_mm - SETTINGS.window_mm / 2)

    @cached_property
    def ends_ns(self) -> int:
        return int(self.times_ns(self.ways_mm[-1:] + 500)[0])

    def positions_um(self, times_ns: Ints) -> Ints:
        """As an encoder tells them."""
        ways_um = self.motion.ways_mm((times_ns - NS) / NS) * 1000
        return (ways_um // UM_PER_COUNT).astype(np.int64) * UM_PER_COUNT

    def events(self) -> list[Event]:
        """In the order in which they are told."""
        found = [*self._parts(), *self._readings()]
        if self.by == "barriers":
            found += [
                Event(int(t_ns) + self.told_ns, PASSAGE, None, "UNKNOWN", int(t_ns), 0) for t_ns in self.passed_ns
            ]
        return sorted(found, key=lambda event: event.t_ns)

    def _parts(self) -> Iterator[Event]:
        positions = self.positions_um(self.came_ns)
        late_ns = VIEW_NS if self.by == "view" else self.told_ns  # a view shows that a part has crossed its middle
        for number, (t_ns, verdict_s) in enumerate(zip(self.came_ns.tolist(), self.verdicts_s, strict=True)):
            place = int(positions[number]) if self.by == "encoder" else None
            trigger = Trigger("run", number, t_ns, "clock", place)
            yield Event(t_ns + late_ns, CAME, trigger, "UNKNOWN", t_ns, 0)
            if np.isfinite(verdict_s):
                yield Event(t_ns + int(verdict_s * NS), VERDICT, trigger, self.decisions[number], t_ns, 0)

    def _readings(self) -> Iterator[Event]:
        """Encoder or views, and how far the source has looked."""
        is_view = self.by == "view"
        every_ns = VIEW_NS if is_view else self.read_ns
        times_ns = np.arange(NS, self.ends_ns, every_ns)
        if self.by in ("encoder", "view"):
            late_ns = VIEW_NS if is_view else self.told_ns
            seen = self._are_in_view(times_ns) if is_view else np.ones(len(times_ns), bool)
            positions = self.positions_um(times_ns)
            for t_ns, position_um in zip(times_ns[seen].tolist(), positions[seen].tolist(), strict=True):
                yield Event(t_ns + late_ns, MOVED, None, "UNKNOWN", t_ns, position_um)
        told_ns = 2 * VIEW_NS if is_view else self.told_ns
        for t_ns in times_ns.tolist():
            yield Event(t_ns + told_ns, SEEN, None, "UNKNOWN", t_ns - told_ns, 0)

    def _are_in_view(self, times_ns: Ints) -> NDArray[np.bool_]:
        ways_mm = self.motion.ways_mm((times_ns - NS) / NS)
        first = np.searchsorted(self.ways_mm, ways_mm - VIEW_MM / 2, side="right")
        nearest = self.ways_mm[np.minimum(first, len(self.ways_mm) - 1)]
        return (first < len(self.ways_mm)) & (nearest < ways_mm + VIEW_MM / 2)


class Counted:
    """The same belt as the overlay's encoder counts it, in cycles of its timer."""

    def __init__(self, motion: BeltMotion) -> None:
        self._motion = motion
        self._rests: list[tuple[int, int]] = []  # from the last count before a stop to the first one after it
        for begin_s, _ in motion.stops_s():
            counts = int(motion.way_mm(begin_s) * 1000 // UM_PER_COUNT)
            self._rests.append((self.cycle_of(counts), self.cycle_of(counts + 1)))

    def counts(self, cycle: int) -> int:
        return int(self._motion.way_mm((cycle * CYCLE_NS - NS) / NS) * 1000 // UM_PER_COUNT) if cycle else 0

    def cycle_of(self, counts: int) -> int:
        return _cycle(self._motion.time_s(counts * UM_PER_COUNT / 1000)) + 1

    def silent_from(self, cycle: int, silence: int) -> int:
        first = max(0, bisect_right(self._rests, (cycle - silence, 0)) - 1)
        for begin, end in self._rests[first:]:
            if begin + silence < end and cycle < end:
                return max(cycle, begin + silence)
        return NEVER


def _cycle(t_s: float) -> int:
    return int((NS + t_s * NS) // CYCLE_NS)


def draw_belt(by: Origin, kind: BeltKind, parts: int, seed: int) -> CrossedBelt:
    """`parts` that count, and those behind them."""
    rng = np.random.default_rng([seed, parts])
    count = parts + BEHIND
    ways_mm = 100 + np.cumsum(rng.uniform(*PITCH_MM, count))
    verdicts_s = rng.uniform(*VERDICT_S, count)
    verdicts_s[rng.random(count) < NEVER_SHARE] = np.inf
    return CrossedBelt(
        by,
        draw_motion(kind, float(ways_mm[-1]) + 1000, rng),
        ways_mm,
        rng.choice(np.array(DECISIONS), count, p=SHARES).tolist(),
        verdicts_s,
        int(rng.integers(*TOLD_NS)),
        int(rng.integers(*READ_NS)),
    )


def draw_motion(kind: BeltKind, until_mm: float, rng: np.random.Generator) -> BeltMotion:
    low, high = np.log(SPEED_ERROR)
    factor = float(np.exp(rng.uniform(low, high))) if "wrong" in kind else 1.0
    stops: list[Stop] = []
    at_mm = float(rng.uniform(*STOP_EVERY_MM))
    while "stop" in kind and at_mm < until_mm:
        stops.append(Stop(at_mm, float(rng.uniform(*STOP_S))))
        at_mm += float(rng.uniform(*STOP_EVERY_MM))
    return BeltMotion(SPEED_MM_S * factor, stops)
