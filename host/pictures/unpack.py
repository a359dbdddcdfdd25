"""Unpack an archive from outside: plain files and folders only, nothing beside the target, bounded in size."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from protocol.errors import InputError

MOST_FILES = 100_000


def unpack(archive: Path, folder: Path, largest_bytes: int) -> None:
    """Into the new `folder`, without the archive's one top folder.

    Raises: InputError for an archive that is damaged, too large, or has members that do not belong into a folder.
    """
    try:
        with tarfile.open(archive, "r|*") as tar:
            _unpack(tar, archive, folder, largest_bytes)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise InputError(f"{archive} is damaged ({error}): delete it and download it again") from None


def _unpack(tar: tarfile.TarFile, archive: Path, folder: Path, largest_bytes: int) -> None:
    total_bytes = 0
    for number, member in enumerate(tar, start=1):
        total_bytes += member.size
        if total_bytes > largest_bytes or number > MOST_FILES:
            raise InputError(f"{archive} unpacks to more than {largest_bytes / 1e6:.0f} MB: it is not the one expected")
        path = _place(member, archive, folder)
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        content = tar.extractfile(member)
        if content is None:
            raise InputError(f"{archive} has {member.name!r}, which has no content: do not use this archive")
        with content, path.open("xb") as file:
            shutil.copyfileobj(content, file)


def _place(member: tarfile.TarInfo, archive: Path, folder: Path) -> Path:
    """Where the member goes; links, devices and paths that leave the folder are refused."""
    parts = PurePosixPath(member.name).parts
    leaves = not parts or parts[0] == "/" or ".." in parts or "\\" in member.name or ":" in parts[0]
    if leaves or not (member.isfile() or member.isdir()):
        raise InputError(f"{archive} has {member.name!r}, which does not belong there: do not use this archive")
    inside = parts[1:] if parts[0] != "." else parts[2:]
    return folder.joinpath(*inside)
