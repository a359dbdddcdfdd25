"""What crossed an open gate, by hand-made records."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import InputError
from protocol.messages import Decision
from sim.motion import BeltMotion, Stop
from sim.passing import Passing, Span, find_crossings, judge_passing, read_gate_log

OPEN = [Span(100, 200), Span(300, 400)]


def passing(decision: Decision | None, crossing: Span) -> tuple[dict[str, int], int]:
    found = judge_passing(OPEN, {0: crossing}, {0: decision} if decision else {})
    assert found.is_safe == (not found.wrongly)
    return {key: count for key, count in found.crossed_open.items() if count}, found.good_stopped


@pytest.mark.parametrize(
    ("decision", "crossing", "crossed", "stopped"),
    [
        ("OK", Span(120, 180), {"OK": 1}, 0),
        ("OK", Span(210, 290), {}, 1),
        ("OK", Span(180, 220), {"OK": 1}, 1),  # the gate closed on it
        ("OK", Span(150, 350), {"OK": 1}, 1),  # and opened again
        ("REJECT", Span(210, 290), {}, 0),
        ("REJECT", Span(90, 100), {"REJECT": 1}, 0),  # a moment is enough
        ("REJECT", Span(50, 450), {"REJECT": 1}, 0),
        ("UNKNOWN", Span(399, 500), {"UNKNOWN": 1}, 0),
        (None, Span(310, 320), {"UNKNOWN": 1}, 0),
        (None, Span(210, 220), {}, 0),
    ],
)
def test_one_part(decision: Decision | None, crossing: Span, crossed: dict[str, int], stopped: int) -> None:
    assert passing(decision, crossing) == (crossed, stopped)


def test_a_run_names_what_should_not_have_crossed() -> None:
    crossings = {0: Span(110, 120), 1: Span(130, 140), 2: Span(310, 320), 3: Span(500, 510)}
    found = judge_passing(OPEN, crossings, {0: "OK", 1: "REJECT", 3: "OK"})
    assert found == Passing({"OK": 1, "REJECT": 1, "UNKNOWN": 1}, 1, (1, 2))
    assert not found.is_safe


def test_a_part_is_at_the_gate_when_the_belt_brings_it_there() -> None:
    """The second one stands on the line while the belt stops."""
    motion = BeltMotion(100.0, [Stop(350.0, 2.0)])
    crossings = find_crossings(motion, [0.0, 50.0], 300.0, started_ns=10**9)
    assert crossings[0] == Span(1_000_000_000 + 2_990_000_000, 1_000_000_000 + 3_010_000_000)
    assert crossings[1] == Span(1_000_000_000 + 3_490_000_000, 1_000_000_000 + 5_510_000_000)


def test_the_gates_record(tmp_path: Path) -> None:
    record = tmp_path / "gate.jsonl"
    moves = [(5, False), (10, True), (12, True), (20, False), (25, False), (30, True)]
    record.write_text("".join(f'{{"t_ns": {t}, "part_id": 0, "open": {str(o).lower()}}}\n' for t, o in moves))
    assert read_gate_log(record) == [Span(10, 20), Span(30, 2**63)]
    record.write_text('{"t_ns": 5')
    with pytest.raises(InputError, match=r"gate\.jsonl cannot be read"):
        read_gate_log(record)
    with pytest.raises(InputError, match="cannot be read"):
        read_gate_log(tmp_path / "none")
