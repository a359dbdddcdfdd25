"""A part of the page's program that ends is on the page, and nothing there is green."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from host.dashboard.history import Row
from host.dashboard.looker import Looker
from host.dashboard.pictures import PictureStore
from host.dashboard.station import Station
from host.dashboard.writer import Item, Writer
from protocol.messages import Verdict, encode_json
from protocol.reports import LineState
from protocol.supervision import Supervisor

WITHIN_S = 1.0


class OddHistory:
    """Meets something that nobody thought of."""

    def add(self, verdicts: list[Verdict]) -> list[Row]:
        raise OverflowError(f"{len(verdicts)} verdicts of the year 0001")

    def delete_older(self, keep_days: float) -> None:
        pass


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_writer_that_ends_is_on_the_page_within_a_second(verdict: Verdict) -> None:
    supervisor, station = Supervisor(), Station()
    station.own_trouble = lambda: str(supervisor.trouble() or "")
    station.take_state(encode_json(LineState("running", "", "trivial", "2026-01-01T00:00:00Z")))
    assert station.condition().state == "running"
    writer = Writer(OddHistory(), 1.0, lambda _: None, supervisor)  # type: ignore[arg-type]
    unacknowledged: list[bool] = []
    writer.put(Item(verdict, lambda: unacknowledged.append(False)))
    wait_for(lambda: station.condition().state == "lost")
    assert station.condition().reason.startswith(
        "the page's own writer ended: OverflowError: 1 verdicts of the year 0001"
    )
    assert unacknowledged == []
    writer.close()


def test_a_thread_that_the_page_can_do_without_is_not_needed(
    endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    supervisor = Supervisor()
    pictures = PictureStore(tmp_path_factory.mktemp("pictures"), 10**6, 10**6)
    looker = Looker(endpoint, "plant", "line1", pictures, supervisor)
    assert supervisor.trouble() is None
    looker.close()
    assert supervisor.trouble() is None
