"""What is complained about, as one state with its reasons."""

from __future__ import annotations

import pytest

from board.condition import MAX_REASON, Complaint, judge
from board.loop.panel import LEDS
from protocol.reports import CONDITIONS, JUDGING, LineCondition


@pytest.mark.parametrize(
    ("complaints", "state", "reason"),
    [
        ([], "running", ""),
        ([Complaint("idle", "no part")], "idle", "no part"),
        ([Complaint("idle", "no part"), Complaint("degraded", "arm: hot")], "degraded", "arm: hot; no part"),
        ([Complaint("alarm", "a"), Complaint("degraded", "d")], "alarm", "a; d"),
        ([Complaint("degraded", "d"), Complaint("stopped", "s"), Complaint("alarm", "a")], "stopped", "s; a; d"),
        ([Complaint("degraded", "first"), Complaint("degraded", "second")], "degraded", "first; second"),
        ([Complaint("degraded", "same"), Complaint("alarm", "same")], "alarm", "same"),
        ([Complaint("degraded", "two\nlines \x0b of it")], "degraded", "two lines of it"),
    ],
)
def test_the_worst_counts_and_all_is_said(complaints: list[Complaint], state: LineCondition, reason: str) -> None:
    assert judge(complaints) == (state, reason)


def test_reasons_are_bounded() -> None:
    _, reason = judge([Complaint("degraded", f"{number} " + "x" * 100) for number in range(50)])
    assert len(reason) == MAX_REASON
    assert reason.endswith("…")


def test_every_state_is_told_apart_by_the_leds() -> None:
    """`lost` is never shown by a station that works."""
    shown = [LEDS[state] for state in CONDITIONS if state != "lost"]
    assert len(set(shown)) == len(shown)
    assert set(JUDGING) == set(CONDITIONS) - {"stopped", "lost"}
