"""Verdicts wait in a file, in order, through a crash."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from board.outbox import Outbox
from protocol.errors import InputError, SinkError


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[[], Outbox]]:
    """The outbox of one file; the one before it is closed."""
    opened: list[Outbox] = []

    def open_again() -> Outbox:
        for outbox in opened:
            outbox.close()
        opened.append(Outbox(tmp_path / "new" / "outbox.sqlite"))
        return opened[-1]

    yield open_again
    for outbox in opened:
        outbox.close()


def payloads(outbox: Outbox, after: int = 0, limit: int = 100) -> list[bytes]:
    return [entry.payload for entry in outbox.read_after(after, limit)]


def test_entries_come_back_in_order(reopen: Callable[[], Outbox]) -> None:
    outbox = reopen()
    outbox.add([b"a", b"b"])
    outbox.add([b"c"])
    assert payloads(outbox) == [b"a", b"b", b"c"]
    assert payloads(outbox, limit=2) == [b"a", b"b"]
    second = outbox.read_after(0, 2)[1]
    assert payloads(outbox, second.seq) == [b"c"]
    assert outbox.last_seq() > second.seq


def test_what_is_removed_is_gone_and_its_number_is_not_given_again(reopen: Callable[[], Outbox]) -> None:
    outbox = reopen()
    outbox.add([b"a"])
    seq = outbox.last_seq()
    outbox.remove([seq])
    assert (payloads(outbox), outbox.count, outbox.last_seq()) == ([], 0, 0)
    outbox = reopen()
    outbox.add([b"b"])
    assert outbox.last_seq() > seq


def test_a_restart_finds_what_was_stored(reopen: Callable[[], Outbox]) -> None:
    reopen().add([b"a", b"b"])
    outbox = reopen()
    assert (payloads(outbox), outbox.count) == ([b"a", b"b"], 2)


def test_the_oldest_are_dropped_and_the_count_stays_true(reopen: Callable[[], Outbox]) -> None:
    outbox = reopen()
    outbox.add([b"a", b"b", b"c"])
    first = outbox.read_after(0, 1)[0].seq
    assert outbox.drop_oldest(2) == 2
    assert (payloads(outbox), outbox.count) == ([b"c"], 1)
    outbox.remove([first])
    assert outbox.count == 1, "it had been dropped before"
    assert outbox.drop_oldest(9) == 1
    assert outbox.count == 0


def test_nothing_to_add_or_remove_is_nothing(reopen: Callable[[], Outbox]) -> None:
    outbox = reopen()
    outbox.add([])
    outbox.remove([])
    assert outbox.count == 0


CRASHING = """
import os, signal, sys
from pathlib import Path
from board.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
for number in range(50):
    outbox.add([b"%d" % number])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing_it_had_stored(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    killed = subprocess.run([sys.executable, "-c", CRASHING, str(path)], check=False, timeout=30)
    assert killed.returncode == -signal.SIGKILL
    outbox = Outbox(path)
    assert payloads(outbox) == [b"%d" % number for number in range(50)]
    outbox.close()


def test_a_database_that_another_program_holds_is_a_sink_error(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    other = sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SinkError, match="outbox: database is locked"):
        outbox.add([b"a"])
    other.close()
    outbox.add([b"b"])
    assert (payloads(outbox), outbox.count) == ([b"b"], 1)
    outbox.close()


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_outbox_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"outbox .*: make its folder writable, or move the file away"):
        Outbox(path)
    assert path.read_bytes() == content


def test_a_damaged_outbox_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    outbox.add([b"x" * 5000] * 20)
    outbox.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    with pytest.raises(InputError, match="or move the file away"):
        Outbox(path)


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="make its folder writable"):
        Outbox(tmp_path / "file" / "outbox.sqlite")
