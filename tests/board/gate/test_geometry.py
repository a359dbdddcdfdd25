"""The gate's geometry against an oracle that asks every part at every place."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.gate import geometry
from board.gate.geometry import MOST_PARTS, Geometry, Reach

FAR = 400


@dataclass(frozen=True)
class Told:
    start: int
    doubt: int  # between the surest and the farthest place of the belt at its trigger
    length: int
    verdict: bool | None


told_parts = st.lists(
    st.builds(Told, st.integers(0, 300), st.integers(0, 20), st.integers(1, 80), st.sampled_from([True, False, None])),
    max_size=12,
)


def tell(parts: list[Told]) -> Geometry:
    gate = Geometry()
    for number, part in enumerate(parts):
        gate.expect(number, Reach(part.start - part.doubt, part.start), part.length, opens=True)
        if part.verdict is not None:
            gate.judge(number, is_ok=part.verdict)
    return gate


def may_be_open(parts: list[Told], places: range) -> bool:
    """Nobody but good parts may be in the window, wherever the belt is among `places`; and one of them surely is."""
    here = places[-1]
    if not any(part.verdict and part.start <= here < part.start + part.length for part in parts):
        return False
    bad = [part for part in parts if not part.verdict]
    return not any(is_in_window(part, place) for part in bad for place in places)


def is_in_window(part: Told, place: int) -> bool:
    # its own place is in doubt by as much as the belt's was when it came
    return any(part.start - back <= place < part.start - back + part.length for back in range(part.doubt + 1)) and (
        place >= part.start - part.doubt
    )


@given(told_parts)
def test_it_is_open_where_good_parts_are_alone(parts: list[Told]) -> None:
    sure = [Told(part.start, 0, part.length, part.verdict) for part in parts]
    gate = tell(sure)
    for place in range(FAR):
        assert gate.is_open(Reach(place, place)) == may_be_open(sure, range(place, place + 1))


@given(told_parts, st.integers(0, 40), st.integers(0, FAR))
def test_in_doubt_it_is_never_open_where_a_bad_part_might_be(parts: list[Told], doubt: int, high: int) -> None:
    sure = [Told(part.start, 0, part.length, part.verdict) for part in parts]
    assert tell(sure).is_open(Reach(high - doubt, high)) == may_be_open(sure, range(high - doubt, high + 1))


@given(told_parts, st.integers(0, 40))
def test_doubt_about_the_belt_only_closes(parts: list[Told], doubt: int) -> None:
    gate = tell(parts)
    for high in range(0, FAR, 7):
        assert not gate.is_open(Reach(high - doubt, high)) or gate.is_open(Reach(high, high))


@given(told_parts)
def test_between_two_changes_nothing_changes(parts: list[Told]) -> None:
    gate = tell([Told(part.start, 0, part.length, part.verdict) for part in parts])
    changes = [-1]
    while (change := gate.next_change(changes[-1])) is not None:
        changes.append(change)
    for begin, end in pairwise([*changes, FAR]):
        assert len({gate.is_open(Reach(place, place)) for place in range(begin, end)}) <= 1


@given(told_parts, st.lists(st.integers(0, FAR), min_size=1, max_size=20))
def test_what_is_forgotten_changes_nothing(parts: list[Told], places: list[int]) -> None:
    gate, fresh = tell(parts), tell(parts)
    for place in sorted(places):
        gate.pass_by(Reach(place, place), was_trusted=True)
        assert gate.is_open(Reach(place, place)) == fresh.is_open(Reach(place, place))
    gate.pass_by(Reach(FAR, FAR), was_trusted=True)
    assert gate.next_change(-1) is None


@given(told_parts, st.lists(st.integers(0, FAR), max_size=20))
def test_good_parts_that_are_stopped_are_counted_however_seldom_somebody_looks(
    parts: list[Told], places: list[int]
) -> None:
    sure = [Told(part.start, 0, part.length, part.verdict) for part in parts]
    gate = tell(sure)
    middles = [part.start + part.length // 2 for part in sure if part.verdict]
    for place in (*sorted(places), FAR):
        for step in sorted({place, *(middle for middle in middles if middle <= place)}):
            gate.pass_by(Reach(step, step), was_trusted=True)
    stopped = [middle for middle in middles if not may_be_open(sure, range(middle, middle + 1))]
    assert gate.good_stopped == len(stopped)
    assert gate.parts == len(sure)


@given(told_parts)
def test_the_order_in_which_parts_are_told_does_not_matter(parts: list[Told]) -> None:
    forth, back = tell(parts), tell(parts[::-1])
    assert all(forth.is_open(Reach(x, x)) == back.is_open(Reach(x, x)) for x in range(FAR))


def test_a_part_closes_before_its_verdict_and_after_one_that_came_first() -> None:
    gate = Geometry()
    for number in range(2):
        gate.expect(number, Reach(100 + 30 * number, 100 + 30 * number), 80, opens=True)
    gate.judge(0, is_ok=True)
    assert gate.is_open(Reach(110, 110))
    assert not gate.is_open(Reach(130, 130))
    gate.judge(1, is_ok=True)
    assert gate.is_open(Reach(130, 130))
    gate.judge(1, is_ok=False)
    gate.judge(1, is_ok=True)
    assert not gate.is_open(Reach(130, 130))


def test_without_its_passage_a_good_part_opens_for_nobody() -> None:
    gate = Geometry()
    gate.expect("part", Reach(100, 100), 80, opens=False)
    gate.judge("part", is_ok=True)
    assert not gate.is_open(Reach(120, 120))
    gate.arrive("part", 95, 80)
    assert [gate.is_open(Reach(x, x)) for x in (94, 95, 174, 175)] == [False, True, True, False]


def test_a_bad_part_that_arrives_early_or_late_closes_over_both() -> None:
    gate = Geometry()
    gate.expect("good", Reach(0, 0), 1000, opens=True)
    gate.judge("good", is_ok=True)
    for key, seen in (("early", 90), ("late", 110)):
        gate.expect(key, Reach(100, 100), 80, opens=False)
        gate.arrive(key, seen, 80)
    assert [gate.is_open(Reach(x, x)) for x in (89, 90, 189, 190)] == [True, False, False, True]


def test_a_crowd_closes_and_takes_no_memory() -> None:
    gate = Geometry()
    for number in range(3 * MOST_PARTS):
        gate.expect(number, Reach(number, number), 10, opens=True)
        gate.judge(number, is_ok=True)
    assert gate.is_open(Reach(MOST_PARTS - 1, MOST_PARTS - 1))
    assert not gate.is_open(Reach(MOST_PARTS + 5, MOST_PARTS + 5))
    assert MOST_PARTS not in gate
    gate.pass_by(Reach(4 * MOST_PARTS, 4 * MOST_PARTS), was_trusted=True)
    gate.expect("next", Reach(5 * MOST_PARTS, 5 * MOST_PARTS), 10, opens=True)
    gate.judge("next", is_ok=True)
    assert gate.is_open(Reach(5 * MOST_PARTS, 5 * MOST_PARTS))


def test_the_example_of_the_geometry_is_true() -> None:
    doctest = pytest.importorskip("doctest")
    assert doctest.testmod(geometry).failed == 0
