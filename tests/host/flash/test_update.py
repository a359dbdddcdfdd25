"""`--update`: the card's own things stay, and whatever interrupts it, the card holds one station whole, old or new."""

from __future__ import annotations

import os
import random
import re
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host.flash.ext4 import Ext4
from host.flash.journal import needs_recovery
from host.flash.medium import Disk
from host.flash.payload import Entry, file, folder, inject, link, require_written
from host.flash.update import CardUpdate
from protocol.errors import InputError
from protocol.manifest import file_sha256
from tests.host.flash.conftest import ROOT_START, Desk, clone, kill_at, make_desk, run
from tests.host.flash.test_flash import home_of, system_of

SECTOR_BYTES = 512
OWN = [  # what a board makes in its life
    folder("/var/lib/beltsight/runs", 0o700),
    file("/var/lib/beltsight/outbox.sqlite", b"verdicts" * 5000, 0o600),
    file("/var/lib/beltsight/runs/a.recording", os.urandom(90_000), 0o600),
    file("/etc/ssh/ssh_host_ed25519_key", b"this board's own\n", 0o600),
    Entry("/etc/shadow", 0o640, b"root:$6$new:1:0:99999:7:::\n", user=0, group=42),
    file("/etc/environment", b"RESIZED=1\n"),
]


