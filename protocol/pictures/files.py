"""Picture files as bytes: bounded, never a pipe or a device, and names that are not UTF-8 shown, not stumbled over."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from protocol.errors import InputError

MAX_PICTURE_BYTES = 64 << 20  # 16-bit RGB of 4096 × 2600 pixels without compression
HEAD_BYTES = 1 << 16  # enough for the size of nearly all pictures; EXIF data may stand before it
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*")
_SIGNATURES = (PNG_SIGNATURE, b"\xff\xd8\xff", b"BM", *TIFF_SIGNATURES)


def shown(name: str | os.PathLike[str]) -> str:
    """A file's name as text that can be printed, sent and written anywhere: other bytes in hexadecimal."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def read_file(path: Path, most_bytes: int = MAX_PICTURE_BYTES) -> bytes:
    """All of a plain file. Raises: InputError naming it."""
    data = _read(path, most_bytes + 1)
    if len(data) > most_bytes:
        raise InputError(f"{shown(path)} has more than {most_bytes >> 20} MB: use a smaller picture")
    return data


def read_head(path: Path) -> bytes:
    """Its first bytes. Raises: InputError."""
    return _read(path, HEAD_BYTES)


def is_picture(head: bytes) -> bool:
    """By the first bytes, whatever the file is called. A format that is not among these is none."""
    return head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def is_named_picture(path: Path) -> bool:
    """By its name. AppleDouble files (`._x.png`) and hidden ones are none."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def _read(path: Path, count: int) -> bytes:
    try:
        # subtle: without O_NONBLOCK a named pipe would wait here for its writer
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InputError(f"{shown(path)} is no plain file: remove it")
            return file.read(count)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {shown(path)}: {reason}") from None
