"""Which disks may be overwritten: an SD card in a reader, whole, not in use, and no larger than cards are."""

from __future__ import annotations

import os
import re
import stat as modes
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import InputError

MAX_CARD_BYTES = 256 * 10**9  # larger than this is somebody's disk
SECTOR_BYTES = 512  # the unit of /sys/block/*/size, whatever the disk's own


@dataclass(frozen=True)
class Machine:
    """Where this machine describes its disks."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")


@dataclass(frozen=True)
class Card:
    """Which card was looked at: another in the same reader differs."""

    number: str  # of the device, as in "8:16"
    size_bytes: int
    sequence: str  # counts up with each medium that is put in, on Linux 5.15 and newer


def is_device(path: Path) -> bool:
    return path.exists() and modes.S_ISBLK(path.stat().st_mode)


def require_no_link(target: Path) -> None:
    """Raises: InputError. A link could lead elsewhere by the time of writing."""
    if target.is_symlink():
        raise InputError(f"--target {target} is a link: give what it leads to, {target.resolve()}")


def require_card(device: Path, needed_bytes: int, machine: Machine = Machine()) -> Card:
    """Raises: InputError unless `device` may be overwritten and has room."""
    block = machine.sys / "block" / device.name
    if not block.is_dir():
        raise InputError(f"{device} is no whole disk: give the card itself, such as /dev/sdb, not a partition")
    size_bytes = int(_read(block / "size") or 0) * SECTOR_BYTES
    if _read(block / "ro") != "0":
        raise InputError(f"{device} is read-only: slide the card's lock, or take another reader")
    if not _is_removable(block):
        raise InputError(f"{device} is not removable: only SD cards are written; see lsblk -o NAME,RM,SIZE,MODEL")
    if size_bytes > MAX_CARD_BYTES:
        raise InputError(f"{device} has {size_bytes // 10**9} GB, more than any card for this board: see lsblk")
    if size_bytes < needed_bytes:
        raise InputError(f"{device} has {size_bytes // 10**6} MB, {needed_bytes // 10**6} are needed: a larger card")
    _require_unused(device, block, machine)
    return Card(_read(block / "dev"), size_bytes, _read(block / "diskseq"))


def require_same_card(
    device: Path, descriptor: int, before: Card, needed_bytes: int, machine: Machine = Machine()
) -> None:
    """The open device is still the card that `require_card` saw `before`, and may still be overwritten.

    Raises: InputError.
    """
    status = os.fstat(descriptor)
    opened = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    if require_card(device, needed_bytes, machine) != before or opened != before.number:
        raise InputError(f"{device} is no longer the card that was checked: nothing was written; begin again")


def _is_removable(block: Path) -> bool:
    # Readers on the MMC bus say 0 for their cards too; there the kind of the device tells a card from soldered memory.
    return _read(block / "removable") == "1" or _read(block / "device" / "type") == "SD"


def _require_unused(device: Path, block: Path, machine: Machine) -> None:
    parts = [block, *sorted(path.parent for path in block.glob("*/partition"))]
    numbers = {_read(part / "dev") for part in parts}
    for line in (machine.proc / "self" / "mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] in numbers:
            raise InputError(f"{device} is mounted at {_unescaped(fields[4])}: umount it first")
    names = {part.name for part in parts}
    swaps = (machine.proc / "swaps").read_text().splitlines()[1:]
    if any(Path(line.split()[0]).name in names for line in swaps):
        raise InputError(f"{device} holds swap in use: this is no card")
    for part in parts:
        holders = part / "holders"
        if holders.is_dir() and any(holders.iterdir()):
            raise InputError(f"{device} is part of another disk ({part.name}): this is no card")


def open_target(path: Path) -> int:
    """A descriptor for reading and writing; of a disk, exclusively. Raises: InputError."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_EXCL if is_device(path) else 0))
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): run as root, and umount the card") from None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _unescaped(text: str) -> str:
    """Spaces of a path as the kernel writes them."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), text)
