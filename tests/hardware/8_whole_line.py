"""The station as it is configured: good parts pass, and whatever goes wrong, none passes because of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.hardware.conftest import ROOT, Person


def test_the_line_judges_and_a_fault_rejects(line_file: Path, person: Person) -> None:
    command = [sys.executable, str(ROOT / "board/run.py"), "--config", str(line_file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as station:
        assert station.stderr
        said = station.stderr.readline()
        try:
            assert " runs, model " in said or "running" in said, said
            person.tell(said.strip())
            person.do("Let ten good parts and a bad one pass, a hand's breadth between them")
            person.confirm("Did the gate open for the good ones, and stay closed for the bad one?")
            person.do("Unplug the camera, and let a good part pass")
            person.confirm("Did the gate stay closed?")
            person.do("Plug the camera in again, wait 5 s, and let a good part pass")
            person.confirm("Did the gate open?")
            station.send_signal(signal.SIGKILL)
            person.do("The station has been killed. Let a good part pass")
            person.confirm("Did the gate stay closed?")
        finally:
            station.kill()
