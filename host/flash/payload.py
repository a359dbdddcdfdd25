"""What goes onto the card beside the official image: files, links and folders, with owner and mode."""

from __future__ import annotations

import hashlib
import stat as modes
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from host.flash.ext4 import MAX_LINK_BYTES, Ext4, require_plain
from protocol.errors import InputError

SPARE_BYTES = 64 << 20  # left free on the card's system: the first boot writes logs and compiled Python


@dataclass(frozen=True)
class Entry:
    """A file (`content`), a symbolic link (`link`), or a folder (neither)."""

    path: str  # absolute, on the card
    mode: int = 0o644  # permission bits
    content: bytes | None = None
    link: str | None = None
    user: int = 0
    group: int = 0

    @property
    def full_mode(self) -> int:
        if self.link is not None:
            return modes.S_IFLNK | 0o777
        return (modes.S_IFDIR if self.content is None else modes.S_IFREG) | self.mode


def file(path: str, content: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, mode, content)


def link(path: str, target: str) -> Entry:
    return Entry(path, link=target)


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, mode)


def digest(entries: Iterable[Entry]) -> str:
    """One name for all of it: the same entries, the same digest."""
    total = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.path):
        content = hashlib.sha256(entry.content or b"").hexdigest()
        total.update(f"{entry.path}\0{entry.full_mode:o}\0{content}\0{entry.link}\n".encode())
    return total.hexdigest()[:12]


def inject(system: Ext4, entries: list[Entry], removed: list[str]) -> None:
    """Write `entries`, then remove `removed`, and read every byte back. Raises: InputError; the image is then void."""
    for path in (*(entry.path for entry in entries), *removed):
        require_plain(path)
    _require_room(system, entries)
    entries = [*_missing_folders(system, entries), *entries]
    with tempfile.TemporaryDirectory() as staging:
        system.write(_commands(system, entries, Path(staging)))
    if removed:
        system.write(_removals(system, removed))
    require_written(system, entries, removed)


def require_written(system: Ext4, entries: list[Entry], removed: list[str]) -> None:
    """Read back content, type, mode and owner of all. Raises: InputError naming the first that differs."""
    found = system.stat_all([*(entry.path for entry in entries), *removed])
    contents = system.read_all(entry.path for entry in entries if entry.content is not None)
    for entry in entries:
        status = found.get(entry.path)
        same = status and (status.mode, status.user, status.group) == (entry.full_mode, entry.user, entry.group)
        if not same or contents.get(entry.path) != entry.content or (status and status.link != entry.link):
            raise InputError(f"{entry.path} reads back otherwise than it was written: check the disk, run again")
    for path in removed:
        if path in found:
            raise InputError(f"{path} could not be removed: check the disk, run again")


def _require_room(system: Ext4, entries: list[Entry]) -> None:
    usage = system.usage()
    needed = sum(len(entry.content or b"") + usage.block_bytes for entry in entries) + SPARE_BYTES
    if usage.free_bytes < needed:
        raise InputError(
            f"{system.path} has {usage.free_bytes >> 20} MiB free in its system, {needed >> 20} are needed: "
            "carry fewer models, or remove recordings from the card"
        )


def _missing_folders(system: Ext4, entries: list[Entry]) -> Iterator[Entry]:
    """Folders above the entries that are not there yet, outermost first."""
    given = {entry.path for entry in entries}
    above = {str(parent) for entry in entries for parent in list(PurePosixPath(entry.path).parents)[:-1]}
    wanted = sorted(above - given)
    there = system.stat_all(wanted)
    for path in wanted:
        if path not in there:
            yield folder(path)
        elif not modes.S_ISDIR(there[path].mode):
            raise InputError(f"{path} is no folder on the card: flash it anew without --update")


def _commands(system: Ext4, entries: list[Entry], staging: Path) -> Iterator[str]:
    there = system.stat_all(entry.path for entry in entries)
    for number, entry in enumerate(sorted(entries, key=lambda entry: entry.path)):
        is_folder = entry.path in there and modes.S_ISDIR(there[entry.path].mode)
        if is_folder != (entry.content is None and entry.link is None) and entry.path in there:
            raise InputError(f"{entry.path} is of another kind on the card: flash it anew without --update")
        if entry.path in there and not is_folder:
            yield f"rm {entry.path}"
        # subtle: debugfs takes the slashes of a new file's path for letters of its name
        parent = PurePosixPath(entry.path)
        yield f"cd {parent.parent}"
        if entry.link is not None:
            if len(entry.link.encode()) > MAX_LINK_BYTES:
                raise InputError(f"{entry.link} is too long for a link: shorten it")
            yield f"symlink {parent.name} {entry.link}"
        elif entry.content is not None:
            staged = staging / str(number)
            staged.write_bytes(entry.content)
            yield f"write {staged} {parent.name}"
        elif not is_folder:
            yield f"mkdir {parent.name}"
        yield f"sif {parent.name} mode 0{entry.full_mode:o}"
        yield f"sif {parent.name} uid {entry.user}"
        yield f"sif {parent.name} gid {entry.group}"


def _removals(system: Ext4, removed: list[str]) -> Iterator[str]:
    there = system.stat_all(removed)
    for path in (path for path in removed if path in there):
        if modes.S_ISDIR(there[path].mode):
            for below, mode in system.tree(path):
                require_plain(below)
                yield f"rmdir {below}" if modes.S_ISDIR(mode) else f"rm {below}"
            yield f"rmdir {path}"
        else:
            yield f"rm {path}"
