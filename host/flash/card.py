"""Writes a whole image to a card: sector 0 says that it is not finished until everything else was read back."""

from __future__ import annotations

import os
from pathlib import Path

from host.flash.ext4 import Ext4
from host.flash.layout import SECTOR_BYTES, UNFINISHED, Layout
from host.flash.medium import Medium, copy, put
from host.flash.progress import Progress


def write_card(image: Path, layout: Layout, medium: Medium, writing: Progress, comparing: Progress) -> None:
    """Until the last write, no board boots from the card, and `--update` refuses it. Raises: InputError."""
    ranges = used_ranges(image, layout)
    source = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        put(medium, 0, UNFINISHED.ljust(SECTOR_BYTES, b"\0"))
        copy(source, medium, ranges, writing, comparing)
        put(medium, 0, os.pread(source, SECTOR_BYTES, 0))
    finally:
        os.close(source)


def used_ranges(image: Path, layout: Layout) -> list[tuple[int, int]]:
    """The block map: byte ranges [start, end) that carry anything, without sector 0.

    All before partition 2 is taken whole: it is small, and FAT's own map would be one more thing to read.
    """
    usage = Ext4(image, layout.root.start_bytes).usage()
    base, size = layout.root.start_bytes, usage.block_bytes
    used = [(base + first * size, base + (last + 1) * size) for first, last in usage.used_ranges()]
    return [(SECTOR_BYTES, layout.boot.end_bytes), *used]
