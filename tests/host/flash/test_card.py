"""Writing a whole card: only used blocks, everything read back, and not bootable before it is finished."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

from host.flash.card import used_ranges, write_card
from host.flash.layout import read_layout
from host.flash.medium import Disk
from host.flash.progress import Progress, describe
from protocol.errors import InputError
from tests.host.flash.conftest import Desk, Official, clone, kill_at
from tests.host.flash.test_update import Recorded

CARD_BYTES = 256 << 20
SECTOR_BYTES = 512


@pytest.fixture(scope="module")
def image(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    with zipfile.ZipFile(official) as opened:
        return clone(Path(opened.extract(opened.infolist()[0], folder)), folder / "image.img")


def quiet() -> Progress:
    return Progress("", io.StringIO())


def worn_card(path: Path) -> Path:
    """A card with what was on it before: nothing of it may be taken for part of the image."""
    with path.open("wb") as opened:
        opened.truncate(CARD_BYTES)
        for at in range(0, CARD_BYTES, 1 << 20):
            opened.seek(at)
            opened.write(b"\xff" * 8192)
    return path


def write(image: Path, card: Path, medium: type[Disk] = Disk) -> Disk:
    descriptor = os.open(card, os.O_RDWR)
    try:
        disk = medium(card, descriptor)
        write_card(image, read_layout(image), disk, quiet(), quiet())
        return disk
    finally:
        os.close(descriptor)


def holds(card: Path, image: Path) -> bool:
    with card.open("rb") as written, image.open("rb") as wanted:
        ranges = [(0, SECTOR_BYTES), *used_ranges(image, read_layout(image))]
        return all(
            os.pread(written.fileno(), end - start, start) == os.pread(wanted.fileno(), end - start, start)
            for start, end in ranges
        )


def test_a_card_gets_what_the_image_uses_and_no_more(image: Path, tmp_path: Path) -> None:
    card = worn_card(tmp_path / "card.img")
    write(image, card)
    assert holds(card, image)
    ranges = used_ranges(image, read_layout(image))
    assert sum(end - start for start, end in ranges) < image.stat().st_size / 4
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    free = 200 << 20  # beyond the image
    with card.open("rb") as opened:
        opened.seek(free)
        assert opened.read(8192) == b"\xff" * 8192


def test_everything_in_use_is_in_the_block_map(tmp_path: Path) -> None:
    """A map that forgot a block would leave what the card had there: every block with content is in it."""
    image = Official(block_bytes=4096).write(tmp_path / "image.img", tmp_path / "made" / "tree")
    ranges = used_ranges(image, read_layout(image))
    with image.open("rb") as opened:
        for at in range(SECTOR_BYTES, image.stat().st_size, 4096):
            if any(os.pread(opened.fileno(), 4096, at)):
                assert any(start < at + 4096 and at < end for start, end in ranges), at


def test_power_may_fail_at_any_write(image: Path, tmp_path: Path) -> None:
    card = worn_card(tmp_path / "card.img")
    before = clone(card, tmp_path / "before.img")
    medium = write(image, card, Recorded)
    assert isinstance(medium, Recorded)
    epochs = medium.epochs
    assert len(epochs) >= 4  # the mark, the content, sector 0
    for flushed in range(1, len(epochs)):
        cut = clone(before, tmp_path / "cut.img")
        chance = random.Random(flushed)
        some = chance.sample(epochs[flushed], round(len(epochs[flushed]) * chance.random()))
        with cut.open("r+b") as opened:
            for offset, data in [*(w for epoch in epochs[:flushed] for w in epoch), *some]:
                opened.seek(offset)
                opened.write(data)
        try:
            read_layout(cut)
        except InputError as error:
            assert "was not written to its end: flash it again without --update" in str(error)  # noqa: PT017
        else:
            assert holds(cut, image)
    assert holds(cut, image)


class Forgetful(Disk):
    """A card that gives back one block as it was before."""

    def read(self, offset: int, size: int) -> bytes:
        data = super().read(offset, size)
        return b"\xff" * 512 + data[512:] if offset > 1 << 20 else data


class Small(Disk):
    """A forged card: it says 256 MB, has 64 MB, and writes what lies beyond over its beginning."""

    def write(self, offset: int, data: bytes) -> None:
        for start in range(0, len(data), 4096):
            super().write((offset + start) % (64 << 20), data[start : start + 4096])

    def read(self, offset: int, size: int) -> bytes:
        return b"".join(
            super(Small, self).read((offset + at) % (64 << 20), min(512, size - at)) for at in range(0, size, 512)
        )


@pytest.mark.parametrize("medium", [Forgetful, Small])
def test_a_card_that_lies_is_found_out_and_stays_marked(image: Path, tmp_path: Path, medium: type[Disk]) -> None:
    card = worn_card(tmp_path / "card.img")
    with pytest.raises(InputError, match=r"gives back other bytes .* take another card"):
        write(image, card, medium)
    with pytest.raises(InputError, match=r"partition table|was not written to its end"):
        read_layout(card)


def test_a_killed_writer_leaves_a_card_that_says_so(image: Path, tmp_path: Path) -> None:
    card = worn_card(tmp_path / "card.img")
    program = (
        "import sys; from pathlib import Path; from tests.host.flash.test_card import write;"
        "write(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    for call, count in (("pwrite64", 3), ("fsync", 2), ("fsync", 3)):
        kill = kill_at(call, count, card)
        killed = subprocess.run([*kill, sys.executable, "-c", program, image, card], capture_output=True, check=False)
        assert killed.returncode in (-9, 137), killed
        if (call, count) != ("fsync", 3):  # sector 0 is written, and killing does not take it back
            with pytest.raises(InputError, match="was not written to its end"):
                read_layout(card)
    write(image, card)
    assert holds(card, image)


@pytest.mark.parametrize("at", ["write:40", "fsync:1", "rename:1", "fsync:3"])
def test_a_killed_command_leaves_the_file_before_or_the_whole_new_one(desk: Desk, at: str) -> None:
    target = desk.folder / "card.img"
    target.write_bytes(b"the card before")
    call, count = at.split(":")
    kill = kill_at(call, int(count))
    killed = desk.flash("--image", desk.archive, *desk.options(target), before=kill)
    assert killed.returncode in (-9, 137), killed
    assert (target.read_bytes()[:15] == b"the card before") == (at != "fsync:3")
    again = desk.flash("--image", desk.archive, *desk.options(target))
    assert again.returncode == 0, again.stderr
    assert read_layout(target)
    assert not list(desk.folder.glob("*.partial"))


def test_progress_tells_what_is_left() -> None:
    assert (
        describe("writing", 250_000_000, 1_000_000_000, 10.0) == "writing: 25 %, 250 of 1000 MB, 25.0 MB/s, 0:30 left"
    )
    assert describe("writing", 0, 0, 0.0) == "writing: 0 %, 0 of 0 MB"
