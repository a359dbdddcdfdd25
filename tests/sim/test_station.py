"""What the belt starts ends with it, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 30.0
BELT = """
import sys, time
from pathlib import Path
from sim.station import Process
child = Process("child", [sys.executable, "-c", "import time; time.sleep(60)"], Path(sys.argv[1]) / "log")
print(child.pid, flush=True)
time.sleep(60)
"""
BROKER = """
import sys, time
from pathlib import Path
from sim.station import free_port, start_broker
with start_broker(Path(sys.argv[1]), free_port()) as broker:
    print(broker.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
@pytest.mark.parametrize("program", [BELT, BROKER])
def test_a_belt_that_is_killed_leaves_nothing_behind(tmp_path: Path, program: str) -> None:
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as belt:
        assert belt.stdout
        child = int(belt.stdout.readline())
        belt.kill()
    until_s = time.monotonic() + WITHIN_S
    while is_there(child):
        assert time.monotonic() < until_s
        time.sleep(0.01)


def is_there(pid: int) -> bool:
    """A zombie whose new parent does not look is not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
