"""Verdicts wait in a file, in order, through a crash, a power cut and damage."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from board.records.outbox import Item, Outbox, part_of
from board.seams import LastPart
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


def payload(part_id: int) -> bytes:
    """As long as a verdict is."""
    return json.dumps({"run": "run", "part_id": part_id, "event_id": f"event-{part_id}", "reason": "x" * 600}).encode()


def item(part_id: int) -> Item:
    return Item(payload(part_id), LastPart("run", part_id))


def items(part_ids: Sequence[int]) -> list[Item]:
    return [item(part_id) for part_id in part_ids]


def part_ids(outbox: Outbox, after: int = 0, limit: int = 10_000) -> list[int]:
    """A payload that is none, because its bytes were damaged, shows as -1."""
    parts = [part_of(entry.payload) for entry in outbox.read_after(after, limit)]
    return [part.part_id if part else -1 for part in parts]


def test_entries_come_back_in_order(reopen: Callable[[], Outbox]) -> None:
    outbox = reopen()
    outbox.store(items([5, 3]))
    outbox.store([item(4)])
    assert part_ids(outbox) == [5, 3, 4]
    assert part_ids(outbox, limit=2) == [5, 3]
    second = outbox.read_after(0, 2)[1]
    assert part_ids(outbox, second.seq) == [4]
    assert outbox.last_seq > second.seq


def test_what_is_removed_is_gone_and_its_number_is_not_given_again(reopen: Callable[[], Outbox]) -> None:
    outbox = reopen()
    outbox.store([item(0)])
    seq = outbox.last_seq
    outbox.store([], [seq])
    assert (part_ids(outbox), outbox.count, outbox.last_seq) == ([], 0, seq)
    outbox = reopen()
    assert outbox.last_seq == seq
    outbox.store([item(1)])
    assert outbox.last_seq == seq + 1


def test_storing_and_removing_are_one(reopen: Callable[[], Outbox]) -> None:
    outbox = reopen()
    outbox.store(items([0, 1]))
    first = outbox.read_after(0, 1)[0].seq
    outbox.store(items([2, 3]), [first])
    assert (part_ids(outbox), outbox.count) == ([1, 2, 3], 3)


def test_a_restart_finds_what_was_stored_and_which_part_came_last(reopen: Callable[[], Outbox]) -> None:
    outbox = reopen()
    assert outbox.last_part is None
    outbox.store(items([7, 8]))
    outbox = reopen()
    assert (part_ids(outbox), outbox.count, outbox.last_part) == ([7, 8], 2, LastPart("run", 8))
    outbox.store([], [entry.seq for entry in outbox.read_after(0, 9)])
    assert reopen().last_part == LastPart("run", 8), "also when it has long been delivered"


def test_the_oldest_are_dropped_and_the_count_stays_true(reopen: Callable[[], Outbox]) -> None:
    outbox = reopen()
    outbox.store(items([0, 1, 2]))
    first = outbox.read_after(0, 1)[0].seq
    assert outbox.drop_oldest(2) == 2
    assert (part_ids(outbox), outbox.count) == ([2], 1)
    outbox.store([], [first])
    assert outbox.count == 1, "it had been dropped before"
    assert outbox.drop_oldest(9) == 1
    assert outbox.count == 0


def test_nothing_to_store_or_remove_is_nothing(reopen: Callable[[], Outbox]) -> None:
    outbox = reopen()
    outbox.store([])
    outbox.sync()
    assert (outbox.count, outbox.last_part) == (0, None)


CRASHING = """
import os, signal, sys
from pathlib import Path
from board.records.outbox import Outbox
from tests.board.records.test_outbox import item
outbox = Outbox(Path(sys.argv[1]))
for number in range(50):
    outbox.store([item(number)], sync=sys.argv[2] == "synced")
