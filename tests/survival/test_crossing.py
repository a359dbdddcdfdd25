"""A sample of `crossing.py`, and its model of the overlay's timer against the Verilog."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import get_args

import pytest

from board.engines.fpga import Logic
from board.gate.timer import LineTimer
from board.gate.tracks import TimeTrack, Window
from board.overlay.registers import BY_POSITION, ENCODER_QUADRATURE
from board.overlay.simulation.timer import TimerSimulator
from tests.survival.crossed_belt import SETTINGS, SPEED_MM_S
from tests.survival.crossing import Case, Kind, World, cases_of, cross
from tests.survival.fabric_model import NEVER, FabricModel

CASES = [case for kind in get_args(Kind) for case in cases_of(kind) if kind != "dry" or case.belt == "right"]
LATENCY = 40  # cycles: of a write, of the encoder's filter, and of the gate's own registers


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}, {case.by}, {case.belt}")
def test_nobody_who_is_not_ok_crosses_an_open_gate_and_good_parts_do(case: Case) -> None:
    seen = cross(case, 60, seed=7)
    assert seen.parts == 60
    assert (seen.crossed_open, seen.stopped) == (0, 0)
    if case.by == "barriers":
        assert seen.opened == 0, "a part whose way was not timed right"


def test_a_window_that_is_programmed_late_ends_in_time() -> None:
    world = World(FabricModel(1e6, Scripted()))
    fabric = world.fabric
    assert fabric
    timer = LineTimer(Logic(lambda: fabric), world.clock_ns, world.wait_s)
    track = TimeTrack(SETTINGS, SPEED_MM_S)
    track.registers(timer)
    start, end = track.place(timer, Window(world.now_ns - 50_000_000, world.now_ns + 100_000_000), world.clock_ns)
    assert start > fabric.cycle
    assert end == fabric.cycle + 100_000


class Scripted:
    """A belt whose counts come when the test has said so."""

    def __init__(self) -> None:
        self.cycles: list[int] = []  # of each count

    def counts(self, cycle: int) -> int:
        return bisect_right(self.cycles, cycle)

    def cycle_of(self, counts: int) -> int:
        if counts <= 0:
            return 0
        return self.cycles[counts - 1] if counts <= len(self.cycles) else NEVER

    def silent_from(self, cycle: int, silence: int) -> int:
        for number in range(max(0, bisect_left(self.cycles, cycle - silence) - 1), len(self.cycles)):
            falls = self.cycles[number] + silence
            if falls < self.cycle_of(number + 2) and (
                number + 1 == len(self.cycles) or cycle < self.cycles[number + 1]
            ):
                return max(cycle, falls)
        return NEVER if self.cycles else cycle


class Pair:
    """The Verilog and its model, told the same."""

    def __init__(self, timer: TimerSimulator) -> None:
        self.timer, self.belt = timer, Scripted()
        timer.reset()
        self.model = FabricModel(1.0, self.belt, timer.cycle())

    def write(self, register: str, value: int) -> None:
        self.model.run_to(self.timer.cycle())
        self.timer.write(register, value)
        self.model.write(register, value)

    def queue(self, start: int, length: int) -> None:
        self.write("GATE_REFUSED", 0x1F)
        for register, value in (("GATE_LOW", start & 0xFFFF_FFFF), ("GATE_HIGH", start >> 32), ("GATE_CYCLES", length)):
            self.write(register, value)
        assert self.timer.read("GATE_REFUSED") == self.model.read("GATE_REFUSED")

    def run(self, cycles: int) -> None:
        self.timer.run(cycles)
        self.model.run_to(self.timer.cycle())

    def move(self, counts: int, cycles_each: int) -> None:
        begin = self.timer.cycle()
        self.timer.move_belt(counts, cycles_each)
        self.belt.cycles += [begin + number * cycles_each for number in range(counts)]
        self.model.run_to(self.timer.cycle())

    def check(self) -> None:
        assert [is_open for _, is_open in self.timer.moves()] == [is_open for _, is_open in self.model.moves]
        for (cycle, _), (expected, _) in zip(self.timer.moves(), self.model.moves, strict=True):
            assert cycle == pytest.approx(expected, abs=LATENCY)


@pytest.mark.parametrize("seed", range(3))
def test_the_model_of_the_timer_opens_in_time_as_the_verilog_does(timer_library: Path, seed: int) -> None:
    rng = random.Random(seed)
    with TimerSimulator(timer_library) as timer:
        pair = Pair(timer)
        pair.write("GATE_LIMIT", 400)
        for _ in range(60):
            pair.run(rng.choice((5, 40, 300)))
            if rng.random() < 0.1:
                pair.write("GATE_SHUT", 1)
            else:
                pair.queue(timer.cycle() + rng.randrange(100, 1500), rng.choice((50, 200, 400, 401)))
        pair.run(3000)
        pair.check()


@pytest.mark.parametrize("seed", range(3))
def test_and_by_positions_of_a_belt_that_stops(timer_library: Path, seed: int) -> None:
    rng = random.Random(seed)
    with TimerSimulator(timer_library) as timer:
        pair = Pair(timer)
        for register, value in (("ENCODER_SILENCE", 2000), ("ENCODER_BACK", 20), ("GATE_LIMIT", 6000)):
            pair.write(register, value)
        pair.write("ENCODER_MODE", ENCODER_QUADRATURE | BY_POSITION)
        for _ in range(40):
            pair.move(rng.randrange(1, 30), 100)
            if rng.random() < 0.3:
                pair.run(rng.choice((500, 4000)))
            if timer.read("ENCODER_FAULT"):
                assert pair.model.read("ENCODER_FAULT") == timer.read("ENCODER_FAULT")
                pair.write("ENCODER_FAULT", 0xF)
            pair.queue(len(pair.belt.cycles) + rng.randrange(2, 40), rng.choice((5, 10, 80)))
        pair.move(150, 100)
        pair.check()
        assert len(timer.moves()) > 10
