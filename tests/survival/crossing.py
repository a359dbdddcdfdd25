"""Does a part that is not OK ever cross an open gate? Hundreds of thousands of parts, on belts that run wrongly.

    beltsight survive --crossing [--parts 200000] [--seed 0]

The station's own keeper, geometry, motion and gates, with a clock, pins and an overlay of the simulation's: no process,
no thread, no waiting. Parts lie at random pitches; where each is when the gate is open is known from the belt itself.
A part crosses while its middle is at the gate's line, which is 2 mm wide. One that is not OK crossed an open gate if
the gate was told to be open at any moment of that, or had been by less than its own reaction before. A good part was
stopped if the gate was not told in time to be open when its middle came to the line; `forced.py` says which of them
have to be.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from board.engines.fpga import Logic
from board.gate.ahead import Driver
from board.gate.gate import Gate
from board.gate.keeper import Keeper, Mode
from board.gate.motion import MotionSettings, Origin
from board.gate.pins import DryPin, GpioPin
from board.gate.settings import EncoderSettings
from board.gate.timer import LineTimer
from board.gate.timer_gate import TimerGate
from board.gate.tracks import BeltTrack, TimeTrack, Track
from protocol.errors import InputError, run_main
from sim.passing import LINE_MM, read_gate_log
from tests.survival.crossed_belt import (
    CYCLE_NS,
    NS,
    SETTINGS,
    SPEED_MM_S,
    UM_PER_COUNT,
    BeltKind,
    Counted,
    CrossedBelt,
    Ints,
    draw_belt,
)
from tests.survival.fabric_model import FabricModel
from tests.survival.forced import LEAD_NS, find_forced, ordered_ns

Kind = Literal["dry", "gpio", "timer"]
RUN_PARTS = 500  # on one belt
MOST_STOPPED = 0.001  # share of the good parts, beyond those that geometry forces
BENCH_ENCODER = EncoderSettings(um_per_count=UM_PER_COUNT)


@dataclass
class Count:
    """Of many runs."""

    parts: int = 0
    crossed_open: int = 0  # parts that are not OK
    good: int = 0
    forced: int = 0  # good ones that have to meet a closed gate, and did
    stopped: int = 0  # good ones beyond those
    opened: int = 0  # good ones that should have been stopped by force, and were not
    counted: int = 0  # good ones that were stopped, by the gate itself

    @property
    def stopped_share(self) -> float:
        return self.stopped / max(1, self.good)

    def add(self, other: Count) -> None:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class World:
    """The clock, and the overlay whose time goes on with it."""

    def __init__(self, fabric: FabricModel | None = None) -> None:
        self.now_ns, self.fabric = NS, fabric
        if fabric:
            fabric.run_to(NS // CYCLE_NS)

    def clock_ns(self) -> int:
        return self.now_ns

    def wait_s(self, timeout_s: float) -> None:
        self.advance(self.now_ns + int(timeout_s * NS))

    def advance(self, t_ns: int) -> None:
        if t_ns > self.now_ns:
            self.now_ns = t_ns
            if self.fabric:
                self.fabric.run_to(t_ns // CYCLE_NS)


class Wire:
    """What a GPIO line is wired to."""

    path = "/none"

    def __init__(self, world: World) -> None:
        self._world = world
        self.moves: list[tuple[int, bool]] = []

    def write(self, value: int) -> None:
        self.moves.append((self._world.now_ns, bool(value)))

    def release(self) -> None: ...


class OpenSpans(NamedTuple):
    starts_ns: Ints
    ends_ns: Ints

    @classmethod
    def of(cls, moves: list[tuple[int, bool]]) -> OpenSpans:
        spans, since_ns = [], None
        for t_ns, is_open in moves:
            if is_open and since_ns is None:
                since_ns = t_ns
            elif not is_open and since_ns is not None:
                spans.append((since_ns, t_ns))
                since_ns = None
        if since_ns is not None:
            spans.append((since_ns, 2**62))
        table = np.array(spans, np.int64).reshape(-1, 2)
        return cls(table[:, 0], table[:, 1])

    def meet(self, from_ns: Ints, until_ns: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """For each stretch of time: was the gate open at any moment of it?"""
        nearest = np.searchsorted(self.ends_ns, from_ns, side="right")
        begins_ns = np.append(self.starts_ns, 2**62)[nearest]
        return begins_ns <= until_ns


@contextlib.contextmanager
def open_gate(kind: Kind, belt: CrossedBelt, folder: Path) -> Iterator[tuple[Driver, World, Callable[[], OpenSpans]]]:
    """The gate, its world, and what tells when it was open."""
    mode: Mode = "free-running" if belt.by == "view" else "triggered"
    motion = MotionSettings(by=belt.by, encoder=BENCH_ENCODER if belt.by == "encoder" and kind == "timer" else None)
    keeper = Keeper(SETTINGS, SPEED_MM_S, motion, mode)
    if kind == "timer":
        fabric = FabricModel(NS / CYCLE_NS, Counted(belt.motion))
        world = World(fabric)
        timer = LineTimer(Logic(lambda: fabric), world.clock_ns, world.wait_s)
        yield (
            TimerGate(keeper, timer, choose_track(motion), world.clock_ns),
            world,
            lambda: OpenSpans.of([(cycle * CYCLE_NS, is_open) for cycle, is_open in fabric.moves]),
        )
        return
    world = World()
    if kind == "gpio":
        wire = Wire(world)
        yield Gate(keeper, GpioPin(wire), world.clock_ns), world, lambda: OpenSpans.of(wire.moves)
        return
    log = folder / "gate.jsonl"
    pin = DryPin(log, world.clock_ns)
    yield Gate(keeper, pin, world.clock_ns), world, lambda: _read(log)
    pin.close()


def choose_track(motion: MotionSettings) -> Track:
    if motion.encoder:
        return BeltTrack(SETTINGS, motion.encoder, SPEED_MM_S, motion.silence_ms)
    return TimeTrack(SETTINGS, SPEED_MM_S)


def _read(log: Path) -> OpenSpans:
    table = np.array([(span.start_ns, span.end_ns) for span in read_gate_log(log)], np.int64).reshape(-1, 2)
    return OpenSpans(table[:, 0], table[:, 1])


def run_belt(kind: Kind, belt: CrossedBelt, parts: int, folder: Path) -> Count:
    """As the gate's thread and the source's would, in the belt's own time."""
    with open_gate(kind, belt, folder) as (gate, world, spans):
        next_ns = gate.turn()
        for event in belt.events():
            t_ns = event.t_ns
            while next_ns < t_ns:
                world.advance(max(next_ns, world.now_ns + 1))
                next_ns = gate.turn()
            world.advance(t_ns)
            event.tell(gate)
            if gate.has_news:
                next_ns = gate.turn()
        return judge(belt, spans(), parts, int(gate.counters()["good_stopped"]))


