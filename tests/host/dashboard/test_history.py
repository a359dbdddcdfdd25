"""Each verdict once, found again by filters, counted by shift, in both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine

from host.dashboard.history import Filter, History
from host.dashboard.identity import part_key
from protocol.messages import Location, Opinion, Verdict, rfc3339
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


def test_old_parts_go_and_totals_stay(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host.dashboard.history.DELETED_AT_ONCE", 2)
    now = rfc3339(datetime.now(timezone.utc))
    history.add([part(number) for number in range(5)] + [part(9, time=now)])
    assert history.delete_older(30) == 5
    assert ids(history.latest(10)) == [9]
    assert sum(shift["REJECT"] for shift in history.shifts()) == 6


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
