"""Changes a flashed card in place: whatever is interrupted, the card holds the whole old or the whole new station.

The card's metadata are copied, the change is made to the copy and checked there, and what differs goes to the card:
new files first, into blocks that nothing uses yet; then, in one transaction of its journal, all the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from host.flash.ext4 import Ext4
from host.flash.journal import (
    SUPERBLOCK_AT,
    SUPERBLOCK_BYTES,
    decode_journal,
    encode_transaction,
    needs_recovery,
    with_recovery,
    within_one_sector,
)
from host.flash.medium import Medium, put
from host.flash.tools import run_tool, said
from protocol.errors import InputError

Change = Callable[[Ext4], None]  # makes its change to this copy, in which files have no content


class CardUpdate:
    def __init__(self, card: Ext4, medium: Medium, work: Path) -> None:
        """`work`: a folder with room for two copies of the card's metadata."""
        self._card, self._medium = card, medium
        self._base = card.offset_bytes
        self._old, self._new = Ext4(work / "old.ext4", 0), Ext4(work / "new.ext4", 0)

    def finish_interrupted(self) -> None:
        """Replay the journal of a card whose power was cut, as the kernel would. Raises: InputError."""
        if not needs_recovery(self._medium.read(self._base + SUPERBLOCK_AT, SUPERBLOCK_BYTES)):
            return
        self._copy_metadata()
        _clone(self._old.path, self._new.path)
        self._new.replay_journal()
        usage = self._old.usage()
        size, superblock, journal = usage.block_bytes, SUPERBLOCK_AT // usage.block_bytes, self._old.journal_blocks()[0]
        changed = _differences(self._old.path, self._new.path, size, usage.blocks)
        self._write_all(
            {number: block for number, block in changed.items() if number not in (superblock, journal)}, size
        )
        # Until then, cut again, it is done again.
        put(self._medium, self._at(journal, size), _read_block(self._new.path, journal, size))
        block, old = _read_block(self._new.path, superblock, size), _read_block(self._old.path, superblock, size)
        inside = SUPERBLOCK_AT % size
        put(self._medium, self._at(superblock, size), _with_superblock(block, inside, old[inside:]))

    def run(self, change: Change) -> None:
        """Of a card that needs no recovery. Raises: InputError; the card is then as it was, or as `change` made it."""
        self._copy_metadata()
        _clone(self._old.path, self._new.path)
        self._new.tidy()  # a board is switched off by pulling its plug: this is nothing unusual
        change(self._new)
        self._new.require_clean()
        self._commit()

    def _commit(self) -> None:
        before, after = self._old.usage(), self._new.usage()
        size = before.block_bytes
        differing = _differences(self._old.path, self._new.path, size, before.blocks)
        if not differing:
            return
        # A new file's block may hold zeros, and so not differ from the copy, where the card has something else.
        fresh = {number: _read_block(self._new.path, number, size) for number in after.used_since(before)}
        fresh.update({number: block for number, block in differing.items() if before.is_free(number)})
        changed = {number: block for number, block in differing.items() if not before.is_free(number)}
        self._write_all(fresh, size)
        self._write_transaction(changed, size)

    def _write_transaction(self, changed: dict[int, bytes], size: int) -> None:
        """Blocks that the old station uses, at one stroke. The order of the writes is what makes it one."""
        superblock, inside = divmod(SUPERBLOCK_AT, size)
        old = self._medium.read(self._base + SUPERBLOCK_AT, SUPERBLOCK_BYTES)
        final = _with_superblock(_read_block(self._new.path, superblock, size), inside, old)
        logged = {**changed, superblock: _asking_for_recovery(final, inside)}
        where = self._card.journal_blocks()
        journal = decode_journal(self._medium.read(self._at(where[0], size), size))
        transaction = encode_transaction(journal, logged, size)
        self._write_all(dict(zip(where[journal.first :], transaction, strict=False)), size)
        # Two sectors decide. The file system's says to look into the journal, which is still empty; then the
        # journal's says that there is something in it: from here on whoever mounts the card has the new station.
        put(self._medium, self._base + SUPERBLOCK_AT, with_recovery(old))
        put(self._medium, self._at(where[0], size), journal.full())
        # What the kernel would do next: every block to its place, and only then the journal emptied.
        changed.pop(superblock, None)
        self._write_all(changed, size)
        put(self._medium, self._at(where[0], size), journal.empty())
        put(self._medium, self._at(superblock, size), final)

    def _write_all(self, blocks: dict[int, bytes], size: int) -> None:
        """Write, flush, read back."""
        for number in sorted(blocks):
            self._medium.write(self._at(number, size), blocks[number])
        self._medium.flush()
        for number in sorted(blocks):
            if self._medium.read(self._at(number, size), size) != blocks[number]:
                raise InputError(f"the card does not keep block {number}: take another card, flash it anew")

    def _at(self, block: int, size: int) -> int:
        return self._base + block * size

    def _copy_metadata(self) -> None:
        """A sparse copy of the file system without the contents of files."""
        self._old.path.unlink(missing_ok=True)
        source = self._card.path
        result = run_tool("e2image", "-r", "-f", "-o", str(self._base), source, self._old.path)
        if result.returncode != 0:
            raise InputError(f"{source}: its system cannot be read ({said(result)}): flash it anew without --update")


def _asking_for_recovery(block: bytes, at: int) -> bytes:
    """A block with the file system's superblock at `at`."""
    return block[:at] + with_recovery(block[at : at + SUPERBLOCK_BYTES]) + block[at + SUPERBLOCK_BYTES :]


def _with_superblock(block: bytes, at: int, old: bytes) -> bytes:
    """A block with its superblock at `at` made such that it takes the place of `old` at one stroke."""
    superblock = within_one_sector(block[at : at + SUPERBLOCK_BYTES], old[:SUPERBLOCK_BYTES])
    return block[:at] + superblock + block[at + SUPERBLOCK_BYTES :]


def _clone(source: Path, destination: Path) -> None:
    """A sparse copy."""
    with source.open("rb") as file, destination.open("wb") as copy:
        for start, end in _data_extents(file.fileno()):
            for at in range(start, end, 1 << 20):
                copy.seek(at)
                copy.write(os.pread(file.fileno(), min(1 << 20, end - at), at))
        copy.truncate(os.fstat(file.fileno()).st_size)


def _differences(old: Path, new: Path, size: int, blocks: int) -> dict[int, bytes]:
    """New content of each block that differs."""
    found: dict[int, bytes] = {}
    with old.open("rb") as before, new.open("rb") as after:
        for file in (before, after):  # a block may be a hole in either
            for start, end in _data_extents(file.fileno()):
                for number in range(start // size, min(-(-end // size), blocks)):
                    block = os.pread(after.fileno(), size, number * size).ljust(size, b"\0")
                    if block != os.pread(before.fileno(), size, number * size).ljust(size, b"\0"):
                        found[number] = block
    return found


def _read_block(path: Path, number: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(number * size)
        return file.read(size).ljust(size, b"\0")


def _data_extents(descriptor: int) -> list[tuple[int, int]]:
    """Where a sparse file has data: [start, end)."""
    extents, at, size = [], 0, os.fstat(descriptor).st_size
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole up to the end
            break
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        extents.append((start, at))
    return extents
