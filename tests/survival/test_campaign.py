"""The short campaign: every fault on the real station, the two hardest many times, and a loss that must be seen."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sim.relay import Link
from tests.survival.broker import MOSQUITTO, wait_until
from tests.survival.campaign import (
    FAULTS,
    SERVER_FAULTS,
    Bench,
    Case,
    kill_broker,
    kill_station,
    run_campaign,
    run_case,
)
from tests.survival.station import LIBFAKETIME

pytestmark = pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")
PARTS = 2000


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with contextlib.ExitStack() as opened:
        yield Bench(tmp_path, 1, opened)


def test_every_part_has_one_verdict_whatever_breaks(tmp_path: Path) -> None:
    rows = run_campaign(tmp_path, seed=1, long=False, parts=90, rate=60.0)
    names = [name for name, *_ in (*FAULTS, *SERVER_FAULTS)]
    assert [(row.fault, row.lost, row.doubled, row.misplaced) for row in rows] == [(name, 0, 0, 0) for name in names]
    assert max(row.gate_off_s for row in rows) < 0.05
    assert rows[0].opened > rows[0].parts // 2, "on a busy machine it stays closed for some"
    gaps_s = {row.fault: row.longest_gap_s for row in rows}
    assert gaps_s["broker stands still 1 s"] > 0.9, "the faults do strike"
    assert gaps_s["link dead 1 s, then cut"] > 0.9
    assert gaps_s["station killed"] > 0.2
    assert gaps_s["disk full 0.5 s"] > 0.4
    arrivals = {row.fault: row.arrivals for row in rows}
    if LIBFAKETIME:
        hours = {time_of_day[11:13] for time_of_day in arrivals["clock stepped by 1 h"].times}
        assert len(hours) >= 3
    for fault, *_ in SERVER_FAULTS:
        assert all(arrivals[fault].engines[name] > 0 for name in ("remote", "arm-onnxruntime")), arrivals[fault].engines


@pytest.mark.parametrize(("strike", "times"), [(kill_broker, 8), (kill_station, 20)])
def test_2000_parts_outlive_many_kills(bench: Bench, strike: Callable[[Bench], None], times: int) -> None:
    moments = sorted(random.Random(times).sample(range(PARTS // 20, PARTS * 19 // 20), times))
    row = run_case(bench, Case(strike.__name__, strike, moments, PARTS, rate_hz=120.0))
    assert (row.lost, row.doubled, row.misplaced) == (0, 0, 0)


def test_a_loss_is_seen(tmp_path: Path, bench: Bench) -> None:
    def steal(bench: Bench) -> None:
        """Verdicts that wait in the outbox of a killed station."""
        bench.relay.link = Link(stalled=True)
        time.sleep(0.5)
        bench.station.kill()
        with contextlib.closing(sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None)) as outbox:
            wait_until(lambda: outbox.execute("DELETE FROM verdict").rowcount > 0)
        bench.relay.cut()
        bench.relay.link = Link()
        bench.station.start()

    row = run_case(bench, Case("theft", steal, [20], parts=90, rate_hz=60.0, quiet_s=4.0))
    assert row.lost > 0
