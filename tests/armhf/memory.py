"""Memory of a program that runs in qemu's user emulation, without the emulator's own."""

from __future__ import annotations

import re
from pathlib import Path

from tests.armhf.userland import GUEST_BASE

KIB = 1024
GUEST_BYTES = 1 << 32


def resident_bytes(process: int) -> int:
    """Of the guest's mappings, which lie in the 4 GiB that the emulator was told to use; shared pages count in full."""
    total, is_guest = 0, False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if mapping := re.match(r"([0-9a-f]+)-[0-9a-f]+ ", line):
            is_guest = GUEST_BASE <= int(mapping[1], 16) < GUEST_BASE + GUEST_BYTES
        elif is_guest and (resident := re.match(r"Rss:\s+(\d+) kB", line)):
            total += int(resident[1]) * KIB
    return total
