"""All files of a set of pictures, folder by folder, and which of them are not even looked at."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from protocol.errors import InputError
from protocol.pictures.files import PICTURE_SUFFIXES, is_picture, read_head, shown

DEEPEST = 6  # folders below the set's own
MOST_FILES = 500_000
LABEL_SUFFIXES = frozenset({".json", ".txt", ".csv", ".xml", ".yaml", ".yml", ".names"})
_SYSTEM = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass
class Found:
    """Pictures by their folder below the set's own, `()` for that itself; files of labels; what is left, by reason."""

    root: Path
    pictures: dict[tuple[str, ...], list[Path]] = field(default_factory=dict)
    labels: list[Path] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    _files: int = 0

    def folders(self) -> list[tuple[str, ...]]:
        return sorted(self.pictures)


def walk(root: Path) -> Found:
    """In the order of the names. Raises: InputError if the folder cannot be read."""
    found = Found(root)
    _walk(root, (), found, {os.path.realpath(root)})
    return found


def _walk(folder: Path, below: tuple[str, ...], found: Found, seen: set[str]) -> None:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot read {shown(folder)}: {error.strerror}") from None
    found._files += len(entries)
    if found._files > MOST_FILES:
        raise InputError(f"{shown(found.root)} has more than {MOST_FILES} files: give --data the folder of one product")
    for entry in entries:
        _sort_in(entry, below, found, seen)


def _sort_in(entry: os.DirEntry[str], below: tuple[str, ...], found: Found, seen: set[str]) -> None:
    if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
        found.unused["hidden, or a system's"] += 1
    elif _is(entry, "dir"):
        real = os.path.realpath(entry.path)
        if len(below) < DEEPEST and real not in seen:  # subtle: a link may lead to a folder above
            _walk(Path(entry.path), (*below, entry.name), found, {*seen, real})
        else:
            found.unused["a folder that leads back, or too deep"] += 1
    elif not _is(entry, "file"):
        found.unused["no plain file, or a broken link"] += 1
    else:
        _sort_in_file(Path(entry.path), below, found)


def _sort_in_file(path: Path, below: tuple[str, ...], found: Found) -> None:
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES or (suffix not in LABEL_SUFFIXES and is_picture(read_head(path))):
        found.pictures.setdefault(below, []).append(path)
    elif suffix in LABEL_SUFFIXES:
        found.labels.append(path)
    else:
        found.unused["no picture that is read" + (f" ({shown(suffix)})" if suffix else "")] += 1


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    try:
        return entry.is_dir() if kind == "dir" else entry.is_file()
    except OSError:  # a link to itself
        return False
