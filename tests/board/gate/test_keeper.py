"""When the gate has to be looked at for what was told: never too late, and seldom for nothing."""

from __future__ import annotations

import pytest

from board.gate.keeper import Keeper
from board.gate.motion import MotionSettings
from board.gate.settings import GateSettings
from protocol.messages import Trigger

MS = 1_000_000
SPEED_MM_S = 1000.0
# at 1 m/s the part's window begins 80 ms after its trigger and lasts 40 ms
SETTINGS = GateSettings(distance_mm=100, window_mm=40, lead_ms=0)
NOW_NS = 10_000 * MS


@pytest.fixture
def keeper() -> Keeper:
    """One good part is on its way: its window begins in 80 ms, and then is the next look."""
    keeper = Keeper(SETTINGS, SPEED_MM_S, MotionSettings(by="nothing"))
    keeper.judge(part(0, 0), NOW_NS, is_ok=True)
    keeper.seen_until(NOW_NS, NOW_NS)
    keeper.look(NOW_NS)
    assert keeper.next_look_ns(NOW_NS) == NOW_NS + 80 * MS
    return keeper


def part(number: int, at_ms: int) -> Trigger:
    return Trigger("run", number, NOW_NS + at_ms * MS, "clock")


@pytest.mark.parametrize(("at_ms", "is_news"), [(-60, True), (-1, True), (0, True), (1, False), (70, False)])
def test_a_part_is_looked_at_before_it_can_be_in_its_window(keeper: Keeper, at_ms: int, *, is_news: bool) -> None:
    assert keeper.expect(part(1, at_ms), NOW_NS) is is_news


def test_who_was_told_of_is_no_news(keeper: Keeper) -> None:
    assert not keeper.expect(part(0, 0), NOW_NS)


def test_word_that_nobody_else_came_is_news_where_a_good_part_waits_for_it(keeper: Keeper) -> None:
    at_ns = NOW_NS + 90 * MS
    assert not keeper.look(at_ns)  # who came since, may be in the window
    assert not keeper.seen_until(NOW_NS + 5 * MS, NOW_NS + 70 * MS)
    assert keeper.seen_until(NOW_NS + 20 * MS, at_ns)
    assert keeper.look(at_ns)
    assert not keeper.seen_until(NOW_NS + 30 * MS, at_ns)
