"""A sample of `crossing.py`, and its model of the overlay's queue against the Verilog."""

from __future__ import annotations

import random
from pathlib import Path
from typing import get_args

import pytest

from board.gate.motion import Origin
from board.overlay.simulation.timer import TimerSimulator
from tests.survival.crossing import BeltKind, belts_of, cross
from tests.survival.fabric_queue import FabricQueue

CASES = [(by, belt) for by in get_args(Origin) for belt in belts_of(by)]


@pytest.mark.parametrize(("by", "belt"), CASES)
def test_nobody_who_is_not_ok_crosses_an_open_gate(by: Origin, belt: BeltKind) -> None:
    seen = cross("pin", by, belt, 60)
    assert seen.parts == 60
    assert seen.crossed_open == 0
    assert seen.stopped <= (by == "view") or belt != "right"  # the last one, when the view is empty


@pytest.mark.parametrize("by", ["nothing", "barriers"])
def test_nor_one_of_the_timers(by: Origin) -> None:
    seen = cross("timer", by, "right", 100)
    assert (seen.crossed_open, seen.stopped) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_model_of_the_timers_queue_does_as_the_verilog_does(timer_library: Path, seed: int) -> None:
    rng = random.Random(seed)
    with TimerSimulator(timer_library) as timer:
        timer.reset()
        timer.write("GATE_LIMIT", 400)
        model = FabricQueue(1.0, timer.cycle())
        model.write(GATE_LIMIT=400)
        for _ in range(60):
            timer.run(rng.choice((5, 40, 300)))
            start, cycles = timer.cycle() + rng.randrange(100, 1500), rng.choice((50, 200, 400, 401))
            model.run_to(timer.cycle())
            if rng.random() < 0.1:
                timer.write("GATE_SHUT", 1)
                model.write(GATE_SHUT=1)
            else:
                _queue(timer, model, start, cycles)
        timer.run(3000)
        model.run_to(timer.cycle())
        assert [is_open for _, is_open in timer.moves()] == [is_open for _, is_open in model.moves]
        for (cycle, _), (expected, _) in zip(timer.moves(), model.moves, strict=True):
            assert cycle == pytest.approx(expected, abs=30)  # a write takes its time


def _queue(timer: TimerSimulator, model: FabricQueue, start: int, cycles: int) -> None:
    timer.write("GATE_REFUSED", 0x1F)
    timer.write("GATE_LOW", start & 0xFFFF_FFFF)
    timer.write("GATE_HIGH", start >> 32)
    timer.write("GATE_CYCLES", cycles)
    assert bool(timer.read("GATE_REFUSED")) == bool(model.queue_window(start, cycles))
