"""The gate opens for parts that are OK, at the time that trigger and belt speed give, and for nobody else."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from board.gate.gate import NOBODY, Gate, open_gate
from board.gate.motion import MotionSettings
from board.gate.settings import GateSettings
from protocol.errors import InputError
from protocol.messages import MAX_T_NS, Decision, Trigger

TOLERANCE_MS = 20.0  # of a laptop's threads
WITHIN_S = 5.0
SPEED_MM_S = 1000.0
# at 1 m/s: the part's window begins 100 − 40 / 2 − 5 = 75 ms after its trigger and lasts 40 ms
SETTINGS = GateSettings(distance_mm=100, window_mm=40, lead_ms=5)
START_MS, WINDOW_MS = 75.0, 40.0
TRUSTED = MotionSettings(by="nothing")


class Movement(NamedTuple):
    is_open: bool
    part_id: int
    at_ms: float  # after the belt's start


class Belt:
    """A gate, its log, and triggers at given times after the start."""

    def __init__(self, log: Path, settings: GateSettings) -> None:
        self.log = log
        gate = open_gate(settings, SPEED_MM_S, motion=TRUSTED)
        assert isinstance(gate, Gate)
        gate.seen_until(MAX_T_NS)
        self.gate, self.start_ns = gate, time.monotonic_ns()

    def trigger(self, part_id: int, at_ms: float = 0) -> Trigger:
        return Trigger("run", part_id, self.start_ns + int(at_ms * 1e6), "clock")

    def apply(self, decision: Decision, part_id: int = 0, at_ms: float = 0) -> None:
        self.gate.apply(self.trigger(part_id, at_ms), decision)

    def movements(self) -> list[Movement]:
        """On a busy machine two processes close it: the second one moves nothing."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        moves = [Movement(line["open"], line["part_id"], (line["t_ns"] - self.start_ns) / 1e6) for line in lines]
        return [
            move
            for before, move in zip([None, *moves], moves, strict=False)
            if move.is_open or not before or before.is_open
        ]

    def wait_for(self, count: int) -> list[Movement]:
        """The movements after the first one, which closes the gate at the start."""
        deadline_s = time.monotonic() + WITHIN_S
        while len(self.movements()) <= count:
            assert time.monotonic() < deadline_s, self.movements()
            time.sleep(0.005)
        return self.movements()[1:]


def start_belt(log: Path) -> Belt:
    return Belt(log, replace(SETTINGS, dry_log=log))


@pytest.fixture
def open_belt(tmp_path: Path) -> Iterator[Callable[[], Belt]]:
    """The belt starts when the test is ready for it."""
    with contextlib.ExitStack() as opened:

        def start() -> Belt:
            belt = start_belt(tmp_path / "gate.jsonl")
            opened.callback(belt.gate.close)
            return belt

        yield start


def check_moves(moves: list[Movement], expected: list[Movement]) -> None:
    assert [move[:2] for move in moves] == [move[:2] for move in expected]
    for move, planned in zip(moves, expected, strict=True):
        assert planned.at_ms - 1 <= move.at_ms <= planned.at_ms + TOLERANCE_MS, (move, planned)


def test_the_gate_is_closed_at_rest(open_belt: Callable[[], Belt]) -> None:
    (at_start,) = open_belt().movements()
    assert at_start[:2] == (False, NOBODY)


def test_the_deadline_follows_from_trigger_distance_and_speed(open_belt: Callable[[], Belt]) -> None:
    belt = open_belt()
    assert belt.gate.deadline_ns(belt.trigger(0)) == belt.start_ns + int(START_MS * 1e6)


def test_a_good_part_finds_the_gate_open_for_its_window(open_belt: Callable[[], Belt]) -> None:
    belt = open_belt()
    belt.apply("OK")
    check_moves(belt.wait_for(2), [Movement(True, 0, START_MS), Movement(False, NOBODY, START_MS + WINDOW_MS)])


