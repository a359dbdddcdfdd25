"""A part of the page's program that ends is on the page, and nothing there is green."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import DataError, OperationalError, StatementError

from host.aside import Aside
from host.dashboard.history import Row
from host.dashboard.looker import Looker
from host.dashboard.pictures import PictureStore
from host.dashboard.station import Station
from host.dashboard.writer import Item, Writer
from protocol.messages import Verdict, encode_json
from protocol.reports import LineState
from protocol.supervision import Supervisor

WITHIN_S = 30.0


class OddHistory:
    """Takes the verdicts of even parts; those of others bring about `error`."""

    is_block_due = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    def migrate(self) -> bool:
        return True

    def add(self, verdicts: list[Verdict]) -> list[Row]:
        if any(verdict.part_id % 2 for verdict in verdicts):
            raise self._error
        return [{"part_id": verdict.part_id} for verdict in verdicts]


class NoRetention:
    def delete_old(self) -> None:
        pass


def open_writer(
    error: Exception, folder: Path, supervisor: Supervisor, show: Callable[[list[Row]], None] = lambda _: None
) -> tuple[Writer, Aside]:
    aside = Aside(folder / "history", "put into the history")
    writer = Writer(OddHistory(error), NoRetention(), aside, show, supervisor)  # type: ignore[arg-type]
    return writer, aside


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_writer_that_ends_is_on_the_page_within_a_second(verdict: Verdict, tmp_path: Path) -> None:
    supervisor, station = Supervisor(), Station()
    station.own_trouble = lambda: str(supervisor.trouble() or "")
    station.take_state(encode_json(LineState("running", "", "trivial", "2026-01-01T00:00:00Z")))
    assert station.condition().state == "running"
    writer, _ = open_writer(RuntimeError("nobody thought of it"), tmp_path, supervisor)
    unacknowledged: list[bool] = []
    writer.put(Item(verdict, lambda: unacknowledged.append(False)))
    wait_for(lambda: station.condition().state == "lost")
    assert station.condition().reason.startswith("the page's own writer ended: RuntimeError: nobody thought of it")
    assert unacknowledged == []
    writer.close()


@pytest.mark.parametrize(
    "error",
    [
        OverflowError("the year 0001"),
        DataError("INSERT", {}, ValueError("no such number")),
        StatementError("no such type", "INSERT", {}, TypeError()),
    ],
)
def test_one_message_does_not_stop_the_history(verdict: Verdict, tmp_path: Path, error: Exception) -> None:
    supervisor, shown, acknowledged = Supervisor(), list[int](), list[int]()
    writer, aside = open_writer(error, tmp_path, supervisor, lambda rows: shown.extend(row["part_id"] for row in rows))
    for number in (0, 2, 4, 5, 6, 8, 9, 10):
        writer.put(Item(replace(verdict, part_id=number), lambda number=number: acknowledged.append(number)))  # type: ignore[misc]
    wait_for(lambda: len(acknowledged) == 8)
    writer.close()
    assert supervisor.trouble() is None
    assert (acknowledged, shown) == ([0, 2, 4, 5, 6, 8, 9, 10], [0, 2, 4, 6, 8, 10])
    lines = [json.loads(line) for line in (tmp_path / "history.set-aside.jsonl").read_text().splitlines()]
    assert [line["verdict"]["part_id"] for line in lines] == [5, 9]
    assert writer.trouble.startswith("2 messages could not be put into the history (")
    assert not writer.is_stopped
    assert aside.count == 2


def test_a_message_that_has_no_place_at_all_is_not_acknowledged(verdict: Verdict, tmp_path: Path) -> None:
    supervisor, acknowledged = Supervisor(), list[int]()
    (tmp_path / "history.set-aside.jsonl").mkdir()
    writer, aside = open_writer(OverflowError("odd"), tmp_path, supervisor)
    writer.put(Item(replace(verdict, part_id=1), lambda: acknowledged.append(1)))
    writer.put(Item(replace(verdict, part_id=2), lambda: acknowledged.append(2)))
    wait_for(lambda: acknowledged == [2])
    writer.close()
    assert "cannot be set aside" in aside.trouble
    assert acknowledged == [2]


def test_a_database_that_is_away_sets_nothing_aside(verdict: Verdict, tmp_path: Path) -> None:
    writer, aside = open_writer(OperationalError("INSERT", {}, OSError("disk full")), tmp_path, Supervisor())
    writer.put(Item(replace(verdict, part_id=1), lambda: None))
    wait_for(lambda: writer.is_stopped)
    writer.close()
    assert aside.count == 0


def test_a_thread_that_the_page_can_do_without_is_not_needed(
    endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    supervisor = Supervisor()
    pictures = PictureStore(tmp_path_factory.mktemp("pictures"), 10**6, 10**6)
    looker = Looker(endpoint, "plant", "line1", pictures, supervisor)
    assert supervisor.trouble() is None
    looker.close()
    assert supervisor.trouble() is None
