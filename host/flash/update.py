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
)
from host.flash.layout import Layout
from host.flash.medium import Medium, put
from host.flash.tools import run_tool, said
from protocol.errors import InputError

Change = Callable[[Ext4, Ext4], None]  # (card: to read files from, copy: to change)


class CardUpdate:
    def __init__(self, card: Path, layout: Layout, medium: Medium, work: Path) -> None:
        """`work`: an empty folder with room for two copies of the card's metadata."""
        self._medium = medium
        self._base = layout.root.start_bytes
        self._card = Ext4(card, self._base)
        self._old, self._new = work / "old.img", work / "new.img"

    def run(self, change: Change) -> None:
        """Raises: InputError; the card is then as it was."""
        self._copy_metadata()
        _clone(self._old, self._new)
        copy = Ext4(self._new, self._base)
        change(self._card, copy)
        copy.require_clean()
        self._commit()

    def _commit(self) -> None:
        before, after = Ext4(self._old, self._base).usage(), Ext4(self._new, self._base).usage()
        size = before.block_bytes
        differing = dict(_differences(self._old, self._new, self._base, size, before.blocks))
        if not differing:
            return
        unused = _members(before.free)
        # A new file's block may hold zeros, and so not differ from the copy, where the card has something else.
        fresh = {number: self._read_new(number, size) for number in unused - _members(after.free)}
        fresh.update({number: block for number, block in differing.items() if number in unused})
        changed = {number: block for number, block in differing.items() if number not in unused}
        self._write_all(fresh, size)
        self._write_transaction(changed, size)

    def _write_transaction(self, changed: dict[int, bytes], size: int) -> None:
        """Blocks that the old station uses, at one stroke. The order of the writes is what makes it one."""
        superblock, inside = divmod(SUPERBLOCK_AT, size)
        changed.setdefault(superblock, self._read_new(superblock, size))
        logged = {**changed, superblock: _patched(changed[superblock], inside)}
        where = self._card.journal_blocks()
        journal = decode_journal(self._medium.read(self._at(where[0], size), size))
        transaction = encode_transaction(journal, logged, size)
        self._write_all(dict(zip(where[journal.first :], transaction, strict=False)), size)
        # Two sectors decide. The file system's says to look into the journal, which is still empty; then the
        # journal's says that there is something in it: from here on whoever mounts the card has the new station.
        old = self._medium.read(self._base + SUPERBLOCK_AT, SUPERBLOCK_BYTES)
        put(self._medium, self._base + SUPERBLOCK_AT, with_recovery(old))
        put(self._medium, self._at(where[0], size), journal.full())
        # What the kernel would do next: every block to its place, and only then the journal emptied.
        final = changed.pop(superblock)
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

    def _read_new(self, block: int, size: int) -> bytes:
        with self._new.open("rb") as file:
            file.seek(self._at(block, size))
            return file.read(size)

    def _copy_metadata(self) -> None:
        """A sparse copy without the contents of files, at the same place in the file as on the card."""
        source, offset = self._card.path, str(self._base)
        result = run_tool("e2image", "-r", "-f", "-o", offset, "-O", offset, source, self._old)
        if result.returncode != 0:
            raise InputError(f"{source}: its system cannot be read ({said(result)}): flash it anew without --update")


def _patched(block: bytes, at: int) -> bytes:
    """A block with the file system's superblock at `at`, which asks for recovery."""
    return block[:at] + with_recovery(block[at : at + SUPERBLOCK_BYTES]) + block[at + SUPERBLOCK_BYTES :]


def _members(ranges: tuple[tuple[int, int], ...]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def finish_interrupted(card: Ext4) -> None:
    """Replay the journal of a card whose power was cut, as the kernel would. Raises: InputError."""
    with card.path.open("rb") as file:
        file.seek(card.offset_bytes + SUPERBLOCK_AT)
        superblock = file.read(SUPERBLOCK_BYTES)
    if needs_recovery(superblock):
        card.replay_journal()


def _clone(source: Path, destination: Path) -> None:
    """A sparse copy."""
    with source.open("rb") as file, destination.open("wb") as copy:
        for start, end in _data_extents(file.fileno()):
            for at in range(start, end, 1 << 20):
                copy.seek(at)
                copy.write(os.pread(file.fileno(), min(1 << 20, end - at), at))
        copy.truncate(os.fstat(file.fileno()).st_size)


def _differences(old: Path, new: Path, base: int, size: int, blocks: int) -> list[tuple[int, bytes]]:
    """(number, new content) of each block that differs."""
    found: dict[int, bytes] = {}
    with old.open("rb") as before, new.open("rb") as after:
        for file in (before, after):  # a block may be a hole in either
            for start, end in _data_extents(file.fileno()):
                for number in range(max(start - base, 0) // size, min(-(-(end - base) // size), blocks)):
                    at = base + number * size
                    block = os.pread(after.fileno(), size, at).ljust(size, b"\0")
                    if number not in found and block != os.pread(before.fileno(), size, at).ljust(size, b"\0"):
                        found[number] = block
    return sorted(found.items())


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
