"""What cannot be written is counted, and neither stops nor holds up anything."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from protocol.console import Lines


@contextlib.contextmanager
def writing(number: int) -> Iterator[TextIO]:
    with open(number, "w", encoding="utf-8", closefd=False) as stream:
        yield stream
    with contextlib.suppress(OSError):
        os.close(number)


def test_a_line_is_written_whole_and_on_one_line() -> None:
    reading, number = os.pipe()
    with writing(number) as stream:
        lines = Lines(lambda: stream)
        lines.write("two\nlines ✓")
    assert os.read(reading, 100).decode() == "two lines ✓\n"
    assert lines.lost == 0
    os.close(reading)


def test_a_pipe_that_nobody_reads_holds_nobody_up() -> None:
    reading, number = os.pipe()
    with writing(number) as stream:
        lines = Lines(lambda: stream)
        for _ in range(100):
            lines.write("x" * 10_000)
    assert 80 <= lines.lost < 100
    os.close(reading)


def test_a_pipe_whose_reader_has_gone() -> None:
    reading, number = os.pipe()
    os.close(reading)
    with writing(number) as stream:
        lines = Lines(lambda: stream)
        lines.write("lost")
    assert lines.lost == 1


def test_a_full_disk() -> None:
    with writing(os.open("/dev/full", os.O_WRONLY)) as stream:
        lines = Lines(lambda: stream)
        lines.write("lost")
    assert lines.lost == 1


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_no_stream_at_all(stream: io.StringIO | None) -> None:
    if stream:
        stream.close()
    lines = Lines(lambda: stream)
    lines.write("lost")
    assert lines.lost == 1


def test_what_a_program_has_put_in_its_place_takes_it() -> None:
    stream = io.StringIO()
    Lines(lambda: stream).write("kept")
    assert stream.getvalue() == "kept\n"


def test_a_file_that_is_opened_does_not_become_stderr() -> None:
    program = (
        "import os, sys; from protocol.console import STDERR, occupy_standard_files; occupy_standard_files(); "
        "file = os.open('/dev/null', os.O_RDONLY); STDERR.write('lost'); print(file > 2, STDERR.lost)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.close(2),
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == "True 1\n"