def judge(belt: CrossedBelt, spans: OpenSpans, parts: int, counted: int) -> Count:
    line_mm = belt.ways_mm + SETTINGS.distance_mm
    enters_ns = belt.times_ns(line_mm - LINE_MM / 2) - LEAD_NS
    leaves_ns = NS + np.array([int(belt.motion.left_s(at_mm + LINE_MM / 2) * NS) for at_mm in line_mm])
    crossed = spans.meet(enters_ns, leaves_ns) & ~belt.is_good
    ordered = ordered_ns(belt)
    is_open, is_forced = spans.meet(ordered, ordered)[:parts], find_forced(belt)[:parts]
    good = belt.is_good[:parts]
    return Count(
        parts=parts,
        crossed_open=int(crossed.sum()),
        good=int(good.sum()),
        forced=int((good & is_forced & ~is_open).sum()),
        stopped=int((good & ~is_forced & ~is_open).sum()),
        opened=int((good & is_forced & is_open).sum()),
        counted=counted,
    )


@dataclass(frozen=True)
class Case:
    kind: Kind
    by: Origin
    belt: BeltKind


def cases_of(kind: Kind) -> list[Case]:
    """Where nothing measures the belt, nothing can be promised of one that runs wrongly."""
    return [
        Case(kind, by, belt)
        for by in get_args(Origin)
        for belt in (("right",) if by == "nothing" else get_args(BeltKind))
    ]


