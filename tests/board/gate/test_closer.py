"""The second process that closes the pin: when the station hangs, is stopped, is killed, and when it ends itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from board.gate.gate import Gate, open_gate
from board.gate.lease import Lease
from board.gate.motion import MotionSettings
from board.gate.settings import GateSettings
from protocol.messages import MAX_T_NS, Trigger
from protocol.supervision import Supervisor

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 30.0
MS = 1_000_000
# A station with nothing but a pin's lease: it says that the pin may be open for 300 ms, and then does nothing.
STATION = """
import sys, time
from board.gate.lease import Lease
line = open(sys.argv[1], "r+b", buffering=0)
lease = Lease("gpio", line.fileno())
now_ns = time.monotonic_ns()
lease.open_until(now_ns + int(sys.argv[2]) * 1_000_000, now_ns)
line.write(b"1")
print("open", flush=True)
time.sleep(600)
"""


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """The value of a GPIO line, as a plain file."""
    line = tmp_path / "value"
    line.write_bytes(b"0")
    return line


@contextlib.contextmanager
def station(line: Path, opens_for_ms: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", STATION, str(line), str(opens_for_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        try:
            yield child
        finally:
            child.kill()


def test_a_station_that_does_not_close_in_time_is_closed_even_if_it_is_stopped(line: Path) -> None:
    with station(line, 300) as child:
        child.send_signal(signal.SIGSTOP)
        assert line.read_bytes() == b"1"
        wait_until(lambda: line.read_bytes() == b"0")
        line.write_bytes(b"1")  # what the station was about to do when it was stopped
        wait_until(lambda: line.read_bytes() == b"0")


def test_a_station_that_is_killed_closes_at_once(line: Path) -> None:
    with station(line, 3_600_000) as child:
        assert line.read_bytes() == b"1"
        child.kill()
        wait_until(lambda: line.read_bytes() == b"0")


def test_what_the_station_closed_in_time_is_left_alone(line: Path) -> None:
    with line.open("r+b", buffering=0) as pin, contextlib.closing(Lease("gpio", pin.fileno())) as lease:
        lease.open_until(time.monotonic_ns() + 50 * MS, time.monotonic_ns())
        lease.closed()
        line.write_bytes(b"1")
        time.sleep(0.3)
        assert line.read_bytes() == b"1"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Gate, Supervisor]]:
    supervisor = Supervisor()
    gate = open_gate(
        GateSettings(distance_mm=100, window_mm=40, dry_log=tmp_path / "gate.jsonl"),
        1000.0,
        motion=MotionSettings(by="nothing"),
        supervisor=supervisor,
    )
    assert isinstance(gate, Gate)
    with contextlib.closing(gate):
        gate.seen_until(MAX_T_NS)
        yield gate, supervisor


def children() -> list[int]:
    """Second processes of this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"closer.py" in command and parent == os.getpid():
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_its_own_death_or_silence_is_seen_by_name(opened: tuple[Gate, Supervisor], number: signal.Signals) -> None:
    _, supervisor = opened
    for pid in children():
        os.kill(pid, number)
    wait_until(lambda: (trouble := supervisor.trouble()) and trouble.name == "gate closer" and trouble.is_needed)
    for pid in children():
        os.kill(pid, signal.SIGKILL)


def test_where_nobody_else_would_close_it_the_gate_stays_closed(
    opened: tuple[Gate, Supervisor], tmp_path: Path
) -> None:
    gate, _ = opened
    for pid in children():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    gate.apply(Trigger("run", 1, time.monotonic_ns() + 300 * MS, "clock"), "OK")
    wait_until(gate.complaint)
    assert '"open": true' not in (tmp_path / "gate.jsonl").read_text()
    said = gate.complaint()
    assert said
    assert "the process that closes it" in said.reason


def test_signals_that_end_a_station_do_not_end_it(opened: tuple[Gate, Supervisor]) -> None:
    _, supervisor = opened
    for pid in children():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
    time.sleep(0.3)
    assert supervisor.trouble() is None
