"""What the fake line does when its terminal or disk is unkind: Ctrl-C at once, ASCII, a reader that leaves, no room."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from host.export.trivial import write_trivial_package
from tests.line.test_conveyor import CONVEYOR, processes_with, wait_until

DISK_BYTES = 36 << 10  # beyond what the outbox has when it is new, which is mapped memory of 32 KB


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    models = tmp_path_factory.mktemp("models")
    write_trivial_package(models / "trivial", 256)
    return [*CONVEYOR, "--models", str(models), "--model", "trivial", "--run-folder"]


@pytest.mark.parametrize("library", ["numpy", "cv2", "zmq"])
def test_ctrl_c_while_it_starts_is_no_traceback(command: list[str], tmp_path: Path, library: str) -> None:
    """Before our first line has run, Python itself would give one."""
    belt = subprocess.Popen(
        [*command, str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: library in Path(f"/proc/{belt.pid}/maps").read_text())
    belt.send_signal(signal.SIGINT)
    out, err = belt.communicate(timeout=30)
    assert belt.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in out + err
    assert not processes_with(str(tmp_path / "run"))


def test_a_terminal_that_goes_takes_the_line_with_it(command: list[str], tmp_path: Path) -> None:
    belt = subprocess.Popen(
        [*command, str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "run" / "board.log"
    wait_until(lambda: log.exists() and "runs" in log.read_text())
    belt.send_signal(signal.SIGHUP)
    belt.communicate(timeout=30)
    assert belt.returncode == 130
    assert not processes_with(str(tmp_path / "run"))


def test_ascii_is_enough(command: list[str], tmp_path: Path) -> None:
    run = [*command, str(tmp_path / "run"), "--parts", "3", "--as-fast-as-possible"]
    done = subprocess.run(
        run, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"Beltsight ? orange" in done.stdout


def test_a_reader_that_leaves_ends_the_line(command: list[str], tmp_path: Path) -> None:
    run = [*command, str(tmp_path / "run"), "--parts", "1000"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as belt:
        assert belt.stdout
        assert belt.stderr
        assert belt.stdout.readline().startswith("Beltsight")
        belt.stdout.close()
        assert belt.wait(30) != 0
        assert "Traceback" not in belt.stderr.read()
    assert not processes_with(str(tmp_path / "run"))


def test_a_full_disk_is_said_where_the_parts_are_counted(command: list[str], tmp_path: Path) -> None:
    """So many parts that the sockets' buffers cannot take what the board, which stands still, does not take."""
    run = [*command, str(tmp_path / "run"), "--parts", "1000", "--rate", "100", "--speed", "3000", "--distinct", "8"]
    done = subprocess.run(
        run,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (DISK_BYTES, DISK_BYTES)),
    )
    assert "/1000 parts" in done.stdout, done.stderr
    counted = [line for line in done.stdout.splitlines() if "/1000 parts" in line]
    assert "stopped: outbox: " in counted[-1]
    assert "free some disk space" in counted[-1]
    assert "the line at the end" in done.stdout
