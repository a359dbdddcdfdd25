"""One transaction in a journal: what e2fsck, which is not ours, makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from host.flash.ext4 import Ext4
from host.flash.journal import crc32c, decode_journal, encode_transaction, needs_recovery, with_recovery
from protocol.errors import InputError
from tests.host.flash.conftest import run

SUPERBLOCK_AT = 1024


@pytest.fixture(params=[1024, 4096])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Ext4:
    path = tmp_path / "system.img"
    with path.open("wb") as opened:
        opened.truncate(64 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(request.param), path)
    return Ext4(path, 0)


def read(system: Ext4, at: int, size: int) -> bytes:
    with system.path.open("rb") as opened:
        return os.pread(opened.fileno(), size, at)


def write(system: Ext4, at: int, data: bytes) -> None:
    with system.path.open("r+b") as opened:
        opened.seek(at)
        opened.write(data)


@pytest.mark.parametrize("count", [1, 130, 700])
def test_e2fsck_puts_every_block_in_its_place(system: Ext4, count: int) -> None:
    """More blocks than one descriptor names, and among them one that begins like the journal's own."""
    usage = system.usage()
    size = usage.block_bytes
    free = [number for first, last in usage.free for number in range(first, last + 1)][:count]
    changes = {number: os.urandom(size) for number in free}
    changes[free[0]] = b"\xc0\x3b\x39\x98" + os.urandom(size - 4)
    where = system.journal_blocks()
    journal = decode_journal(read(system, where[0] * size, size))
    for number, block in zip(where[journal.first :], encode_transaction(journal, changes, size), strict=False):
        write(system, number * size, block)
    write(system, SUPERBLOCK_AT, with_recovery(read(system, SUPERBLOCK_AT, 1024)))
    write(system, where[0] * size, journal.full())
    with pytest.raises(InputError, match="still holds changes"):
        decode_journal(read(system, where[0] * size, size))
    system.replay_journal()
    assert all(read(system, number * size, size) == block for number, block in changes.items())
    assert not needs_recovery(read(system, SUPERBLOCK_AT, 1024))
    system.require_clean()


def test_the_superblock_that_asks_for_recovery_has_a_good_checksum(system: Ext4) -> None:
    """It differs in one sector alone, and an empty journal behind it is no reason to change anything."""
    old = read(system, SUPERBLOCK_AT, 1024)
    assert with_recovery(old)[512:] == old[512:]
    write(system, SUPERBLOCK_AT, with_recovery(old))
    assert needs_recovery(read(system, SUPERBLOCK_AT, 1024))
    assert crc32c(read(system, SUPERBLOCK_AT, 0x3FC)) == int.from_bytes(old[0x3FC:], "little")
    system.replay_journal()
    system.require_clean()


def test_more_than_the_journal_holds(system: Ext4) -> None:
    size = system.usage().block_bytes
    journal = decode_journal(read(system, system.journal_blocks()[0] * size, size))
    with pytest.raises(InputError, match="too many changes for the card's journal"):
        encode_transaction(journal, dict.fromkeys(range(journal.blocks), bytes(size)), size)


def test_what_is_no_journal() -> None:
    with pytest.raises(InputError, match="cannot be read"):
        decode_journal(bytes(1024))


def test_a_file_system_without_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "plain.img"
    with path.open("wb") as opened:
        opened.truncate(8 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext2", path)
    with pytest.raises(InputError, match="has no journal"):
        Ext4(path, 0).journal_blocks()


def test_crc32c() -> None:
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283  # RFC 3720, B.4
