"""The bench of the overlay: what it measures of a frame is so, and a missed goal is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from board.overlay.errors import OverlayError
from board.overlay.isa import Compute
from board.overlay.simulation.simulator import Simulator
from host.compiler.compilation import compile_net
from host.compiler.table import make_rows
from host.compiler.timing import CLOCK_HZ, predict
from host.export.untrained import make_untrained
from host.integers.arithmetic import Conv
from host.learning.network import Widths
from tests.benches.overlay import (
    LEAST_HZ,
    SAMPLE_CYCLES,
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
from tests.host.compiler.test_timing import ERROR

NET = make_untrained(Widths((16, 16, 16, 16, 16), 16, 16), (64, 64))


@pytest.fixture
def candidate() -> Candidate:
    return Candidate("small", NET, random_image(np.random.default_rng(0), NET.input_px))


def test_computations_end_when_the_counter_of_steps_says(simulator: Simulator, candidate: Candidate) -> None:
    compiled = compile_net(NET)
    done, ends = simulate(simulator, compiled, candidate)
    assert count_steps(compiled)[-1] == done.counters["CYCLES_MAC"]
    predicted = predict(compiled.instructions).ends.tolist()
    pairs = zip(compiled.instructions, predicted, strict=False)
    assert ends == pytest.approx(
        [end for item, end in pairs if isinstance(item, Compute)], rel=ERROR, abs=SAMPLE_CYCLES
    )
    rows = make_rows(compiled, ends)
    assert sum(row.cycles for row in rows) == pytest.approx(ends[-1], abs=len(rows))


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
