"""A gate that fails, a machine that stands still: with a clock and a pin of the test's, and no thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from board.gate.gate import NOBODY, Gate, open_gate
from board.gate.keeper import Keeper
from board.gate.motion import MotionSettings
from board.gate.pins import DryPin
from board.gate.settings import GateSettings
from protocol.messages import MAX_T_NS, Trigger
from protocol.supervision import Supervisor

MS = 1_000_000
SPEED_MM_S = 1000.0
SETTINGS = GateSettings(distance_mm=100, window_mm=40, lead_ms=5)  # open from 75 to 115 ms after the trigger
TRUSTED = MotionSettings(by="nothing")


@dataclass
class Bench:
    """A pin that takes its time, or fails, and the clock that it takes it from."""

    now_ns: int = 1000 * MS
    takes_ms: dict[bool, int] = field(default_factory=dict)
    failing: Callable[[bool], bool] = lambda _: False
    moves: list[tuple[int, bool]] = field(default_factory=list)  # when they were made, in ms after the start
    tries: int = 0

    def __post_init__(self) -> None:
        self.gate = Gate(Keeper(SETTINGS, SPEED_MM_S, TRUSTED), self, lambda: self.now_ns)
        self.gate.seen_until(MAX_T_NS)

    def write(self, is_open: bool, part_id: int) -> None:  # noqa: ARG002 - the seam of all pins
        self.tries += 1
        if self.failing(is_open):
            raise OSError("Input/output error")
        self.now_ns += self.takes_ms.get(is_open, 0) * MS
        self.moves.append((self.now_ns // MS - 1000, is_open))

    def close(self) -> None:
        pass

    def judge(self, *at_ms: int, decision: str = "OK") -> None:
        for t_ms in at_ms:
            self.gate.apply(Trigger("run", t_ms, (1000 + t_ms) * MS, "clock"), decision)  # type: ignore[arg-type]

    def run(self, until_ms: int) -> None:
        """As the gate's thread does."""
        while self.now_ns < (1000 + until_ms) * MS:
            self.now_ns = min(max(self.gate.turn(), self.now_ns + 1), (1000 + until_ms) * MS)
        self.gate.turn()


def test_a_slow_pin_does_not_lengthen_the_window() -> None:
    bench = Bench()
    bench.takes_ms = {True: 35}
    bench.judge(0)
    bench.run(200)
    assert bench.moves[1:] == [(110, True), (115, False)]


def test_a_pin_that_opens_when_the_part_has_gone_by_closes_at_once() -> None:
    bench = Bench()
    bench.takes_ms = {True: 100}
    bench.judge(0)
    bench.run(300)
    assert bench.moves[1:] == [(175, True), (175, False)]


def test_a_closing_that_fails_is_made_again_at_once_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench()
    bench.judge(0, 300, 700)
    bench.run(100)
    fails = iter([True])
    bench.failing = lambda _: next(fails, False)
    bench.run(600)
    assert bench.moves[1:] == [(75, True), (115, False)]  # the second part comes too soon after the fault
    assert bench.gate.counters()["gate_faults"] == 1
    assert "the gate failed (Input/output error): closing it" in capsys.readouterr().err
    complaint = bench.gate.complaint()
    assert complaint is not None
    assert complaint.state == "degraded"
    bench.run(900)
    assert bench.moves[3:] == [(775, True), (815, False)]


def test_a_gate_that_cannot_be_closed_is_tried_on_and_on_and_stops_the_line() -> None:
    bench = Bench()
    bench.judge(0, 200)
    bench.run(100)
    bench.failing = lambda _: True
    bench.run(116)
    assert bench.gate.distrust
    bench.run(600)
    complaint = bench.gate.complaint()
    assert complaint is not None
    assert (complaint.state, complaint.reason.partition(" (")[0]) == ("stopped", "the gate cannot be closed")
    assert bench.tries > 400
    bench.failing = lambda _: False
    bench.run(602)
    assert bench.moves[-1][1] is False
    assert not bench.gate.distrust


def test_an_opening_that_fails_leaves_the_gate_closed() -> None:
    bench = Bench()
    bench.judge(0)
    bench.failing = lambda is_open: is_open
    bench.run(400)
    assert {is_open for _, is_open in bench.moves} == {False}
    assert bench.gate.counters()["gate_faults"] == 1
    assert bench.gate.counters()["good_stopped"] == 0


def test_a_machine_that_stood_still_closes_first_and_opens_for_nobody_who_went_by() -> None:
    bench = Bench()
    bench.judge(0, 150, 3000)
    bench.run(80)
    bench.now_ns += 2000 * MS
    bench.run(2100)
    assert bench.moves[1:] == [(75, True), (2080, False)]
    bench.run(3200)
    assert bench.moves[3:] == [(3075, True), (3115, False)]


def test_nobody_passes_while_it_is_not_known_who_came() -> None:
    bench = Bench()
    gate = Gate(Keeper(SETTINGS, SPEED_MM_S, TRUSTED), bench, lambda: bench.now_ns)
    bench.gate = gate
    gate.seen_until(1010 * MS)  # who came later may be in the window from 85 ms on
    bench.judge(0)
    bench.run(90)
    assert bench.moves[2:] == [(75, True), (85, False)]
    gate.seen_until(1030 * MS)
    bench.run(300)
    assert bench.moves[4:] == [(90, True), (105, False)]


def test_a_held_gate_is_closed_and_opens_again_when_it_is_let_go() -> None:
    bench = Bench()
    bench.judge(0, 400)
    bench.run(80)
    bench.gate.hold(True)
    assert bench.moves[-1] == (80, False)
    bench.run(475)
    assert not any(is_open for _, is_open in bench.moves[2:])
    bench.gate.hold(False)
    bench.run(480)
    assert bench.moves[-1][1] is True


def test_the_overlap_that_stops_a_good_part_is_counted() -> None:
    bench = Bench()
    bench.judge(0)
    bench.judge(10, decision="REJECT")
    bench.judge(200)
    bench.run(400)
    assert bench.gate.counters() == {"good_stopped": 1, "gate_faults": 0}


def test_a_full_disk_is_a_failing_gate() -> None:
    pin = DryPin(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        pin.write(False, NOBODY)
    pin.close()


def test_a_dead_gate_thread_is_seen() -> None:
    """Of whatever it dies: here of an error that no pin has."""
    bench, supervisor = Bench(), Supervisor()
    bench.failing = lambda is_open: bool(1 // (1 - is_open))
    bench.judge(0)
    bench.gate.start(supervisor)
    bench.now_ns += 80 * MS
    bench.gate.expect(Trigger("run", 1, bench.now_ns, "clock"))
    deadline_s = time.monotonic() + 5
    while not supervisor.trouble() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    trouble = supervisor.trouble()
    assert trouble is not None
    assert (trouble.name, trouble.is_needed) == ("gate", True)


def test_a_real_gate_whose_belt_nobody_measures_says_so() -> None:
    gate = open_gate(GateSettings(), SPEED_MM_S)
    try:
        assert gate.complaint() is None  # the dry one moves nothing
    finally:
        gate.close()