def cross(case: Case, parts: int, seed: int = 0) -> Count:
    total = Count()
    for run in runs_of(case, parts, seed):
        total.add(cross_belt(run))
    return total


@dataclass(frozen=True)
class Run:
    """One belt: the same whoever draws it."""

    case: Case
    parts: int
    seed: int


def runs_of(case: Case, parts: int, seed: int) -> Iterator[Run]:
    for number in range(-(-parts // RUN_PARTS)):
        yield Run(case, min(RUN_PARTS, parts - number * RUN_PARTS), seed * 10_000 + number)


def cross_belt(run: Run) -> Count:
    belt = draw_belt(run.case.by, run.case.belt, run.parts, run.seed)
    with tempfile.TemporaryDirectory(prefix="crossing-") as folder:
        return run_belt(run.case.kind, belt, run.parts, Path(folder))


def run_all(console: Console, kinds: list[Kind], parts: int, seed: int, jobs: int) -> bool:
    """`parts` of each kind; True if no bad part crossed, and few good ones were stopped."""
    headers = ("gate", "motion", "belt", "parts", "not OK crossed", "good", "stopped by force", "beyond")
    console.print(f"| {' | '.join(headers)} |\n|{'---|' * len(headers)}", soft_wrap=True)
    runs = [run for kind in kinds for case, count in share(kind, parts) for run in runs_of(case, count, seed)]
    totals = {kind: Count() for kind in kinds}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
    ):
        task = progress.add_task("parts", total=parts * len(kinds))
        counts = zip(runs, pool.map(cross_belt, runs, chunksize=2), strict=True)
        for case, group in groupby(counts, key=lambda item: item[0].case):
            seen = Count()
            for run, count in group:
                seen.add(count)
                progress.advance(task, run.parts)
            say(console, f"{case.kind} | {case.by} | {case.belt}", seen)
            totals[case.kind].add(seen)
    for kind, total in totals.items():
        say(console, f"**{kind}** | all | all", total)
    return all(not total.crossed_open and total.stopped_share <= MOST_STOPPED for total in totals.values())


def share(kind: Kind, parts: int) -> list[tuple[Case, int]]:
    """The same number of parts on each kind of belt, as far as they go."""
    cases = cases_of(kind)
    ends = [parts * number // len(cases) for number in range(len(cases) + 1)]
    return [(case, end - begin) for case, begin, end in zip(cases, ends, ends[1:], strict=False)]


def say(console: Console, what: str, seen: Count) -> None:
    beyond = f"{seen.stopped} ({100 * seen.stopped_share:.3f} %)"
    counts = (f"{count:,}" for count in (seen.parts, seen.crossed_open, seen.good, seen.forced))
    console.print(f"| {what} | {' | '.join(counts)} | {beyond} |", highlight=False, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight survive --crossing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", type=int, default=200_000, help="for each kind of gate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of belts and parts (default: %(default)s)")
    parser.add_argument("--kind", choices=get_args(Kind), help="only this kind of gate")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once (default: %(default)s)")
    options = parser.parse_args()
    for name in ("parts", "jobs"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}: give 1 or more")
    kinds = [options.kind] if options.kind else list(get_args(Kind))
    return 0 if run_all(Console(), kinds, options.parts, options.seed, options.jobs) else 1


if __name__ == "__main__":
    sys.exit(run_main(main))
