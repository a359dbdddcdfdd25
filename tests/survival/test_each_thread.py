"""Whichever thread of the station ends or hangs: the log and the state name it, and the gate closes if it is needed."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from tests.survival.each_thread import NEEDED, OTHERS, Threads

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed: apt-get install gcc")
WORKERS = 6


def test_no_thread_ends_or_hangs_unseen(tmp_path: Path) -> None:
    with contextlib.ExitStack() as opened:
        deaths = list(Threads(tmp_path, WORKERS, opened).die_all((*NEEDED, *OTHERS)))
    assert [death for death in deaths if death.violations] == []
