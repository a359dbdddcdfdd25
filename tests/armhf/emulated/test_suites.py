"""The board's and the protocol's own tests in the ARM userland: those that need nothing of the host's packages."""

from __future__ import annotations

import subprocess

from sim.station import ROOT
from tests.armhf import userland

SUITES = [
    "tests/board/drift/test_control_chart.py",
    "tests/board/test_foreign_bytes.py",
    "tests/board/gate/test_gate.py",
    "tests/board/records/test_outbox.py",
    "tests/board/test_preprocess.py",
    "tests/board/records/test_recording.py",
    "tests/protocol/test_detection.py",
    "tests/protocol/test_keys.py",
    "tests/protocol/test_messages.py",
    "tests/protocol/test_strict.py",
    "tests/protocol/test_wire.py",
]
# These start programs of their own, which would run on this machine, or trace them.
LEFT_OUT = "not killed_process and not synced_commit and not may_not_be_written"
PYTEST = ("-m", "pytest", "-q", "--noconftest", "-p", "tests.armhf.guest.examples", "-p", "no:cacheprovider")


def test_they_pass() -> None:
    command = userland.python(*PYTEST, "-k", LEFT_OUT, *SUITES)
    done = subprocess.run(command, cwd=ROOT, timeout=900, check=False, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
