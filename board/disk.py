"""What is to survive a power cut: the file is synced, gets its name in one step, and then its folder is synced."""

from __future__ import annotations

import os
from io import BufferedWriter
from pathlib import Path


def sync_file(file: BufferedWriter) -> None:
    """Raises: OSError."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """A new name, too, is lost in a power cut until its folder is synced (fsync(2)). Raises: OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Disk:
    """The seam to the file system. Each call may raise OSError."""

    def write(self, path: Path, data: bytes) -> None:
        """Whole and synced."""
        with path.open("wb") as file:
            file.write(data)
            sync_file(file)

    def replace(self, fresh: Path, path: Path) -> None:
        os.replace(fresh, path)

    def sync_folder(self, folder: Path) -> None:
        sync_folder(folder)


def replace_file(path: Path, data: bytes, disk: Disk) -> None:
    """Whatever happens, the file holds this data or what it held before. Raises: OSError if this may be lost."""
    fresh = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write(fresh, data)
    disk.replace(fresh, path)
    disk.sync_folder(path.parent)