@pytest.fixture(scope="module")
def used(flashed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card that a board has run from. Nobody changes it."""
    card = clone(flashed, tmp_path_factory.mktemp("used") / "card.img")
    system = system_of(card)
    inject(system, [*OWN, folder(f"{home_of(system)}/site"), file(f"{home_of(system)}/site/x.py", b"x = 1\n")], [])
    return card


@pytest.fixture
def plant(tmp_path: Path, official: Path) -> Desk:
    """The desk that the card comes from, with another configuration; no zip is needed any more."""
    desk = make_desk(tmp_path, official)
    desk.archive.unlink()
    desk.config.write_text(desk.config.read_text() + "\n# changed\n")
    return desk


def update(desk: Desk, card: Path) -> None:
    result = desk.flash("--update", *desk.options(card))
    assert result.returncode == 0, result.stderr


def test_the_cards_own_things_stay(used: Path, plant: Desk) -> None:
    card = clone(used, plant.folder / "card.img")
    old = home_of(system_of(card))
    update(plant, card)
    system = system_of(card)
    require_written(system, OWN, [])
    new = home_of(system)
    assert new != old
    assert system.read(f"{new}/config/line.toml") == plant.config.read_bytes()
    assert system.read(f"{old}/site/x.py") == b"x = 1\n"  # the version before this one can be returned to
    assert system.read("/root/.ssh/authorized_keys")
    system.require_clean()


def test_older_versions_make_room(used: Path, plant: Desk) -> None:
    card = clone(used, plant.folder / "card.img")
    first = home_of(system_of(card))
    update(plant, card)
    second = home_of(system_of(card))
    plant.config.write_text(plant.config.read_text() + "# and again\n")
    update(plant, card)
    system = system_of(card)
    assert set(system.entries("/opt/beltsight/versions")) == {Path(second).name, Path(home_of(system)).name}
    assert not system.stat(first)


def test_an_update_that_changes_nothing_writes_nothing(used: Path, plant: Desk) -> None:
    card = clone(used, plant.folder / "card.img")
    update(plant, card)
    content = file_sha256(card)
    update(plant, card)
    assert file_sha256(card) == content


def test_a_card_that_is_none_of_ours(plant: Desk, official: Path) -> None:
    with zipfile.ZipFile(official) as opened:
        image = Path(opened.extract(opened.infolist()[0], plant.folder))
    assert "has no station: flash it without --update" in plant.refusal("--update", *plant.options(image))
    empty = plant.folder / "empty.img"
    empty.write_bytes(bytes(10_000))
    assert "has no partition table" in plant.refusal("--update", *plant.options(empty))


def test_the_profile_stays(used: Path, plant: Desk) -> None:
    card = clone(used, plant.folder / "card.img")
    assert "was flashed for production" in plant.refusal("--update", *plant.options(card), "--developer")


@pytest.mark.parametrize("checksums", ["", "-c"])
def test_a_power_cut_of_the_board_is_finished_first(used: Path, plant: Desk, checksums: str) -> None:
    """The journal holds a block that is not in its place yet; with the kernel's checksums, and without."""
    card = clone(used, plant.folder / "card.img")
    system = system_of(card)
    at = block_of(system, "/etc/environment")
    (plant.folder / "block").write_bytes(b"RESIZED=2\n".ljust(system.usage().block_bytes, b"\0"))
    script = plant.folder / "script"
    script.write_text(f"jo {checksums}\njw -b {at} {plant.folder / 'block'}\njc\n")
    run("debugfs", "-w", "-f", script, where(system))
    assert needs_recovery(superblock_of(card))
    assert system.read("/etc/environment") == b"RESIZED=1\n"
    update(plant, card)
    assert system.read("/etc/environment") == b"RESIZED=2\n"
    assert not needs_recovery(superblock_of(card))
    assert b"# changed" in (system.read(f"{home_of(system)}/config/line.toml") or b"")


def test_a_board_whose_plug_was_pulled_is_updated(used: Path, plant: Desk) -> None:
    """What that leaves, apart from the journal: a file deleted while it was open, and a superblock that miscounts."""
    card = clone(used, plant.folder / "card.img")
    system = system_of(card)
    inject(system, [file("/var/lib/deleted", b"x" * 50_000)], [])
    number = re.search(r"Inode: (\d+)", run("debugfs", "-R", "stat /var/lib/deleted", where(system)).stdout)
    assert number
    inode = f"<{number[1]}>"
    system.write(["unlink /var/lib/deleted", f"sif {inode} links_count 0", f"ssv last_orphan {number[1]}"])
    system.write(["ssv free_blocks_count 4711"])
    with pytest.raises(InputError, match="damaged"):
        system.require_clean()
    update(plant, card)
    require_written(system, OWN, [])
    assert b"# changed" in (system.read(f"{home_of(system)}/config/line.toml") or b"")
    system.require_clean()


def test_a_damaged_card_is_not_updated(used: Path, plant: Desk) -> None:
    card = clone(used, plant.folder / "card.img")
    system = system_of(card)
    system.write(["clri /var/lib/beltsight/runs"])
    content = file_sha256(card)
    assert "is damaged" in plant.refusal("--update", *plant.options(card))
    assert file_sha256(card) == content


def where(system: Ext4) -> str:
    return f"{system.path}?offset={system.offset_bytes}" if system.offset_bytes else str(system.path)


def block_of(system: Ext4, path: str) -> int:
    output = run("debugfs", "-R", f"blocks {path}", where(system)).stdout
    return int(output.split()[0])


def superblock_of(card: Path) -> bytes:
    with card.open("rb") as opened:
        opened.seek(ROOT_START * SECTOR_BYTES + 1024)
        return opened.read(1024)


# --- power cuts -------------------------------------------------------------------------------------------------------


class Recorded(Disk):
    """Keeps what was written between one flush and the next."""

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(path, descriptor)
        self.epochs: list[list[tuple[int, bytes]]] = [[]]

    def write(self, offset: int, data: bytes) -> None:
        self.epochs[-1].append((offset, data))
        super().write(offset, data)

    def flush(self) -> None:
        self.epochs.append([])
        super().flush()


OLD = [file("/opt/s/1/a.py", b"old\n" * 3000), file("/opt/s/1/key", b"old key", 0o600), link("/opt/s/now", "1")]
NEW = [
    file("/opt/s/2/a.py", b"new\n" * 4000),
    file("/opt/s/2/key", b"new key", 0o600),
    file("/opt/s/2/zeros", bytes(9000) + b"x" + bytes(9000)),
    # Begins like a block of the journal itself.
    file("/opt/s/2/journal-like", b"\xc0\x3b\x39\x98" + b"j" * 5000),
    link("/opt/s/now", "2"),
    file("/etc/unit", b"unit of the new station\n" * 200),
]
OLD_UNIT = [file("/etc/unit", b"unit of the old station\n")]


@dataclass(frozen=True)
class Cut:
    before: Path
    epochs: list[list[tuple[int, bytes]]]


@pytest.fixture(scope="module", params=[1024, 4096], ids=["1 KiB blocks", "4 KiB blocks"])
def cut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """An update, taken apart into what was written between the flushes."""
    tmp_path = tmp_path_factory.mktemp("cut")
    before = small_card(tmp_path, request.param)
    card = clone(before, tmp_path / "card.img")
    descriptor = os.open(card, os.O_RDWR)
    medium = Recorded(card, descriptor)
    (tmp_path / "work").mkdir()
    updating = CardUpdate(Ext4(card, ROOT_START * SECTOR_BYTES), medium, tmp_path / "work")
    updating.run(lambda copy: inject(copy, NEW, ["/opt/s/1/key"]))
    os.close(descriptor)
    assert state_of(card) == "new"
    return Cut(before, medium.epochs)


def small_card(folder: Path, block_bytes: int) -> Path:
    """20 MB of FAT's room and 96 MB of ext4, with garbage in the blocks that nothing uses: cards are never clean."""
    path = folder / "before.img"
    blocks = (96 << 20) // block_bytes
    offset = ROOT_START * SECTOR_BYTES
    with path.open("wb") as opened:
        opened.truncate(offset + (96 << 20))
    table = f"label: dos\nstart=2048,size={ROOT_START - 2048},type=c\nstart={ROOT_START},type=83\n"
    run("sfdisk", "-q", path, given=table)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(block_bytes), "-E", f"offset={offset}", path, str(blocks))
    system = Ext4(path, offset)
    inject(system, [*OLD, *OLD_UNIT, *OWN[:3]], [])
    usage = system.usage()
    with path.open("r+b") as opened:
        for first, last in usage.free:
            for number in range(first, min(last + 1, first + 400)):
                opened.seek(offset + number * block_bytes)
                opened.write(b"\xc0\x3b\x39\x98" * (block_bytes // 4))
    system.require_clean()
    return path


def state_of(card: Path) -> str:
    """`old` or `new`, after what the kernel does at its next mount. Fails if it is neither, or not whole."""
    system = mounted(card)
    require_written(system, OWN[:3], [])
    current = system.stat("/opt/s/now")
    assert current
    if current.link == "1":
        require_written(system, [*OLD, *OLD_UNIT], ["/opt/s/2"])
        return "old"
    require_written(system, NEW, ["/opt/s/1/key"])
    return "new"


def mounted(card: Path) -> Ext4:
    """The card's system in a file of its own, after what the kernel does when it mounts: without our own code."""
    plain = card.with_suffix(".root.img")
    run(
        "dd",
        f"if={card}",
        f"of={plain}",
        "bs=1M",
        "iflag=skip_bytes",
        f"skip={ROOT_START * SECTOR_BYTES}",
        "conv=sparse",
    )
    run("e2fsck", "-y", "-E", "journal_only", plain)
    system = Ext4(plain, 0)
    system.require_clean()
    return system


def after_cut(cut: Cut, card: Path, flushed: int, seed: int) -> None:
    """Everything up to that flush is there; of what came then, any part, in any order, down to single sectors."""
    chance = random.Random(seed)
    clone(cut.before, card)
    with card.open("r+b") as opened:
        for offset, data in [write for epoch in cut.epochs[:flushed] for write in epoch]:
            opened.seek(offset)
            opened.write(data)
        sectors = [
            (offset + start, data[start : start + SECTOR_BYTES])
            for offset, data in cut.epochs[flushed]
            for start in range(0, len(data), SECTOR_BYTES)
        ]
        for offset, sector in chance.sample(sectors, round(len(sectors) * chance.random())):
            opened.seek(offset)
            opened.write(sector)


def test_power_may_fail_at_any_write(cut: Cut, tmp_path: Path) -> None:
    states = []
    for flushed in range(len(cut.epochs)):
        for seed in range(3):
            after_cut(cut, tmp_path / "card.img", flushed, seed)
            states.append(state_of(tmp_path / "card.img"))
    first_new = states.index("new")
    # What an earlier cut left undone never comes back: old up to some flush, new from some flush on.
    assert states[: first_new - first_new % 3] == ["old"] * (first_new - first_new % 3)
    assert states[first_new - first_new % 3 + 3 :] == ["new"] * (len(states) - (first_new - first_new % 3) - 3)


def test_the_kernel_finds_one_station(cut: Cut, tmp_path: Path) -> None:
    """Linux itself mounts the card after each of the cuts, writes to it, and leaves it sound."""
    place = tmp_path / "mnt"
    place.mkdir()
    card = clone(cut.before, tmp_path / "card.img")  # mounting changes it
    if not mount(card, place):
        pytest.skip("mounting a card needs root and a loop device: the other tests take e2fsck for the kernel")
    run("umount", place)
    for flushed in range(len(cut.epochs)):
        for seed in range(2):
            after_cut(cut, card, flushed, seed + 5)
            assert mount(card, place), (flushed, seed)
            try:
                link_to = os.readlink(place / "opt/s/now")
                entries = [*OWN[1:3], *(NEW if link_to == "2" else [*OLD, *OLD_UNIT])]
                for entry in entries:
                    assert entry.content is None or (place / entry.path[1:]).read_bytes() == entry.content, entry.path
                (place / "more").write_bytes(b"x" * 100_000)
            finally:
                run("umount", place)
            Ext4(card, ROOT_START * SECTOR_BYTES).require_clean()


def mount(card: Path, place: Path) -> bool:
    options = f"loop,offset={ROOT_START * SECTOR_BYTES}"
    return not subprocess.run(
        ["mount", "-t", "ext4", "-o", options, card, place], capture_output=True, check=False
    ).returncode


def test_zeros_replace_what_the_card_had_there(tmp_path: Path) -> None:
    """A new block of zeros is like the copy's hole, and unlike the garbage in the card's free blocks."""
    card = small_card(tmp_path, 4096)
    (tmp_path / "work").mkdir()

    def change(copy: Ext4) -> None:
        inject(copy, [file("/zeros", b"x" * 40_960)], [])
        first = block_of(copy, "/zeros")
        with copy.path.open("r+b") as opened:
            opened.seek(first * 4096)
            opened.write(bytes(40_960))

    descriptor = os.open(card, os.O_RDWR)
    system = Ext4(card, ROOT_START * SECTOR_BYTES)
    CardUpdate(system, Disk(card, descriptor), tmp_path / "work").run(change)
    os.close(descriptor)
    assert system.read("/zeros") == bytes(40_960)


def test_power_may_fail_while_the_update_is_finished(cut: Cut, tmp_path: Path) -> None:
    """The transaction is in the journal, nothing in its place: replaying it may be cut, too, and is done again."""
    decided = next(n for n in range(len(cut.epochs)) if _state_at(cut, tmp_path / "card.img", n) == "new")
    after_cut(cut, tmp_path / "card.img", decided, 0)
    half = tmp_path / "half.img"
    for seed in range(4):
        after_cut(cut, half, decided + 1 if seed % 2 else decided, seed)
        assert state_of(half) == "new"
        assert state_of(half) == "new"


def _state_at(cut: Cut, card: Path, flushed: int) -> str:
    clone(cut.before, card)
    with card.open("r+b") as opened:
        for offset, data in [write for epoch in cut.epochs[:flushed] for write in epoch]:
            opened.seek(offset)
            opened.write(data)
    return state_of(card)


FSYNCS = 7  # of an update: new files, transaction, two sectors that decide, home, emptied, superblock


@pytest.mark.parametrize("at", [*(f"fsync:{n}" for n in range(1, FSYNCS + 1)), "pwrite64:1", "pwrite64:60"])
def test_a_killed_update_leaves_one_station_and_is_completed_by_the_next(used: Path, plant: Desk, at: str) -> None:
    card = clone(used, plant.folder / "card.img")
    old = home_of(system_of(card))
    call, count = at.split(":")
    kill = kill_at(call, int(count), card)
    killed = plant.flash("--update", *plant.options(card), before=kill)
    assert killed.returncode < 0 or killed.returncode == 137, killed
    system = mounted(card)
    require_written(system, OWN, [])
    content = system.read(f"{home_of(system)}/config/line.toml") or b""
    assert content.endswith(b"# changed\n") == (home_of(system) != old)
    update(plant, card)
    assert home_of(system_of(card)) != old
    require_written(system_of(card), OWN, [])


@pytest.fixture(autouse=True)
def no_left_overs(tmp_path: Path) -> Iterator[None]:
    """Images are large; pytest keeps the folders of its last runs."""
    yield
    for path in tmp_path.rglob("*.img"):
        path.unlink()