os.kill(os.getpid(), signal.SIGKILL)
"""


def run_crashing(path: Path, how: str, *tracer: str) -> None:
    command = [*tracer, sys.executable, "-c", CRASHING, str(path), how]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    killed = subprocess.run(command, check=False, timeout=60, env=environment)
    assert killed.returncode == -signal.SIGKILL


def test_a_killed_process_loses_nothing_it_had_stored(tmp_path: Path) -> None:
    run_crashing(tmp_path / "outbox.sqlite", "unsynced")
    outbox = Outbox(tmp_path / "outbox.sqlite")
    assert (part_ids(outbox), outbox.last_part) == (list(range(50)), LastPart("run", 49))
    outbox.close()


@pytest.mark.parametrize(("how", "least", "most"), [("synced", 50, 80), ("unsynced", 0, 8)])
def test_a_synced_commit_waits_for_the_disk_and_another_does_not(
    tmp_path: Path, how: str, least: int, most: int
) -> None:
    """Counted by the kernel's own trace, in 50 commits; the rest is the making of the file."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    log = tmp_path / "trace"
    run_crashing(tmp_path / "outbox.sqlite", how, "strace", "-f", "-e", "trace=fsync,fdatasync", "-o", str(log))
    assert least <= log.read_text().count("sync(") <= most


def test_a_database_that_another_program_holds_is_a_sink_error(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    other = sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SinkError, match="outbox: database is locked"):
        outbox.store([item(0)])
    other.close()
    outbox.store([item(1)])
    assert (part_ids(outbox), outbox.count, outbox.set_aside) == ([1], 1, None)
    outbox.close()


def filled(path: Path, count: int) -> None:
    outbox = Outbox(path)
    outbox.store(items(range(count)))
    outbox.close()


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_outbox_is_kept_beside_a_new_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(content)
    outbox = Outbox(path)
    assert outbox.set_aside == tmp_path / "outbox.sqlite.damaged-1"
    assert outbox.set_aside.read_bytes() == content
    outbox.store([item(0)])
    assert part_ids(outbox) == [0]
    outbox.close()


def test_a_second_damaged_file_does_not_replace_the_first(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    for number in (1, 2):
        path.write_bytes(b"no database" * number * 100)
        Outbox(path).close()
        assert (tmp_path / f"outbox.sqlite.damaged-{number}").stat().st_size == 1100 * number


def test_what_can_be_read_of_a_damaged_outbox_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    filled(path, 200)
    with path.open("r+b") as file:
        file.seek(80 * 1024)
        file.write(b"\xff" * 1024)
    outbox = Outbox(path)
    kept = part_ids(outbox)
    assert 190 < len(kept) < 200
    assert kept == sorted(kept)
    assert (outbox.count, outbox.last_part) == (len(kept), LastPart("run", 199))
    outbox.store([item(200)])
    assert outbox.last_seq == 201, "numbers go on behind those that were lost"
    outbox.close()


def test_an_outbox_that_is_damaged_while_it_is_open_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    filled(path, 4000)  # more than SQLite keeps in memory
    outbox = Outbox(path)
    with path.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"\xff" * (1 << 20))
    with pytest.raises(SinkError, match=r"damaged-1, a new one is begun"):
        outbox.read_after(0, 10_000)
    kept = part_ids(outbox)
    assert 500 < len(kept) < 4000
    outbox.store([item(4000)])
    assert (part_ids(outbox)[-1], outbox.last_seq, outbox.count) == (4000, 4001, len(kept) + 1)
    outbox.close()


@pytest.mark.parametrize("seed", range(40))
def test_no_damage_keeps_the_station_from_starting(tmp_path: Path, seed: int) -> None:
    """Bytes anywhere in the file, or in its log, are overwritten, or its end is missing."""
    draw = random.Random(seed)
    path = tmp_path / "outbox.sqlite"
    run_short(path)
    victim = path if draw.random() < 0.5 else path.with_name(path.name + "-wal")
    size = victim.stat().st_size
    with victim.open("r+b") as file:
        if draw.random() < 0.2:
            file.truncate(draw.randrange(size + 1))
        else:
            at = draw.choice([draw.randrange(size), draw.randrange(min(size, 200))])
            file.seek(at)
            file.write(draw.randbytes(draw.choice([1, 16, 4096])))
    outbox = Outbox(path)
    kept = [part_id for part_id in part_ids(outbox) if part_id >= 0]
    assert kept == sorted(set(kept))
    assert set(kept) <= set(range(30))
    outbox.store([item(30)])
    assert part_ids(outbox)[-1] == 30
    outbox.close()


