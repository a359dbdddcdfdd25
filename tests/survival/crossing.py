"""Does a part that is not OK ever cross an open gate? Hundreds of thousands of parts, on belts that run wrongly.

    python -m tests.survival.crossing [--parts 200000] [--seed 0]

The station's own geometry, motion and drivers, with a clock, a pin and a timer of the simulation's: no process, no
thread, no waiting. Parts lie at random pitches; where each is when the gate is open is known from the belt itself.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, cast, get_args

import numpy as np

from board.gate.gate import Gate
from board.gate.keeper import Keeper
from board.gate.motion import MotionSettings, Origin
from board.gate.settings import GateSettings
from board.gate.timer import LineTimer
from board.gate.timer_gate import TimerGate
from protocol.messages import Decision, Trigger
from sim.motion import BeltMotion, Stop
from tests.survival.fabric_queue import FabricQueue

Kind = Literal["pin", "timer"]
BeltKind = Literal["right", "wrong speed", "stop and go", "wrong speed, stop and go"]
SPEED_MM_S = 400.0
SETTINGS = GateSettings()  # 300 mm to the gate, windows of 80 mm
PITCH_MM = (20.0, 150.0)
SPEED_ERROR = (0.5, 2.0)
RUN_PARTS = 500  # on one belt
DECISIONS: tuple[Decision, ...] = ("OK", "REJECT", "UNKNOWN")
SHARES = (0.7, 0.25, 0.05)
LATE_SHARE = 0.02  # of the verdicts, which come when the part has gone by
TOLD_NS = 1_000_000  # after it happened, the gate is told
READ_NS = 5_000_000  # from one reading of the encoder, and of the barriers, to the next
VIEW_NS = 33_000_000
VIEW_MM = 240.0  # of the belt that a free-running camera sees, its middle where the trigger lies
RESOLUTION_UM = 100
NS = 1_000_000_000


@dataclass(frozen=True)
class Part:
    part_id: int
    at_mm: float  # way of the belt when its middle is at the light barrier
    decision: Decision
    verdict_s: float | None  # after its trigger; None: never

    @property
    def is_good(self) -> bool:
        return self.decision == "OK" and self.verdict_s is not None


@dataclass
class Count:
    """Of many runs."""

    parts: int = 0
    crossed_open: int = 0  # parts that are not OK
    good: int = 0
    forced: int = 0  # good ones whose window is another's, too
    stopped: int = 0  # good ones beyond those
    counted: int = 0  # by the gate itself

    @property
    def stopped_share(self) -> float:
        return self.stopped / max(1, self.good)


@dataclass
class World:
    """Clock, pin and timer."""

    now_ns: int = NS
    moves: list[tuple[int, bool]] = field(default_factory=list)
    fabric: FabricQueue | None = None

    def write(self, is_open: bool, part_id: int) -> None:  # noqa: ARG002 - a pin
        self.moves.append((self.now_ns, is_open))

    def close(self) -> None: ...

    def advance(self, t_ns: int) -> None:
        self.now_ns = max(self.now_ns, t_ns)
        if self.fabric:
            self.fabric.run_to(self.now_ns // 1000)

    def openings(self) -> list[tuple[int, bool]]:
        return [(cycle * 1000, is_open) for cycle, is_open in self.fabric.moves] if self.fabric else self.moves


@dataclass(frozen=True)
class Run:
    """One belt, its parts, and how the station learns of them."""

    kind: Kind
    by: Origin
    motion: BeltMotion
    parts: list[Part]

    def cross(self, total: Count) -> None:
        world = World(fabric=FabricQueue(1e6) if self.kind == "timer" else None)
        gate = self._open_gate(world)
        next_ns = gate.turn()
        for t_ns, event in self._events():
            next_ns = self._turn_until(gate, world, next_ns, t_ns)
            world.advance(t_ns)
            event.tell(gate)
            if gate.has_news:
                next_ns = gate.turn()
        self._turn_until(gate, world, next_ns, world.now_ns + NS)
        self._judge(world.openings(), total)
        total.counted += int(gate.counters()["good_stopped"])

    def _open_gate(self, world: World) -> Gate | TimerGate:
        mode: Literal["triggered", "free-running"] = "free-running" if self.by == "view" else "triggered"
        keeper = Keeper(SETTINGS, SPEED_MM_S, MotionSettings(by=self.by), mode)
        if world.fabric:
            world.fabric.run_to(world.now_ns // 1000)
            timer = cast(LineTimer, world.fabric)
            return TimerGate(keeper, timer, SETTINGS.window_ns(SPEED_MM_S), lambda: world.now_ns)
        return Gate(keeper, world, lambda: world.now_ns)

    def _turn_until(self, gate: Gate | TimerGate, world: World, next_ns: int, t_ns: int) -> int:
        """As the gate's thread does."""
        while next_ns < t_ns:
            world.advance(max(next_ns, world.now_ns + 1))
            next_ns = gate.turn()
        return next_ns

    def _judge(self, moves: list[tuple[int, bool]], total: Count) -> None:
        times = [t_ns for t_ns, _ in moves]
        bad_mm = np.array([part.at_mm for part in self.parts if not part.is_good])
        for part in self.parts:
            at_ns = self._ns(part.at_mm + SETTINGS.distance_mm) - int(SETTINGS.lead_ms * 1e6)
            index = bisect_right(times, at_ns) - 1
            is_open = index >= 0 and moves[index][1]
            total.parts += 1
            if not part.is_good:
                total.crossed_open += is_open
                continue
            is_forced = bool(np.any(np.abs(bad_mm - part.at_mm) <= SETTINGS.window_mm / 2))
            total.good += 1
            total.forced += is_forced
            total.stopped += not is_open and not is_forced

    def _ns(self, way_mm: float) -> int:
        return NS + int(self.motion.time_s(way_mm) * NS)

    def _events(self) -> Iterator[tuple[int, Event]]:
        ends_ns = self._ns(self.parts[-1].at_mm + 500)
        order = count()
        streams = [self._triggers(), self._verdicts(), self._readings(ends_ns)]
        if self.by == "barriers":
            streams.append(self._passages())
        keyed = [((t_ns, next(order), event) for t_ns, event in stream) for stream in streams]
        for t_ns, _, event in heapq.merge(*keyed, key=lambda item: item[0]):
            yield t_ns, event

    def _triggers(self) -> Iterator[tuple[int, Event]]:
        for part in self.parts:
            late_ns = VIEW_NS if self.by == "view" else TOLD_NS  # a view shows that a part has crossed its middle
            yield self._ns(part.at_mm) + late_ns, Event("trigger", trigger=self._trigger(part))

    def _trigger(self, part: Part) -> Trigger:
        t_ns = self._ns(part.at_mm)
        return Trigger("run", part.part_id, t_ns, "clock", self._encoder_um(t_ns) if self.by == "encoder" else None)

    def _verdicts(self) -> Iterator[tuple[int, Event]]:
        verdicts = [
            (self._ns(part.at_mm) + int(part.verdict_s * NS), Event("verdict", self._trigger(part), part.decision))
            for part in self.parts
            if part.verdict_s is not None
        ]
        return iter(sorted(verdicts, key=lambda item: item[0]))

    def _passages(self) -> Iterator[tuple[int, Event]]:
        for part in self.parts:
            t_ns = self._ns(part.at_mm + SETTINGS.distance_mm - SETTINGS.window_mm / 2)
            yield t_ns + TOLD_NS, Event("passage", t_ns=t_ns)

    def _readings(self, ends_ns: int) -> Iterator[tuple[int, Event]]:
        """Encoder or views, and how far the source has looked."""
        for t_ns in range(NS, ends_ns, VIEW_NS if self.by == "view" else READ_NS):
            if self.by == "encoder":
                yield t_ns + TOLD_NS, Event("moved", t_ns=t_ns, position_um=self._encoder_um(t_ns))
            elif self.by == "view" and self._is_in_view(t_ns):
                yield t_ns + VIEW_NS, Event("moved", t_ns=t_ns, position_um=self._encoder_um(t_ns))
            told_ns = 2 * VIEW_NS if self.by == "view" else TOLD_NS
            yield t_ns + told_ns, Event("seen", t_ns=t_ns - told_ns)

    def _encoder_um(self, t_ns: int) -> int:
        return int(self.motion.way_mm((t_ns - NS) / NS) * 1000) // RESOLUTION_UM * RESOLUTION_UM

    def _is_in_view(self, t_ns: int) -> bool:
        way_mm = self.motion.way_mm((t_ns - NS) / NS)
        index = bisect_right(self.parts, way_mm - VIEW_MM / 2, key=lambda part: part.at_mm)
        return index < len(self.parts) and self.parts[index].at_mm < way_mm + VIEW_MM / 2


