"""One transaction in an ext4 journal, so that many blocks of a card change at one stroke.

The kernel's own way (jbd2: Documentation/filesystems/ext4/journal.rst), done from outside: copies of the changed
blocks go into the journal, one sector of its superblock says that they are there, and whoever mounts the file system
then puts them in their places. Before that sector the card is the old one, after it the new one.

The journal's own numbers are big-endian. It is written without optional features (no checksums, 32-bit block
numbers), which every kernel reads; the kernel sets its own again when it mounts the emptied journal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from host.flash.layout import SECTOR_BYTES
from protocol.errors import InputError

MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _SUPERBLOCK_V2 = 1, 2, 4
_ESCAPED, _SAME_UUID, _LAST = 1, 2, 8
_HEADER = struct.Struct(">III")  # magic, type, sequence
_TAG = struct.Struct(">IHH")  # block, checksum, flags
SUPERBLOCK_BYTES = 1024
SUPERBLOCK_AT = 1024  # of the file system's own, in the partition
_INCOMPAT_AT, _RECOVER = 0x60, 0x0004
_RO_COMPAT_AT, _METADATA_CSUM = 0x64, 0x0400
_CHECKSUM_AT = 0x3FC
_FREE_AT = 0xC4  # the last four bytes of s_last_mounted, which is text for people


@dataclass(frozen=True)
class Journal:
    """The superblock of a journal (its block 0) that holds no transaction."""

    raw: bytes
    sequence: int
    first: int  # block of the journal where transactions begin
    blocks: int

    def full(self) -> bytes:
        """The superblock that says: one transaction, beginning at `first`. Changed within its first sector."""
        return self._with(self.sequence, self.first)

    def empty(self) -> bytes:
        """The superblock after that transaction."""
        return self._with(self.sequence + 1, 0)

    def _with(self, sequence: int, start: int) -> bytes:
        raw = bytearray(self.raw)
        struct.pack_into(">II", raw, 0x18, sequence, start)
        struct.pack_into(">III", raw, 0x24, 0, 0, 0)  # features: none
        raw[0x50] = 0  # no kind of checksum
        struct.pack_into(">I", raw, 0xFC, 0)
        return bytes(raw)


def decode_journal(block: bytes) -> Journal:
    """Raises: InputError for what is no journal, or one that must be replayed first."""
    raw = block[:SUPERBLOCK_BYTES]
    magic, kind, _ = _HEADER.unpack_from(raw)
    _, blocks, first, sequence, start = struct.unpack_from(">IIIII", raw, 0x0C)
    if magic != MAGIC or kind != _SUPERBLOCK_V2:
        raise InputError("the card's journal cannot be read: flash it anew without --update")
    if start:
        raise InputError("the card's journal still holds changes: run the same command again")
    return Journal(raw, sequence, first, blocks)


def encode_transaction(journal: Journal, changes: dict[int, bytes], block_bytes: int) -> list[bytes]:
    """Blocks for the journal, from its block `first` on. Raises: InputError if they do not fit."""
    tags_each = (block_bytes - _HEADER.size - 16) // _TAG.size  # 16: the first tag's UUID
    numbers = sorted(changes)
    blocks: list[bytes] = []
    for start in range(0, len(numbers), tags_each):
        group = numbers[start : start + tags_each]
        blocks.append(_descriptor(journal, group, changes, block_bytes))
        blocks.extend(_escaped(changes[number]) for number in group)
    blocks.append(_HEADER.pack(MAGIC, _COMMIT, journal.sequence).ljust(block_bytes, b"\0"))
    if len(blocks) > journal.blocks - journal.first:
        raise InputError("too many changes for the card's journal: flash it anew without --update")
    return blocks


def needs_recovery(superblock: bytes) -> bool:
    """Whether the file system's superblock says that its journal must be replayed."""
    (incompat,) = struct.unpack_from("<I", superblock, _INCOMPAT_AT)
    return bool(incompat & _RECOVER)


def with_recovery(superblock: bytes) -> bytes:
    """The file system's superblock (1024 bytes), asking whoever mounts it to look into the journal."""
    raw = bytearray(superblock)
    (incompat,) = struct.unpack_from("<I", raw, _INCOMPAT_AT)
    struct.pack_into("<I", raw, _INCOMPAT_AT, incompat | _RECOVER)
    return within_one_sector(bytes(raw), superblock)


def within_one_sector(new: bytes, old: bytes) -> bytes:
    """A superblock like `new` that differs from `old` in its first sector alone, so that no power cut tears it.

    Its checksum lies in the second sector: four bytes that mean nothing, behind the name of the last mount point, are
    chosen so that it stays what it was. Where the second sector says something else already, `new` as it is.
    """
    if not struct.unpack_from("<I", new, _RO_COMPAT_AT)[0] & _METADATA_CSUM:
        return new
    if new[SECTOR_BYTES:_CHECKSUM_AT] != old[SECTOR_BYTES:_CHECKSUM_AT]:
        return new
    raw = bytearray(new[:_CHECKSUM_AT] + old[_CHECKSUM_AT:])
    (wanted,) = struct.unpack_from("<I", old, _CHECKSUM_AT)
    raw[_FREE_AT : _FREE_AT + 4] = bytes(4)
    before = crc32c(bytes(raw[:_FREE_AT]))
    behind = _crc32c_backwards(bytes(raw[_FREE_AT:_CHECKSUM_AT]), wanted)
    struct.pack_into("<I", raw, _FREE_AT, before ^ behind)
    return bytes(raw)


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) without the final complement, as ext4 keeps it.

    >>> hex(crc32c(b"123456789") ^ 0xFFFFFFFF)
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def _crc32c_backwards(data: bytes, crc: int) -> int:
    """What the CRC-32C was before `data`, when it is `crc` after it."""
    for byte in reversed(data):
        for _ in range(8):
            crc = (crc ^ 0x82F63B78) << 1 & 0xFFFFFFFF | 1 if crc & 0x80000000 else crc << 1
        crc ^= byte
    return crc


def _descriptor(journal: Journal, group: list[int], changes: dict[int, bytes], block_bytes: int) -> bytes:
    def tags() -> Iterator[bytes]:
        for index, number in enumerate(group):
            flags = _ESCAPED if _looks_like_journal(changes[number]) else 0
            flags |= _SAME_UUID if index else 0
            flags |= _LAST if index == len(group) - 1 else 0
            yield _TAG.pack(number, 0, flags) + (b"" if index else journal.raw[0x30:0x40])

    return (_HEADER.pack(MAGIC, _DESCRIPTOR, journal.sequence) + b"".join(tags())).ljust(block_bytes, b"\0")


def _looks_like_journal(block: bytes) -> bool:
    return block[:4] == struct.pack(">I", MAGIC)


def _escaped(block: bytes) -> bytes:
    """A block that begins like one of the journal's own loses these four bytes; its tag says so."""
    return bytes(4) + block[4:] if _looks_like_journal(block) else block
