"""A compiler that nobody waits for any more ends, with all that it started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from board.overlay.errors import OverlayError
from board.overlay.simulation.simulator import _call
from tests.survival.broker import wait_until

SLOW = "sleep 300 & echo $! > {0}; wait"  # with a child of its own, as g++ has
CALLER = """
from pathlib import Path
from board.overlay.simulation.simulator import _call
_call(['/bin/sh', '-c', {0!r}], {{}}, Path({1!r}))
"""


def is_there(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_compiler_ends_with_the_process_that_waits_for_it(tmp_path: Path, end: str) -> None:
    note = tmp_path / "pid"
    work = tmp_path / "work"
    work.mkdir()
    (work / "half.o").touch()
    caller = subprocess.Popen([sys.executable, "-c", CALLER.format(SLOW.format(note), str(work))])
    wait_until(lambda: note.exists() and note.read_text().endswith("\n"))
    pid = int(note.read_text())
    assert is_there(pid)
    getattr(caller, end)()
    caller.wait(30)
    wait_until(lambda: not is_there(pid) and not work.exists())


def test_its_words_and_its_code_come_through(tmp_path: Path) -> None:
    _call(["/bin/true"], {}, tmp_path)
    with pytest.raises(OverlayError, match="sh failed:\nno such header"):
        _call(["/bin/sh", "-c", "echo no such header >&2; exit 3"], {}, tmp_path)
    assert tmp_path.exists()
