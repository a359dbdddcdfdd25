"""The official zip: checked for size, CRC-32 and SHA-256, and unpacked into a sparse file.

It is published without a checksum. The first use records its SHA-256 beside it, in the form of `sha256sum`; each later
use must find the same.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from host.flash.progress import Progress
from protocol.errors import InputError

MAX_IMAGE_BYTES = 32 << 30  # the official one has about 8 GB: larger is a mistake or a trap
CHUNK_BYTES = 1 << 20
HOLE_BYTES = 4096  # runs of zeros from this size on are left out of the file
_AGAIN = "download it again"


def require_sha256(archive: Path, given: str | None, progress: Progress) -> None:
    """Compare with `given`, else with the record beside the file, else make that record. Raises: InputError."""
    if given is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", given):
        raise InputError("--sha256 must be 64 hexadecimal digits, as sha256sum prints them")
    digest = _sha256(archive, progress)
    record = archive.with_name(archive.name + ".sha256")
    if given is not None and given.lower() != digest:
        raise InputError(f"{archive} has SHA-256 {digest}, not the one that was given: {_AGAIN}")
    try:
        if record.exists():
            if record.read_text(errors="replace").split()[:1] != [digest]:
                raise InputError(f"{archive} is not what {record} recorded: {_AGAIN}, or remove the record")
        else:
            with record.open("x") as file:  # subtle: never through a link
                file.write(f"{digest}  {archive.name}\n")
    except OSError as error:
        raise InputError(f"cannot keep {record} ({error.strerror}): make its folder writable") from None


def find_image(archive: Path) -> zipfile.ZipInfo:
    """The one image inside. Raises: InputError."""
    try:
        with zipfile.ZipFile(archive) as opened:
            images = [info for info in opened.infolist() if info.filename.endswith(".img")]
    except FileNotFoundError:
        raise InputError(f"no {archive}: give --image the official zip, as it was downloaded") from None
    except OSError as error:
        raise InputError(f"cannot read {archive} ({error.strerror}): check the name") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive} is no whole zip ({error}): {_AGAIN}") from None
    if len(images) != 1 or not 0 < images[0].file_size <= MAX_IMAGE_BYTES:
        raise InputError(f"{archive} does not hold one image of at most 32 GiB: give the official PYNQ-Z2 zip")
    return images[0]


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raises: InputError."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise InputError(f"{folder} has {free >> 20} MiB free, {needed_bytes >> 20} are needed: give --work elsewhere")


def unpack(archive: Path, info: zipfile.ZipInfo, destination: Path, progress: Progress) -> None:
    """Write the image, leaving holes where it has zeros; never through a link that stands there.

    Raises: InputError if a byte is not what was packed.
    """
    try:
        destination.unlink(missing_ok=True)
        with zipfile.ZipFile(archive) as opened, opened.open(info) as packed, destination.open("xb") as file:
            size_bytes = 0
            while chunk := packed.read(CHUNK_BYTES):  # subtle: the CRC-32 is compared when the end is read
                _write_sparse(file, chunk, size_bytes)
                size_bytes += len(chunk)
                progress.show(size_bytes, info.file_size)
            file.truncate(size_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{archive} is damaged ({error}): {_AGAIN}") from None
    except OSError as error:
        raise InputError(f"cannot unpack to {destination} ({error.strerror}): give --work another folder") from None
    if size_bytes != info.file_size:
        raise InputError(f"{archive} is damaged ({size_bytes} of {info.file_size} bytes): {_AGAIN}")


def _write_sparse(file: BinaryIO, chunk: bytes, at: int) -> None:
    for start in range(0, len(chunk), HOLE_BYTES):
        piece = chunk[start : start + HOLE_BYTES]
        if piece.count(0) != len(piece):
            file.seek(at + start)
            file.write(piece)


def _sha256(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                progress.show(file.tell(), total)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): check the name") from None
    return digest.hexdigest()
