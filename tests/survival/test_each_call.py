"""A sample of the calls that fail or hang: two of each kind, by both manners. The whole is a program of its own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest

from tests.survival.each_call import Sweep, choose
from tests.survival.strike import KINDS, MANNERS

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed: apt-get install gcc")
WORKERS = 6  # they mostly wait


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    with contextlib.ExitStack() as opened:
        yield Sweep(tmp_path_factory.mktemp("each-call"), WORKERS, opened)


def test_whatever_call_fails_or_hangs_no_bad_part_passes_and_none_is_forgotten(sweep: Sweep) -> None:
    calm = next(calm for _ in range(5) if not (calm := sweep.strike(None)).violations)  # a busy machine is late
    every = choose(calm, 1.0, seed=1)
    strikes = [
        strike
        for kind in KINDS
        for manner in MANNERS
        for strike in [one for one in every if (one.kind, one.manner) == (kind, manner)][:2]
    ]
    outcomes = list(sweep.strike_all(strikes))
    assert [str(outcome) for outcome in outcomes if outcome.violations] == []
    assert sum(bool(outcome.what) for outcome in outcomes) >= len(strikes) * 3 // 4
