"""What is written to: a card or an image file. A write counts once it is flushed, and is believed when read back."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from host.flash.progress import Progress
from protocol.errors import InputError

CHUNK_BYTES = 4 << 20
FLUSH_EVERY_BYTES = 64 << 20  # so that progress is the card's, not the page cache's


class Medium(Protocol):
    def write(self, offset: int, data: bytes) -> None:
        """Raises: InputError."""

    def flush(self) -> None:
        """All writes before it are on the medium before any after it. Raises: InputError."""

    def read(self, offset: int, size: int) -> bytes:
        """From the medium itself, not from a cache. Raises: InputError."""


class Disk:
    def __init__(self, path: Path, descriptor: int) -> None:
        """`descriptor` as `open_target` gives it; it stays the caller's."""
        self._path, self._descriptor = path, descriptor

    def write(self, offset: int, data: bytes) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)
        except OSError as error:
            raise self._failed("written", error) from None

    def flush(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failed("written", error) from None

    def read(self, offset: int, size: int) -> bytes:
        try:
            return self._read_direct(offset, size) or self._read_uncached(offset, size)
        except OSError as error:
            raise self._failed("read", error) from None

    def _read_direct(self, offset: int, size: int) -> bytes:
        """Past the page cache; empty where this place or file system does not allow it."""
        with mmap.mmap(-1, size) as aligned:
            try:
                direct = os.open(self._path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
            except OSError:
                return b""
            try:
                return aligned[:size] if os.preadv(direct, [aligned], offset) == size else b""
            except OSError:
                return b""
            finally:
                os.close(direct)

    def _read_uncached(self, offset: int, size: int) -> bytes:
        os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_DONTNEED)
        return os.pread(self._descriptor, size, offset)

    def _failed(self, what: str, error: OSError) -> InputError:
        return InputError(f"{self._path} cannot be {what} ({error.strerror}): try another card or reader")


def chunks(ranges: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """(offset, size) in pieces, of ranges [start, end) in bytes."""
    for start, end in ranges:
        for offset in range(start, end, CHUNK_BYTES):
            yield offset, min(CHUNK_BYTES, end - offset)


def copy(source: int, medium: Medium, ranges: list[tuple[int, int]], writing: Progress, comparing: Progress) -> None:
    """Copy byte ranges [start, end) of the open file `source`, and compare them on the medium.

    Raises: InputError where the medium does not give back what was written.
    """
    total = sum(end - start for start, end in ranges)
    done = unflushed = 0
    sums: list[bytes] = []
    for offset, size in chunks(ranges):
        data = os.pread(source, size, offset)
        medium.write(offset, data)
        sums.append(hashlib.sha256(data).digest())
        done, unflushed = done + size, unflushed + size
        if unflushed >= FLUSH_EVERY_BYTES:
            medium.flush()
            unflushed = 0
        writing.show(done, total)
    medium.flush()
    done = 0
    for (offset, size), expected in zip(chunks(ranges), sums, strict=True):
        if hashlib.sha256(medium.read(offset, size)).digest() != expected:
            raise InputError(f"the card gives back other bytes at {offset} than were written: take another card")
        done += size
        comparing.show(done, total)


def put(medium: Medium, offset: int, data: bytes) -> None:
    """Write, flush, read back. Raises: InputError."""
    medium.write(offset, data)
    medium.flush()
    if medium.read(offset, len(data)) != data:
        raise InputError(f"the card gives back other bytes at {offset} than were written: take another card")