@dataclass(frozen=True)
class Event:
    what: Literal["trigger", "verdict", "passage", "moved", "seen"]
    trigger: Trigger | None = None
    decision: Decision = "UNKNOWN"
    t_ns: int = 0
    position_um: int = 0

    def tell(self, gate: Gate | TimerGate) -> None:
        if self.trigger and self.what == "trigger":
            gate.expect(self.trigger)
        elif self.trigger:
            gate.apply(self.trigger, self.decision)
        elif self.what == "passage":
            gate.at_gate(self.t_ns)
        elif self.what == "moved":
            gate.moved(self.position_um, self.t_ns)
        else:
            gate.seen_until(self.t_ns)


def draw_run(kind: Kind, by: Origin, belt: BeltKind, parts: int, seed: int) -> Run:
    rng = np.random.default_rng([seed, parts])
    ways = 100 + np.cumsum(rng.uniform(*PITCH_MM, parts))
    decisions = rng.choice(np.array(DECISIONS), parts, p=SHARES)
    return Run(
        kind,
        by,
        draw_belt(belt, float(ways[-1]) + 1000, rng),
        [
            Part(number, float(ways[number]), decisions[number], float(rng.uniform(0.04, 0.12)))
            if rng.random() > LATE_SHARE
            else Part(number, float(ways[number]), "UNKNOWN", None)
            for number in range(parts)
        ],
    )


