"""A user of the broker can send anything: what no database takes is refused before it gets there."""

from __future__ import annotations

from dataclasses import replace
from datetime import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from host.dashboard.history import History
from host.dashboard.incoming import check_message, stored_time
from host.dashboard.search import Filter
from host.dashboard.table_file import COLUMNS, as_csv
from protocol.errors import MessageError
from tests.examples import VERDICT


@pytest.mark.parametrize(
    "changes",
    [
        {"line": "line2"},
        {"site": "elsewhere"},
        {"event_id": "a\0b"},
        {"reason": "\ud800"},
        {"reason": "x" * 501},
        {"part_id": 2**60},
        {"part_id": -1},
        {"time": "yesterday"},
        {"time": "2026-02-30T00:00:00.000Z"},
        {"time": "0001-01-01T00:00:00.000Z"},
        {"time": "9999-12-31T23:59:59.000Z"},
        {"time": "2026-01-01T00:00:00+01:00"},
        {"readings": {"\0": 1.0}},
        {"readings": {str(number): 1.0 for number in range(65)}},
        {"stages_ms": {"x" * 501: 1.0}},
    ],
)
def test_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        check_message(replace(VERDICT, **changes), "plant", "line1")


def test_a_stations_own_verdict_is_taken() -> None:
    check_message(VERDICT, "plant", "line1")
    assert stored_time("2026-01-01T00:00:00Z") == "2026-01-01T00:00:00.000Z"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_is_taken_can_be_kept(engine: Engine, event_id: str, reason: str) -> None:
    verdict = replace(VERDICT, event_id=event_id, reason=reason, part_id=2**53)
    history = History(engine, "plant", "line1", (time(6),))
    try:
        check_message(verdict, "plant", "line1")
    except MessageError:
        return
    history.add([verdict])
    row = history.search(Filter(), 1)[0]
    assert row["part_id"] == 2**53


def test_a_spreadsheet_finds_no_formula() -> None:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "x")
    lines = list(as_csv([{**row, "reason": '=cmd|"/c calc"!A1', "run": "-1", "score": -1.5}]))
    assert lines[0].startswith("time,site,line,run,part_id,decision,score")
    assert ",'-1," in lines[1]
    assert '"\'=cmd|""/c calc""!A1"' in lines[1]
    assert ",-1.5," in lines[1]
