"""What the page says of the station: never that it runs when nothing says so."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from host.dashboard.figures import Figures
from host.dashboard.station import SILENT_AFTER_S, Condition, Station
from protocol.errors import MessageError
from protocol.messages import rfc3339
from protocol.reports import LineCondition
from tests.host.dashboard.conftest import Clock


def announce(station: Station, state: str, reason: str = "") -> None:
    station.take_state(json.dumps({"state": state, "reason": reason, "model_id": "m", "time": ""}).encode())


@pytest.mark.parametrize("state", ["running", "degraded"])
def test_a_station_that_falls_silent_is_lost(clock: Clock, state: LineCondition) -> None:
    station = Station(clock)
    announce(station, state, "why")
    assert station.condition() == Condition(state, "why")
    clock.now_s += SILENT_AFTER_S
    station.take_health(b'{"parts": 3}')
    clock.now_s += SILENT_AFTER_S
    assert station.condition().state == state
    clock.now_s += 1
    assert station.condition().state == "lost"
    assert "7 s" in station.condition().reason


def test_the_last_challenge_is_shown_and_a_message_that_is_none_refused(clock: Clock) -> None:
    station = Station(clock)
    assert station.challenge is None
    said = {"passed": True, "failed": False, "parts": 3, "rejected": 3, "reason": "", "id": "c", "model_id": "m"}
    station.take_challenge(json.dumps({**said, "threshold": 1.5, "time": "2026-01-01T08:00:30.000Z"}).encode())
    shown = {"passed": True, "parts": 3, "rejected": 3, "time": "2026-01-01T08:00:30.000Z", "reason": ""}
    assert station.challenge == shown
    for wrong in (b"", b"{}", json.dumps({**said, "threshold": 1.5, "time": "yesterday"}).encode()):
        with pytest.raises(MessageError):
            station.take_challenge(wrong)
    assert station.challenge == shown


def test_before_anything_was_said_it_is_lost(clock: Clock) -> None:
    assert Station(clock).condition().state == "lost"


def test_without_a_broker_nothing_is_known(clock: Clock) -> None:
    station = Station(clock)
    announce(station, "running")
    station.broker_trouble = "no broker"
    assert station.condition() == Condition("lost", "no broker")


def test_a_station_that_was_switched_off_stays_so(clock: Clock) -> None:
    station = Station(clock)
    announce(station, "stopped", "switched off")
    clock.now_s += 3600
    assert station.condition() == Condition("stopped", "switched off")


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b'{"state": "fine"}', b'{"state": 1}', b'{"state": "running", "reason": 3}', b"[" * 5000]
)
def test_what_is_no_state_changes_nothing(clock: Clock, payload: bytes) -> None:
    station = Station(clock)
    announce(station, "running")
    with pytest.raises(MessageError):
        station.take_state(payload)
    assert station.condition().state == "running"


def test_the_lines_figures(clock: Clock) -> None:
    figures = Figures(clock)
    part = {"engine": "arm", "model_id": "m", "threshold": 0.5, "late": False, "latency_ms": 1.0}
    assert figures.summary()["latency_p50_ms"] is None
    for number in range(20):
        clock.now_s += 0.5
        decision = "REJECT" if number % 4 == 0 else "OK"
        figures.note([{**part, "latency_ms": float(number), "decision": decision, "time": at(number / 2)}])
    summary = figures.summary()
    assert summary["parts_per_s"] == 2.0
    assert summary["reject_rate"] == 0.25
    assert summary["latency_p50_ms"] == 9.5
    assert summary["latency_p99_ms"] == pytest.approx(18.81)
    clock.now_s += 11
    assert figures.summary()["parts_per_s"] == 0


def at(second: float) -> str:
    """By the station's clock, which is wrong by months."""
    return rfc3339(datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=second))


@pytest.mark.parametrize("is_late", [False, True])
def test_parts_that_an_outage_held_back_do_not_come_faster_than_the_line_works(clock: Clock, is_late: bool) -> None:
    """Two a second, of which 500 come at once: the broker kept them for the page, or the station for the broker."""
    figures = Figures(clock)
    clock.now_s += 300
    part = {"engine": "arm", "model_id": "m", "threshold": 0.5, "latency_ms": 1.0, "decision": "OK"}
    figures.note([{**part, "late": is_late, "time": at(number / 2)} for number in range(500)])
    for number in range(500, 504):
        clock.now_s += 0.5
        figures.note([{**part, "late": False, "time": at(number / 2)}])
    assert figures.summary()["parts_per_s"] == 2.0
    clock.now_s += 5
    assert figures.summary()["parts_per_s"] == 1.0
