"""The bench of the overlay: what it measures of a frame is so, and a missed goal is told."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from board.overlay.errors import OverlayError
from board.overlay.isa import Compute
from board.overlay.simulation.simulator import Simulator
from host.compiler.compilation import compile_net
from host.compiler.timing import CLOCK_HZ
from host.export.untrained import make_untrained
from host.integers.arithmetic import Conv
from host.learning.network import Widths
from tests.benches.overlay import (
    LEAST_HZ,
    SMALL_PX,
    Candidate,
    Result,
    count_steps,
    find_missed,
    measure,
    simulate,
    write_results,
)
from tests.host.compiler.random_layers import random_image
from tests.host.compiler.test_timing import ERROR, run_frame

NET = make_untrained(Widths((16, 16, 16, 16, 16), 16, 16), (64, 64))


@pytest.fixture
def candidate() -> Candidate:
    return Candidate("small", NET, random_image(np.random.default_rng(0), NET.input_px))


def test_cycles_of_layers_are_those_of_a_program_that_ends_behind_them(
    simulator: Simulator, candidate: Candidate
) -> None:
    compiled = compile_net(NET)
    done, ends = simulate(simulator, compiled, candidate)
    assert count_steps(compiled)[-1] == done.counters["CYCLES_MAC"]
    owners = [*compiled.owners, None]
    lasts = [number for number, (one, other) in enumerate(pairwise(owners)) if one is not other]
    for last, end in zip(lasts[:-1], ends[:-1], strict=True):
        if isinstance(compiled.instructions[last], Compute):
            assert end == pytest.approx(run_frame(simulator, compiled, last + 1)["CYCLES"], rel=ERROR)


def test_a_wrong_map_is_no_measurement(simulator: Simulator, candidate: Candidate) -> None:
    first = NET.layers[0]
    assert isinstance(first, Conv)
    other = replace(NET, layers=(replace(first, bias=first.bias + np.int32(5000)), *NET.layers[1:]))
    with pytest.raises(OverlayError, match="another map"):
        simulate(simulator, compile_net(other), candidate)


def with_cycles(result: Result, cycles: int) -> Result:
    rows = [replace(row, cycles=row.cycles * cycles // result.cycles) for row in result.rows]
    return replace(result, counters=result.counters | {"CYCLES": cycles}, predicted=cycles, rows=rows)


def test_each_goal_that_is_missed_is_told(simulator: Simulator, candidate: Candidate) -> None:
    """The small network's figures, taken for those of a picture of 128 × 128."""
    measured = measure(simulator, candidate)
    measured = replace(measured, candidate=replace(candidate, net=replace(NET, input_px=SMALL_PX)))
    reached = with_cycles(measured, measured.cycles // 5)
    assert find_missed(reached) == []
    assert f"| cycles | {reached.cycles:,} |" in write_results([reached])
    slow = with_cycles(measured, round(1.01 * CLOCK_HZ / LEAST_HZ[SMALL_PX]))
    idle = replace(reached, rows=slow.rows)
    wrong = replace(reached, predicted=round(1.021 * reached.cycles))
    told = [find_missed(result) for result in (slow, idle, wrong)]
    assert [len(lines) for lines in told] == [2, 1, 1]
    assert "148.5 frames/s, wanted 150" in told[0][0]
    assert "of the array, wanted 70%" in told[1][0]
    assert "prediction +2." in told[2][0]
