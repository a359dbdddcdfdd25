"""Each verdict once, found again by filters, counted by shift, in both databases."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, time, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, text

from host.dashboard.history import History
from host.dashboard.identity import part_key
from host.dashboard.migration import migrate
from host.dashboard.retention import Retention
from host.dashboard.search import Filter
from protocol.messages import Decision, Location, Opinion, Verdict, rfc3339
from tests.examples import VERDICT

STARTS = (time(0),)


@pytest.fixture
def history(engine: Engine) -> History:
    return History(engine, "plant", "line1", STARTS)


def part(number: int, **changes: Any) -> Verdict:
    changes = {"time": f"2026-01-01T00:00:{number % 60:02d}.000Z", **changes}
    return replace(VERDICT, part_id=number, event_id=f"event-{number}", **changes)


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["part_id"] for row in rows]


def test_a_verdict_that_comes_again_is_kept_and_counted_once(history: History) -> None:
    assert ids(history.add([part(1), part(1), part(2)])) == [1, 2]
    assert history.add([part(2), part(1)]) == []
    assert ids(history.latest(10)) == [1, 2]
    assert [(shift["REJECT"], shift["OK"]) for shift in history.shifts()] == [(2, 0)]


def test_what_is_kept_of_a_part(history: History) -> None:
    spoken = part(3, reason="", location=Location(4, 1.5, 2.5), late=True)
    history.add([spoken])
    row = history.part(part_key(spoken.event_id))
    assert row is not None
    for name in (
        "event_id",
        "run",
        "decision",
        "score",
        "threshold",
        "engine",
        "model_id",
        "latency_ms",
        "late",
        "time",
    ):
        assert row[name] == getattr(spoken, name), name
    assert row["stages_ms"] == spoken.stages_ms
    assert row["readings"] == spoken.readings
    assert row["location"] == {"frame": 4, "x_px": 1.5, "y_px": 2.5}
    assert row["opinion"] is None
    assert history.part("0" * 32) is None


def test_filters(history: History) -> None:
    history.add([part(1, decision="OK", score=0.1), part(2, score=0.5), part(3, decision="UNKNOWN", score=None)])
    history.add([part(4, score=0.9, model_id="other")])

    def found(**wanted: Any) -> list[int]:
        return ids(history.search(Filter(**wanted), 10))

    assert found() == [4, 3, 2, 1]
    assert found(decisions=("REJECT",)) == [4, 2]
    assert found(decisions=("OK", "UNKNOWN")) == [3, 1]
    assert found(lowest=0.5) == [4, 2]
    assert found(highest=0.5) == [2, 1]
    assert found(model_id="other") == [4]
    assert found(begin="2026-01-01T00:00:02.000Z", end="2026-01-01T00:00:04.000Z") == [3, 2]


def test_pages_and_a_walk_through_all(history: History) -> None:
    history.add([part(number) for number in range(7)])
    first = history.search(Filter(), 3)
    second = history.search(Filter(), 3, before=first[-1]["seq"])
    assert ids(first + second) == [6, 5, 4, 3, 2, 1]
    assert ids(list(history.walk(Filter()))) == [6, 5, 4, 3, 2, 1, 0]


def test_the_latest_of_one_model(history: History) -> None:
    history.add([part(1), part(2, model_id="other"), part(3), part(4)])
    assert ids(history.latest(2, "trivial")) == [3, 4]


def test_another_lines_parts_are_not_this_lines(history: History, engine: Engine) -> None:
    other = History(engine, "plant", "line2", STARTS)
    spoken = part(1, line="line2")
    other.add([spoken])
    history.add([part(2)])
    assert ids(history.latest(10)) == [2]
    assert history.part(part_key(spoken.event_id)) is None
    assert ids(other.latest(10)) == [1]
    assert len(other.shifts()) == 1


def test_shifts_begin_and_end(engine: Engine) -> None:
    night = datetime(2026, 1, 1, 6).astimezone()  # the machine's own clock is the plant's
    history = History(engine, "plant", "line1", (time(6), time(14), time(22)))
    before, after = rfc3339(night - timedelta(milliseconds=1)), rfc3339(night)
    history.add([part(1, time=before, decision="OK"), part(2, time=after), part(3, time=after, decision="UNKNOWN")])
    shifts = history.shifts()
    assert [(shift["OK"], shift["REJECT"], shift["UNKNOWN"]) for shift in shifts] == [(0, 1, 1), (1, 0, 0)]
    assert shifts[0]["shift"] == after
    assert shifts[1]["shift"] == rfc3339(night - timedelta(hours=8))


NOW = datetime(2026, 6, 1, 12, 30, tzinfo=timezone.utc)


def retention(engine: Engine, now: datetime, *, days: float = 30.0, most: int = 10**12) -> Retention:
    return Retention(engine, ("plant", "line1"), keep_days=days, keep_bytes=most, now=lambda: now)


def test_parts_go_by_when_they_came_and_totals_stay(engine: Engine) -> None:
    """Whatever the station's clock said: it stood at 1970, and was years ahead."""
    moments = [NOW, NOW + timedelta(days=20), NOW + timedelta(days=40)]
    for number, moment in enumerate(moments):
        history = History(engine, "plant", "line1", STARTS, lambda moment=moment: moment)  # type: ignore[misc]
        history.add([part(10 * number, time="1970-01-01T00:00:01.000Z"), part(10 * number + 1)])
        history.add([part(10 * number + 2, time="2090-01-01T00:00:00.000Z")])
    assert retention(engine, moments[2]).delete_old() == 3
    assert ids(history.latest(10)) == [10, 11, 12, 20, 21, 22]
    assert retention(engine, moments[2]).delete_old() == 0
    assert sum(shift["REJECT"] for shift in history.shifts()) == 9


