"""Only an SD card in a reader is written to: never a disk of the machine, nothing mounted, nothing large."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from host.flash.target import Machine, open_target, require_card, require_no_link, require_same_card
from protocol.errors import InputError


@dataclass(frozen=True)
class Drive:
    """One disk as /sys and /proc describe it."""

    name: str = "sdb"
    number: str = "8:16"
    sequence: str = "7"
    removable: str = "1"
    kind: str | None = None  # of a card on the MMC bus
    size_bytes: int = 32 * 10**9
    read_only: str = "0"
    mounts: str = ""
    swaps: str = ""
    holder: str | None = None

    def plug_in(self, folder: Path) -> Machine:
        block = folder / "sys" / "block" / self.name
        part = block / f"{self.name}{'p' if self.name[-1].isdigit() else ''}1"
        for place, number in ((block, self.number), (part, "8:17")):
            (place / "holders").mkdir(parents=True)
            (place / "dev").write_text(number + "\n")
        (part / "partition").write_text("1\n")
        for name, value in (("removable", self.removable), ("ro", self.read_only)):
            (block / name).write_text(value + "\n")
        (block / "diskseq").write_text(self.sequence + "\n")
        (block / "size").write_text(f"{self.size_bytes // 512}\n")
        if self.kind:
            (block / "device").mkdir()
            (block / "device" / "type").write_text(self.kind + "\n")
        if self.holder:
            (part / "holders" / self.holder).mkdir()
        (folder / "proc" / "self").mkdir(parents=True)
        root = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        (folder / "proc" / "self" / "mountinfo").write_text(root + self.mounts)
        (folder / "proc" / "swaps").write_text("Filename Type Size Used Priority\n" + self.swaps)
        return Machine(folder / "sys", folder / "proc")


CARD = Drive()
IN_READER = Drive(name="mmcblk0", removable="0", kind="SD")


@pytest.mark.parametrize("drive", [CARD, IN_READER], ids=["USB reader", "MMC reader"])
def test_a_card_is_taken(drive: Drive, tmp_path: Path) -> None:
    require_card(Path("/dev") / drive.name, 8 * 10**9, drive.plug_in(tmp_path))


@pytest.mark.parametrize(
    ("drive", "words"),
    [
        (replace(CARD, removable="0"), "is not removable"),
        (replace(IN_READER, kind="MMC"), "is not removable"),
        (replace(CARD, size_bytes=500 * 10**9), "has 500 GB, more than any card"),
        (replace(CARD, size_bytes=4 * 10**9), "has 4000 MB, 8000 are needed"),
        (replace(CARD, size_bytes=0), "has 0 MB"),
        (replace(CARD, read_only="1"), "is read-only: slide the card's lock"),
        (replace(CARD, mounts="30 22 8:17 / /media/my\\040card rw - vfat /dev/sdb1 rw\n"), "mounted at /media/my card"),
        (replace(CARD, mounts="30 22 8:16 / /mnt rw - ext4 /dev/sdb rw\n"), "is mounted at /mnt: umount it first"),
        (replace(CARD, swaps="/dev/sdb1 partition 1000 0 -2\n"), "holds swap in use"),
        (replace(CARD, holder="dm-0"), "is part of another disk"),
    ],
)
def test_everything_else_is_refused(drive: Drive, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        require_card(Path("/dev") / drive.name, 8 * 10**9, drive.plug_in(tmp_path))


def test_a_partition_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the card itself, such as /dev/sdb, not a partition"):
        require_card(Path("/dev/sdb1"), 0, CARD.plug_in(tmp_path))


def test_another_disks_mounts_do_not_matter(tmp_path: Path) -> None:
    machine = replace(CARD, mounts="30 22 8:1 / /home rw - ext4 /dev/sda1 rw\n").plug_in(tmp_path)
    require_card(Path("/dev/sdb"), 0, machine)


# ---- looked at again just before the first write

NULL = Drive(number="1:3")  # as which a test can open something: /dev/null


@pytest.mark.parametrize(
    "other",
    [replace(NULL, size_bytes=31 * 10**9), replace(NULL, sequence="8"), replace(NULL, number="8:32")],
    ids=["another size", "another medium", "another device"],
)
def test_another_card_in_the_reader_is_not_written_to(other: Drive, tmp_path: Path) -> None:
    card = require_card(Path("/dev/sdb"), 0, NULL.plug_in(tmp_path / "before"))
    descriptor = os.open("/dev/null", os.O_RDWR)
    try:
        require_same_card(Path("/dev/sdb"), descriptor, card, 0, NULL.plug_in(tmp_path / "same"))
        with pytest.raises(InputError, match="no longer the card that was checked: nothing was written"):
            require_same_card(Path("/dev/sdb"), descriptor, card, 0, other.plug_in(tmp_path / "other"))
        mounted = replace(NULL, mounts="30 22 8:17 / /mnt rw - vfat /dev/sdb1 rw\n").plug_in(tmp_path / "mounted")
        with pytest.raises(InputError, match="is mounted at /mnt"):
            require_same_card(Path("/dev/sdb"), descriptor, card, 0, mounted)
    finally:
        os.close(descriptor)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"somebody's")
    (tmp_path / "card.img").symlink_to(tmp_path / "disk")
    with pytest.raises(InputError, match=r"is a link: give what it leads to, .*disk"):
        require_no_link(tmp_path / "card.img")
    with pytest.raises(InputError, match="cannot write"):
        open_target(tmp_path / "card.img")
