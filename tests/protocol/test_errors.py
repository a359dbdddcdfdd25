"""How a program ends, whatever happens to it: one line, an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START = "import sys, time; from protocol.errors import *; sys.exit(run_main(lambda: {}))"


def run(work: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", START.format(work)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, env={**os.environ, **environment}, check=False)


def test_a_terminal_that_knows_ascii_alone_gets_question_marks() -> None:
    done = run("print('12 µm · 3 ≥ 2') or 0", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"12 ?m ? 3 ? 2\n", b"")


def test_a_reader_that_left_is_no_trouble() -> None:
    command = [sys.executable, "-c", START.format("[print(n) for n in range(100000)] and 0")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout
        assert writer.stderr
        assert writer.stdout.readline() == b"0\n"
        writer.stdout.close()
        assert writer.wait(20) == 141
        assert writer.stderr.read() == b""


@pytest.mark.parametrize(
    ("start", "said"), [("run_main", "interrupted"), ("run_resumable", "goes on where it stopped")]
)
def test_ctrl_c_is_one_line(start: str, said: str) -> None:
    code = START.format("print('ready', flush=True) or time.sleep(60)").replace("run_main", start)
    # where these tests run in a shell's background, Ctrl-C is ignored from the start
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {code}"
    program = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout
    assert program.stdout.readline() == "ready\n"
    time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=20)
    assert program.returncode == 130
    assert err.startswith("beltsight: ")
    assert said in err
    assert err.count("\n") == 1


def test_what_was_wrong_is_one_line() -> None:
    done = run("exec('raise InputError(\"no such folder: make it\")')")
    assert (done.returncode, done.stderr) == (2, b"beltsight: no such folder: make it\n")
