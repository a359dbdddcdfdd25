"""Arrays from an .npz file that somebody else made: bounded before anything is unpacked."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, BinaryIO

from numpy.lib import format as npy
from numpy.typing import NDArray

MAX_BYTES = 512 << 20  # unpacked, of all arrays in a file; a few seconds' work
MAX_ENTRIES = 64
ENCRYPTED = 1  # bit 0 of an entry's flags
# What reading can end with: of zipfile, its decompressors and NumPy. RuntimeError is an encrypted entry's,
# NotImplementedError (one too) an unknown compression's.
_ERRORS = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SyntaxError),
    *(MemoryError, OverflowError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def load_arrays(file: BinaryIO, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Those of the names, and those of the optional ones that are there. Raises: ValueError, in one line."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            _require_bounded(list(entries.values()))
            wanted = [*names, *(name for name in optional if name in entries)]
            return {name: _load(archive, entries[name]) for name in wanted}
    except _ERRORS as error:
        reason = f"no array {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ValueError(reason.partition("\n")[0][:200]) from None


def _load(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as entry:
        array: NDArray[Any] = npy.read_array(entry, allow_pickle=False)
        return array


def _require_bounded(entries: Sequence[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_ENTRIES or sum(info.file_size for info in entries) > MAX_BYTES:
        raise ValueError(f"more than {MAX_ENTRIES} arrays, or than {MAX_BYTES >> 20} MiB")
    for info in entries:
        if info.flag_bits & ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename!r:.60} is encrypted, or packed as NumPy does not")