def test_a_clock_that_was_never_set_deletes_nothing(engine: Engine) -> None:
    history = History(engine, "plant", "line1", STARTS, lambda: datetime(1970, 1, 1, 1, tzinfo=timezone.utc))
    history.add([part(number) for number in range(5)])
    history = History(engine, "plant", "line1", STARTS, lambda: NOW)
    history.add([part(9)])
    assert retention(engine, NOW + timedelta(days=29)).delete_old() == 0
    assert len(history.latest(10)) == 6
    assert retention(engine, NOW + timedelta(days=31)).delete_old() == 6


def test_the_bound_in_bytes_holds_and_the_oldest_go(engine: Engine) -> None:
    history = History(engine, "plant", "line1", STARTS)
    history.add([part(number, reason="x" * 400) for number in range(3000)])
    bound = retention(engine, NOW)
    most = bound.used_bytes() // 2
    assert not bound.is_short
    bound = retention(engine, NOW, most=most)
    assert 1000 < bound.delete_old() < 2500
    assert bound.is_short
    assert bound.used_bytes() <= 1.1 * most
    assert ids(history.latest(1)) == [2999]


def test_a_second_opinion_stands_by_its_part(history: History) -> None:
    spoken = part(1)
    opinion = Opinion(
        event_id=spoken.event_id,
        site="plant",
        line="line1",
        run="run",
        part_id=1,
        decision="OK",
        score=0.2,
        threshold=0.4,
        agrees=False,
        model_id="large",
        time="2026-01-01T00:00:01.000Z",
        latency_ms=90.0,
    )
    history.add_opinion(opinion)  # it may come before its verdict
    history.add_opinion(opinion)
    history.add([spoken])
    row = history.part(part_key(spoken.event_id))
    assert row is not None
    assert (row["opinion"]["decision"], row["opinion"]["model_id"]) == ("OK", "large")


def filters(draw: random.Random) -> Filter:
    """Of all kinds, with answers and without."""
    begin, end = sorted(f"2026-01-01T00:{draw.randrange(60):02d}:00.000Z" for _ in range(2))
    lowest, highest = sorted(draw.choice([-1.0, 0.0, 0.1, 0.25, 0.3, 0.55, 0.9, 2.0, 50.0]) for _ in range(2))
    return Filter(
        decisions=draw.choice([(), (), ("REJECT",), ("OK", "UNKNOWN"), ("UNKNOWN",)]),
        begin=draw.choice(["", begin]),
        end=draw.choice(["", end]),
        lowest=draw.choice([None, lowest]),
        highest=draw.choice([None, highest]),
        model_id=draw.choice(["", "", "trivial", "100%", "none"]),
    )


def is_wanted(one: Verdict, wanted: Filter) -> bool:
    has_score = (wanted.lowest is None and wanted.highest is None) or one.score is not None
    score = one.score or 0.0
    return (
        (not wanted.decisions or one.decision in wanted.decisions)
        and (not wanted.begin or one.time >= wanted.begin)
        and (not wanted.end or one.time < wanted.end)
        and has_score
        and (wanted.lowest is None or score >= wanted.lowest)
        and (wanted.highest is None or score <= wanted.highest)
        and (not wanted.model_id or one.model_id == wanted.model_id)
    )


@pytest.mark.parametrize("few", [0, 20_000])
def test_every_question_has_the_answer_of_a_walk_through_all(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Another line's parts lie between; most are in blocks; there are few of some scores, and many of others."""
    monkeypatch.setattr("host.dashboard.blocks.BLOCK_PARTS", 20)
    monkeypatch.setattr("host.dashboard.blocks.LAG_PARTS", 10)
    monkeypatch.setattr("host.dashboard.search.MAX_FEW", few)
    monkeypatch.setattr("host.dashboard.search.MAX_FEW_OF_MORE", few)
    draw = random.Random(7)
    history, other = History(engine, "plant", "line1", STARTS), History(engine, "plant", "line2", STARTS)
    parts = []
    for number in range(400):
        decision: Decision = draw.choice(["OK", "OK", "OK", "REJECT", "UNKNOWN"])
        score = {"OK": draw.uniform(-0.1, 0.2), "REJECT": draw.uniform(0.25, 1.0), "UNKNOWN": None}[decision]
        minute = min(59, max(0, number // 7 + draw.randrange(-3, 3)))
        model = "100%" if 100 < number < 130 else "trivial"
        moment = f"2026-01-01T00:{minute:02d}:00.000Z"
        parts.append(part(number, decision=decision, score=score, time=moment, model_id=model))
    for at in range(0, 400, 50):
        history.add(parts[at : at + 50])
        other.add([replace(one, line="line2", event_id=f"other-{one.part_id}") for one in parts[at : at + 30]])
        while history.summarize():
            pass
    for _ in range(25):
        wanted = filters(draw)
        expected = [one.part_id for one in reversed(parts) if is_wanted(one, wanted)]
        assert ids(history.search(wanted, 30)) == expected[:30], wanted
        assert ids(list(history.walk(wanted))) == expected, wanted


def test_a_database_of_the_version_before_is_brought_up_to_this_one(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX parts_by_decision_and_score"))
        connection.execute(text("CREATE INDEX parts_by_time ON parts (site, line, time)"))
    history = History(engine, "plant", "line1", STARTS)
    history.add([part(1), part(2, score=0.9)])
    assert ids(history.search(Filter(lowest=0.8), 10)) == [2]
    assert migrate(engine)
    assert not migrate(engine)
    assert ids(history.search(Filter(lowest=0.8), 10)) == [2]
