"""The first verdict on the board's processor: without network, broker or clock, within its budget of instructions."""

from __future__ import annotations

import pytest

from sim.station import ROOT
from tests.armhf.start import (
    MOST_INSTRUCTIONS,
    PACKAGES,
    STEPS,
    WITHOUT_CLOCK,
    WITHOUT_NETWORK,
    Start,
    measure_start,
    works,
    write_start_table,
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    return measure_start(ROOT / "models" / "bottle-128", tmp_path_factory.mktemp("station"))


def test_the_first_part_is_judged_without_network_broker_and_clock(start: Start) -> None:
    assert start.verdict.decision in ("OK", "REJECT")
    assert start.verdict.engine == "arm-kernels"
    assert not start.verdict.degraded
    if not (works(WITHOUT_NETWORK) and works(WITHOUT_CLOCK)):
        pytest.skip("the network and the clock were there: needs unshare (user namespaces) and faketime")
    assert start.verdict.time.startswith("1970-01-01T00:0")


def test_it_keeps_to_its_budget_of_instructions(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\n" + write_start_table(start))
    assert [step.name for step in start.steps if step.name not in PACKAGES] == ["Python", *(name for name, _ in STEPS)]
    assert {step.name for step in start.steps} >= set(PACKAGES)
    assert start.total.count.instructions <= MOST_INSTRUCTIONS
