"""The official image's layout: a master boot record, partition 1 FAT (boot files), partition 2 ext4 (the system)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import InputError

SECTOR_BYTES = 512
FAT_TYPES = {0x06, 0x0B, 0x0C, 0x0E}  # of the partition's entry; the boot ROM takes FAT16 and FAT32 (UG585, 6.3.8)
LINUX_TYPE = 0x83
SIGNATURE = b"\x55\xaa"
EXT4_MAGIC_AT, EXT4_MAGIC = 1024 + 0x38, b"\x53\xef"
# What stands in sector 0 of a card that is being written: no partition table, so that no board boots from it.
UNFINISHED = b"beltsight: this card is not finished; run beltsight flash again without --update\n"


@dataclass(frozen=True)
class Partition:
    start_bytes: int
    size_bytes: int

    @property
    def end_bytes(self) -> int:
        return self.start_bytes + self.size_bytes


@dataclass(frozen=True)
class Layout:
    boot: Partition  # FAT
    root: Partition  # ext4


def read_layout(path: Path) -> Layout:
    """Layout of an image or a card. Raises: InputError for anything but the official one."""
    try:
        with path.open("rb") as file:
            record = file.read(SECTOR_BYTES)
            if record.startswith(UNFINISHED):
                raise InputError(f"{path} was not written to its end: flash it again without --update")
            layout = decode_layout(record, path)
            file.seek(0, 2)
            if file.tell() < layout.root.end_bytes:
                raise InputError(f"{path} ends before its partition 2 does: download or flash it again")
            file.seek(layout.root.start_bytes + EXT4_MAGIC_AT)
            if file.read(2) != EXT4_MAGIC:
                raise InputError(f"{path}: partition 2 is no ext4: give the official PYNQ-Z2 image")
            return layout
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): check the name, or run as root") from None


def decode_layout(record: bytes, path: Path) -> Layout:
    """Layout from sector 0; `path` is for messages. Raises: InputError."""
    if len(record) < SECTOR_BYTES or record[510:512] != SIGNATURE:
        raise InputError(f"{path} has no partition table: give the official PYNQ-Z2 image, or flash without --update")
    found = [_decode_entry(record[446 + 16 * i : 462 + 16 * i]) for i in range(4)]
    (boot_type, boot), (root_type, root), *others = found
    if boot_type not in FAT_TYPES or root_type != LINUX_TYPE or any(kind for kind, _ in others):
        raise InputError(f"{path} is not laid out as FAT, ext4: give the official PYNQ-Z2 image")
    if not SECTOR_BYTES <= boot.start_bytes < boot.end_bytes <= root.start_bytes < root.end_bytes:
        raise InputError(f"{path}: its partitions overlap or are empty: give the official PYNQ-Z2 image")
    return Layout(boot, root)


def _decode_entry(entry: bytes) -> tuple[int, Partition]:
    start, sectors = struct.unpack_from("<II", entry, 8)
    return entry[4], Partition(start * SECTOR_BYTES, sectors * SECTOR_BYTES)
