"""Whichever thread ends or hangs: log and state name it; the station's gate closes, and other programs end."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from tests.survival.broker import MOSQUITTO
from tests.survival.each_thread import NEEDED, OTHERS, Threads
from tests.survival.host_threads import HostThreads

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed: apt-get install gcc")
WORKERS = 6


def test_no_thread_ends_or_hangs_unseen(tmp_path: Path) -> None:
    with contextlib.ExitStack() as opened:
        deaths = list(Threads(tmp_path, WORKERS, opened).die_all((*NEEDED, *OTHERS)))
    assert [death for death in deaths if death.violations] == []


@pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")
def test_no_thread_of_the_bridge_ends_unseen(tmp_path: Path) -> None:
    """The whole, with page, server and those that hang, is `beltsight survive --each-thread`."""
    with contextlib.ExitStack() as opened:
        deaths = list(HostThreads(tmp_path, 2, opened).die_all(["bridge"], ["ends"]))
    assert {"bridge", "network", "watch", "second watch"} <= {death.thread for death in deaths}
    assert [death for death in deaths if death.violations] == []
