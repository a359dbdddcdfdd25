"""The line's timer as Verilog, behind its AXI4-Lite slave, whose rules are looked at in every cycle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from board.overlay.registers import REFUSED_LONG, REFUSED_OVERLAP, REFUSED_PAST, timer_version
from board.overlay.simulation.timer import TimerSimulator

LIMIT = 500
FILTER_CYCLES = 20


@pytest.fixture
def timer(timer_library: Path) -> Iterator[TimerSimulator]:
    with TimerSimulator(timer_library) as opened:
        opened.write("GATE_LIMIT", LIMIT)
        yield opened
        opened.check()


def queue(timer: TimerSimulator, start: int, cycles: int) -> int:
    """Why the window is refused; that is then cleared."""
    for name, value in (("GATE_LOW", start & 0xFFFF_FFFF), ("GATE_HIGH", start >> 32), ("GATE_CYCLES", cycles)):
        timer.write(name, value)
    why = timer.read("GATE_REFUSED")
    timer.write("GATE_REFUSED", why)
    return why


def test_a_refusal_can_be_read_at_once(timer: TimerSimulator) -> None:
    timer.run(100)
    assert queue(timer, 10, 5) == REFUSED_PAST
    assert queue(timer, 1000, LIMIT + 1) == REFUSED_LONG
    assert queue(timer, 1000, LIMIT) == 0
    assert queue(timer, 1000 + LIMIT, 5) == REFUSED_OVERLAP
    assert timer.read("TIMER_VERSION") == timer_version()


def test_the_gate_closes_at_the_end_of_its_window_though_nobody_reaches_for_the_timer_any_more(
    timer: TimerSimulator,
) -> None:
    assert queue(timer, 200, 300) == 0
    timer.run(10_000)
    assert timer.moves() == [(201, True), (501, False)]


def test_the_gate_is_closed_after_a_reset_until_a_limit_is_set(timer: TimerSimulator) -> None:
    assert queue(timer, 200, 300) == 0
    timer.write("TIMER_MARK", 7)
    timer.run(300)
    assert timer.pins()[0]
    timer.reset()
    assert not timer.pins()[0]
    assert timer.read("TIMER_MARK") == 0
    assert queue(timer, 200, 1) == REFUSED_LONG
    timer.run(1000)
    assert not timer.pins()[0]


@pytest.mark.parametrize("seed", range(3))
def test_random_windows_move_the_gate_as_programmed(timer: TimerSimulator, seed: int) -> None:
    """Windows behind each other, some cut by a part that must not pass."""
    rng = np.random.default_rng(seed)
    expected: list[tuple[int, bool]] = []
    for _ in range(60):
        start = timer.cycle() + int(rng.integers(100, 300))
        cycles = int(rng.integers(1, LIMIT + 1))
        assert queue(timer, start, cycles) == 0
        end = start + cycles
        if rng.random() < 0.4:
            end = int(rng.integers(start + 1, end + 1))
            assert queue(timer, end, 0) == 0
        expected += [(start + 1, True), (end + 1, False)]
        timer.run(max(0, end - timer.cycle()) + int(rng.integers(0, 50)))
    timer.run(10)
    assert timer.moves() == expected


def test_a_random_beam_is_read_part_by_part_with_gaps_where_parts_were_lost(timer: TimerSimulator) -> None:
    rng = np.random.default_rng(5)
    timer.write("BARRIER_FILTER", FILTER_CYCLES)
    edges, found = [], []
    for number in range(120):
        edges.append(timer.cycle())
        timer.set_pins(barrier=True)
        for level in (False, True) * int(rng.integers(0, 3)):  # bounces: the stamp is that of the last of them
            timer.run(int(rng.integers(1, FILTER_CYCLES - 4)))
            timer.set_pins(barrier=level)
            edges[-1] = timer.cycle()
        timer.run(2 * FILTER_CYCLES)
        timer.set_pins(barrier=False)
        timer.run(2 * FILTER_CYCLES + int(rng.integers(100)))
        if 40 <= number < 60:
            continue  # nobody reads: five are lost
        while timer.read("BARRIER_NEXT"):
            stamp = timer.read("BARRIER_LOW") | timer.read("BARRIER_HIGH") << 32
            found.append((timer.read("BARRIER_SEQUENCE"), stamp))
            timer.write("BARRIER_NEXT", 0)
    assert [sequence for sequence, _ in found] == [*range(56), *range(61, 120)]
    assert all(0 <= stamp - edges[sequence] <= 3 for sequence, stamp in found)
    assert timer.read("BARRIER_LOST") == 1
    assert timer.read("BARRIER_COUNT") == 120 | 5 << 16
