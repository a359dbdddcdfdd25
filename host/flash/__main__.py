"""From the official image to a card that is a station: `beltsight flash`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from host.flash.archive import find_image, require_sha256, require_space, unpack
from host.flash.card import write_card
from host.flash.ext4 import Ext4
from host.flash.identity import require_image, require_version
from host.flash.kernels import build_kernels, can_build
from host.flash.layout import Layout, read_layout
from host.flash.medium import Disk
from host.flash.payload import Entry, inject, require_written
from host.flash.progress import Progress
from host.flash.station import CARD, CURRENT, VERSIONS, Profile, Station, build_station, describe
from host.flash.system import at_first, lasting, load_ssh_key, shared_host_keys
from host.flash.target import Card, is_device, open_target, require_card, require_no_link, require_same_card
from host.flash.tools import require_tools, run_tool, said
from host.flash.update import CardUpdate
from host.flash.wheels import LISTING, load_wheels
from protocol.errors import InputError, run_main

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Options:
    image: Path | None
    config: Path
    target: Path
    developer: bool
    update: bool
    sha256: str | None
    ssh_key: Path | None
    model: list[str]
    wheels: Path
    wheel_list: Path
    work: Path | None

    @property
    def profile(self) -> Profile:
        return "developer" if self.developer else "production"


def main(make_kernels: Callable[[], object] = lambda: None) -> int:
    options = parse_options()
    require_tools()
    make_kernels()
    if options.update:
        update(options)
    else:
        flash(options)
    return 0


def parse_options() -> Options:
    parser = argparse.ArgumentParser(prog="beltsight flash", description="Make a card that is a station.")
    parser.add_argument("--image", type=Path, help="the official PYNQ-Z2 image, as the zip that was downloaded")
    parser.add_argument("--config", type=Path, required=True, help="the line's TOML file; what it names comes along")
    parser.add_argument("--target", type=Path, required=True, help="the card, such as /dev/sdX, or FILE.img")
    parser.add_argument("--developer", action="store_true", help="leave passwords, Jupyter and samba as they are")
    parser.add_argument("--update", action="store_true", help="refresh a flashed card: its state and keys stay")
    parser.add_argument("--sha256", help="of the zip; without it, that of its first use must come again")
    parser.add_argument("--ssh-key", type=Path, metavar="FILE.pub", help="who may log in as root")
    parser.add_argument("--model", action="append", default=[], metavar="ID", help="a further package of models_dir")
    parser.add_argument("--wheels", type=Path, default=ROOT / "build" / "wheels", help="cache (default: %(default)s)")
    pinned = ROOT / "board" / "image" / LISTING
    parser.add_argument("--wheel-list", type=Path, default=pinned, help="pinned wheels (default: %(default)s)")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="room for the image (default: beside the target)")
    options = Options(**vars(parser.parse_args()))
    if options.image is None and not options.update:
        parser.error("--image is needed, except with --update")
    return options


def flash(options: Options) -> None:
    """Build the image, check it, and only then touch the target. Raises: InputError."""
    archive = options.image
    if archive is None:  # parse_options saw to it
        raise InputError("--image is needed")
    info = find_image(archive)
    card = check_target(options.target, info.file_size)
    station, ssh_key = prepare(options)
    work = work_folder(options, archive)
    require_space(work, info.file_size)
    require_sha256(archive, options.sha256, Progress("checking the zip", sys.stderr))
    partial = work / f"{options.target.name}.partial"
    try:
        unpack(archive, info, partial, Progress("unpacking", sys.stderr))
        layout = build_image(partial, options, station, ssh_key)
        if card:
            write_device(partial, layout, options.target, card)
        else:
            move_into_place(partial, options.target)
    finally:
        partial.unlink(missing_ok=True)
    report(options, station)


def check_target(target: Path, needed_bytes: int) -> Card | None:
    """The card; None for an image file. Raises: InputError."""
    require_no_link(target)
    if is_device(target):
        return require_card(target, needed_bytes)
    if target.suffix != ".img" or target.is_dir() or not target.parent.is_dir():
        raise InputError(f"--target {target} is neither a disk nor FILE.img in a folder that exists: see lsblk")
    return None


def prepare(options: Options) -> tuple[Station, str | None]:
    """What the user gave, checked before anything takes time. Raises: InputError."""
    ssh_key = load_ssh_key(options.ssh_key) if options.ssh_key else None
    wheels = load_wheels(options.wheel_list, options.wheels)
    return build_station(ROOT, options.config, options.model, wheels), ssh_key


def work_folder(options: Options, archive: Path) -> Path:
    """Raises: InputError."""
    folder = options.work or (archive.parent if is_device(options.target) else options.target.parent)
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write in {folder}: give --work a folder")
    return folder


def build_image(image: Path, options: Options, station: Station, ssh_key: str | None) -> Layout:
    """Put the station into the unpacked image. Raises: InputError."""
    layout = read_layout(image)
    version = require_image(image, layout)
    system = Ext4(image, layout.root.start_bytes)
    print(f"PYNQ {version}; putting in station {station.version} …", file=sys.stderr, flush=True)
    entries = [*station.entries, describe(station, version, options.profile)]
    entries += [*lasting(ROOT, options.profile, ssh_key), *at_first(ROOT, options.profile, system)]
    inject(system, entries, shared_host_keys(system))
    system.require_clean()
    require_clean_boot(image, layout)
    return layout


def require_clean_boot(image: Path, layout: Layout) -> None:
    """Raises: InputError unless fsck.vfat finds nothing in partition 1."""
    with tempfile.NamedTemporaryFile(suffix=".fat") as copy, image.open("rb") as file:
        file.seek(layout.boot.start_bytes)
        copy.write(file.read(layout.boot.size_bytes))
        copy.flush()
        result = run_tool("fsck.vfat", "-n", copy.name)
    if result.returncode != 0:
        raise InputError(f"the boot partition of the image is damaged ({said(result)}): download it again")


def write_device(image: Path, layout: Layout, device: Path, card: Card) -> None:
    """Raises: InputError."""
    descriptor = open_target(device)
    try:
        require_same_card(device, descriptor, card, layout.root.end_bytes)
        writing, comparing = Progress(f"writing {device}", sys.stderr), Progress("comparing", sys.stderr)
        write_card(image, layout, Disk(device, descriptor), writing, comparing)
    finally:
        os.close(descriptor)


def move_into_place(partial: Path, target: Path) -> None:
    """On the disk before it has its name. Raises: InputError."""
    try:
        for path, flags in ((partial, os.O_RDWR), (partial.parent, os.O_RDONLY)):
            descriptor = os.open(path, flags)
            os.fsync(descriptor)
            os.close(descriptor)
        os.replace(partial, target)
        descriptor = os.open(target.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    except OSError as error:
        raise InputError(f"cannot write {target} ({error.strerror}): give --work a folder on the same disk") from None


def update(options: Options) -> None:
    """Raises: InputError; the card is then what it was."""
    target = check_target(options.target, 0)
    station, ssh_key = prepare(options)
    layout = read_layout(options.target)
    card = Ext4(options.target, layout.root.start_bytes)
    descriptor = open_target(options.target)
    try:
        if target:
            require_same_card(options.target, descriptor, target, 0)
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            updating = CardUpdate(card, Disk(options.target, descriptor), Path(work))
            updating.finish_interrupted()
            update_card(card, updating, options, station, ssh_key)
    finally:
        os.close(descriptor)
    report(options, station)


def update_card(card: Ext4, updating: CardUpdate, options: Options, station: Station, ssh_key: str | None) -> None:
    """Raises: InputError."""
    image, old_version = read_card(card, options.profile)
    entries = [*station.entries, describe(station, image, options.profile)]
    entries += lasting(ROOT, options.profile, ssh_key)
    # The version before this one stays, for whoever wants it back; older ones make room.
    kept = (station.version, old_version)
    older = [f"{VERSIONS}/{name}" for name in card.entries(VERSIONS) if name not in kept]
    removed = older if station.version != old_version else []
    pending = missing(card, entries)
    updating.run(lambda copy: inject(copy, pending, removed))
    card.require_clean()
    require_written(card, entries, removed)


def read_card(card: Ext4, profile: Profile) -> tuple[str, str]:
    """Version of the image, and of the station on it. Raises: InputError unless it was flashed, in that profile."""
    link = card.stat(CURRENT)
    about = card.read(f"{VERSIONS}/{Path(link.link).name}/{CARD}") if link and link.link else None
    if about is None:
        raise InputError(f"{card.path} has no station: flash it without --update")
    try:
        before = json.loads(about)
        flashed_for, version = str(before["profile"]), str(before["version"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{card.path} has a damaged {CARD}: flash it without --update") from None
    if flashed_for != profile:
        raise InputError(f"{card.path} was flashed for {flashed_for}: update it so, or flash it anew")
    return require_version(card, card.path), version


def missing(system: Ext4, entries: list[Entry]) -> list[Entry]:
    """Entries that are not there exactly so."""
    found = system.stat_all(entry.path for entry in entries)
    contents = system.read_all(entry.path for entry in entries if entry.path in found and entry.content is not None)

    def differs(entry: Entry) -> bool:
        status = found.get(entry.path)
        if not status or (status.mode, status.user, status.group) != (entry.full_mode, entry.user, entry.group):
            return True
        return status.link != entry.link or contents.get(entry.path) != entry.content

    return [entry for entry in entries if differs(entry)]


def report(options: Options, station: Station) -> None:
    print(f"{options.target}: station {station.version}, line {station.line}, model {station.model}: read back, equal")
    if not options.ssh_key and not options.update and not options.developer:
        print("nobody can log in: flash with --ssh-key if somebody should")


if __name__ == "__main__":
    # Without its own kernels the ARM engine judges with ONNX Runtime, slower.
    sys.exit(run_main(lambda: main(build_kernels if can_build() else lambda: None)))