def draw_belt(belt: BeltKind, until_mm: float, rng: np.random.Generator) -> BeltMotion:
    low, high = np.log(SPEED_ERROR)
    factor = float(np.exp(rng.uniform(low, high))) if "wrong" in belt else 1.0
    stops: list[Stop] = []
    at_mm = float(rng.uniform(100, 1500))
    while "stop" in belt and at_mm < until_mm:
        stops.append(Stop(at_mm, float(rng.uniform(0.02, 1.2))))
        at_mm += float(rng.uniform(100, 1500))
    return BeltMotion(SPEED_MM_S * factor, stops)


def belts_of(by: Origin) -> tuple[BeltKind, ...]:
    """Where nothing measures the belt, nothing can be promised of one that runs wrongly."""
    return ("right",) if by == "nothing" else get_args(BeltKind)


def cross(kind: Kind, by: Origin, belt: BeltKind, parts: int, seed: int = 0) -> Count:
    total = Count()
    for number in range(-(-parts // RUN_PARTS)):
        draw_run(kind, by, belt, min(RUN_PARTS, parts - total.parts), seed * 10_000 + number).cross(total)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=200_000, help="for each kind of gate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cases = [(by, belt) for by in get_args(Origin) for belt in belts_of(by)]
    print("gate   motion    belt                      parts  not OK crossed  good  forced  stopped beyond      s")
    failed = False
    for kind in get_args(Kind):
        for by, belt in cases:
            began_s = time.monotonic()
            seen = cross(kind, by, belt, -(-arguments.parts // len(cases)), arguments.seed)
            took_s = time.monotonic() - began_s
            print(
                f"{kind:6} {by:9} {belt:25} {seen.parts:6} {seen.crossed_open:15} {seen.good:5} {seen.forced:7} "
                f"{seen.stopped:7} {100 * seen.stopped_share:6.2f} % {took_s:6.0f}",
                flush=True,
            )
            failed |= seen.crossed_open > 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