@pytest.mark.parametrize("decision", ["REJECT", "UNKNOWN"])
def test_any_other_part_finds_it_closed(open_belt: Callable[[], Belt], decision: Decision) -> None:
    belt = open_belt()
    belt.apply(decision)
    time.sleep((START_MS + WINDOW_MS) / 1e3)
    assert len(belt.movements()) == 1


def test_verdicts_may_come_in_any_order(open_belt: Callable[[], Belt]) -> None:
    belt = open_belt()
    belt.apply("OK", 1, at_ms=60)
    belt.apply("OK", 0, at_ms=0)
    moves = belt.wait_for(4)
    check_moves(
        moves,
        [
            Movement(True, 0, START_MS),
            Movement(False, NOBODY, START_MS + WINDOW_MS),
            Movement(True, 1, 60 + START_MS),
            Movement(False, NOBODY, 60 + START_MS + WINDOW_MS),
        ],
    )


def test_a_rejected_neighbour_of_a_good_part_finds_the_gate_closed(open_belt: Callable[[], Belt]) -> None:
    belt = open_belt()
    belt.apply("OK", 0, at_ms=0)
    belt.apply("REJECT", 1, at_ms=25)
    check_moves(belt.wait_for(2), [Movement(True, 0, START_MS), Movement(False, NOBODY, 25 + START_MS)])


def test_the_end_of_a_window_does_not_close_the_gate_on_the_next_good_part(open_belt: Callable[[], Belt]) -> None:
    belt = open_belt()
    belt.apply("OK", 0, at_ms=0)
    belt.apply("OK", 1, at_ms=25)
    moves = belt.wait_for(3)
    check_moves(
        moves,
        [
            Movement(True, 0, START_MS),
            Movement(True, 1, 25 + START_MS),
            Movement(False, NOBODY, 25 + START_MS + WINDOW_MS),
        ],
    )


@pytest.mark.parametrize("decision", ["OK", "REJECT", "UNKNOWN"])
def test_a_verdict_that_comes_too_late_does_not_move_the_gate(
    open_belt: Callable[[], Belt], decision: Decision
) -> None:
    belt = open_belt()
    belt.apply(decision, 0, at_ms=-START_MS - 1)
    belt.apply("OK", 1, at_ms=0)
    check_moves(belt.wait_for(2), [Movement(True, 1, START_MS), Movement(False, NOBODY, START_MS + WINDOW_MS)])


def test_a_part_that_is_told_of_late_closes_the_gate_on_its_neighbour(open_belt: Callable[[], Belt]) -> None:
    """It may be at the gate, whoever it is."""
    belt = open_belt()
    belt.apply("OK", 1, at_ms=0)
    belt.wait_for(1)
    belt.apply("REJECT", 0, at_ms=-20)
    moves = belt.wait_for(2)[:2]  # on a slow machine it has left by now, and the gate is open again
    assert [move[:2] for move in moves] == [(True, 1), (False, NOBODY)]
    assert moves[1].at_ms < START_MS + WINDOW_MS / 2


def test_close_leaves_the_gate_closed_and_lets_nobody_through_any_more(tmp_path: Path) -> None:
    belt = start_belt(tmp_path / "gate.jsonl")
    belt.apply("OK", 0)
    belt.wait_for(1)
    belt.apply("OK", 1, at_ms=30)
    belt.gate.close()
    moves = belt.movements()
    assert moves[-1][:2] == (False, NOBODY)
    time.sleep((START_MS + WINDOW_MS) / 1e3)
    assert belt.movements() == moves


def test_the_board_without_pynq_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"gate\.gpio_pin needs the board's pynq package"):
        open_gate(GateSettings(kind="gpio"), SPEED_MM_S)


def test_a_log_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"correct \[gate\] dry_log"):
        open_gate(GateSettings(dry_log=tmp_path / "none" / "gate.jsonl"), SPEED_MM_S)