def run_short(path: Path) -> None:
    """As a killed station leaves them: the file, and its log with the latest commits."""
    outbox = Outbox(path)
    outbox.store(items(range(20)))
    outbox.close()
    outbox = Outbox(path)
    outbox.store(items(range(20, 30)))
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), path.with_name(f"copy{suffix}"))
    outbox.close()
    for suffix in ("", "-wal"):
        path.with_name(f"copy{suffix}").rename(path.with_name(path.name + suffix))


def test_a_file_that_its_header_makes_read_only_is_damaged(tmp_path: Path) -> None:
    """Byte 18: a write version that SQLite does not know. All of it can be read."""
    path = tmp_path / "outbox.sqlite"
    filled(path, 3)
    spoil_header(path)
    outbox = Outbox(path)
    assert outbox.set_aside == tmp_path / "outbox.sqlite.damaged-1"
    outbox.store([item(3)])
    assert part_ids(outbox) == [0, 1, 2, 3]
    outbox.close()


READ_ONLY = """
import os, sys
from pathlib import Path
from board.records.outbox import Outbox
if os.geteuid() == 0:  # who may write everything
    os.setuid(65534)
Outbox(Path(sys.argv[1]))
"""


def test_an_outbox_that_may_not_be_written_is_left_where_it_is() -> None:
    with tempfile.TemporaryDirectory() as name:  # of pytest's own folders others see nothing
        path = Path(name) / "outbox.sqlite"
        filled(path, 3)
        path.chmod(0o444)
        path.parent.chmod(0o555)
        command = [sys.executable, "-c", READ_ONLY, str(path)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
        refused = subprocess.run(command, check=False, timeout=60, env=environment, capture_output=True, text=True)
        path.parent.chmod(0o755)
        assert "make its folder writable" in refused.stderr
        assert {file.name for file in path.parent.iterdir()} == {"outbox.sqlite", "outbox.sqlite.lock"}


def spoil_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x03")


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="make its folder writable"):
        Outbox(tmp_path / "file" / "outbox.sqlite")


def test_an_outbox_that_another_program_holds_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    filled(path, 3)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputError, match="locked"):
        Outbox(path)
    other.close()
    outbox = Outbox(path)
    assert (outbox.count, outbox.set_aside) == (3, None)
    outbox.close()


def test_a_second_station_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox.store(items([0, 1]))
    (tmp_path / "other-name").symlink_to(tmp_path / "outbox.sqlite")
    for name in ("outbox.sqlite", "other-name"):
        with pytest.raises(InputError, match=f"process {os.getpid()} has it: give each station its own"):
            Outbox(tmp_path / name)
    outbox.store([item(2)])
    assert (part_ids(outbox), outbox.set_aside) == ([0, 1, 2], None)
    outbox.close()
    again = Outbox(tmp_path / "other-name")
    assert part_ids(again) == [0, 1, 2]
    again.close()


def test_an_owner_that_was_killed_owns_nothing(tmp_path: Path) -> None:
    run_crashing(tmp_path / "outbox.sqlite", "unsynced")
    assert (tmp_path / "outbox.sqlite.lock").exists()
    Outbox(tmp_path / "outbox.sqlite").close()


def test_a_number_that_another_program_took_is_no_damage(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox.store([item(0)])
    with sqlite3.connect(tmp_path / "outbox.sqlite") as other:
        other.execute("INSERT INTO verdict VALUES (2, ?)", (payload(7),))
    other.close()
    with pytest.raises(SinkError, match="another program writes to it"):
        outbox.store([item(1)])
    outbox.store([item(1)])
    assert (part_ids(outbox), outbox.count, outbox.set_aside) == ([0, 7, 1], 3, None)
    outbox.close()
