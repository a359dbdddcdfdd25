"""The first directory of a TIFF file (TIFF 6.0), which EXIF data is too: its tags, and whether all pixels are there."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocol.errors import MessageError

WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS = 256, 257, 258, 259, 262
STRIPS, ORIENTATION, SAMPLES, STRIP_BYTES, PLANES = 273, 274, 277, 279, 284
TILES, TILE_BYTES, EXTRA, SAMPLE_FORMAT, PROFILE, SUBFILE = 324, 325, 338, 339, 34675, 254
MOST_TAGS = 512
MOST_VALUES = 1 << 20
_SIZES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I"}  # field type -> struct's letter
_CHECKED = (1, 5, 8, 32946, 32773)  # none, LZW, deflate (twice), PackBits: a decoder tells when they are damaged
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = range(4)


@dataclass(frozen=True)
class Tiff:
    """Tags of the first directory -> their whole numbers."""

    tags: dict[int, tuple[int, ...]]
    length: int  # of the bytes that were there
    has_more: bool = False  # another picture that is not a smaller copy
    raw: dict[int, bytes] = field(default_factory=dict)

    def first(self, tag: int, default: int = 0) -> int:
        values = self.tags.get(tag, ())
        return values[0] if values else default

    @property
    def size_px(self) -> tuple[int, int]:
        return self.first(HEIGHT), self.first(WIDTH)

    @property
    def bits(self) -> int:
        return max(self.tags.get(BITS, (1,)))

    @property
    def has_alpha(self) -> bool:
        colours = 3 if self.first(COLOURS) == _RGB else 1
        return self.first(SAMPLES, 1) > colours

    @property
    def profile(self) -> bytes:
        return self.raw.get(PROFILE, b"")

    def fault(self) -> str:
        """Why it cannot be read right; empty when it can."""
        return next((fault for is_so, fault in self._faults() if is_so), "")

    def _faults(self) -> Iterator[tuple[bool, str]]:
        bits, colours = set(self.tags.get(BITS, (1,))), self.first(COLOURS, -1)
        as_usual = colours in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE)
        yield not all(self.size_px), "TIFF does not tell its size"
        yield self.has_more, "TIFF holds several pictures: save the one that is meant"
        floats = set(self.tags.get(SAMPLE_FORMAT, (1,))) != {1}
        yield floats, "TIFF has floating-point or signed pixels: save it with 8 or 16 bits"
        rare = len(bits) != 1 or not bits <= {1, 8, 16} or self.first(SAMPLES, 1) > 4
        yield rare, "TIFF has pixels of a rare kind: save it as grey or RGB with 8 or 16 bits"
        strange = not as_usual or (colours == _WHITE_IS_ZERO and bits == {16})
        yield strange, "TIFF has colours that decoders read differently: save it as grey or RGB"
        unchecked = self.first(COMPRESSION, 1) not in _CHECKED
        yield unchecked, "TIFF is compressed in a way that cannot be checked: save it with LZW or without compression"
        yield self.first(ORIENTATION, 1) != 1, "TIFF says that it is to be turned: save it upright"

    def is_whole(self) -> bool:
        """Whether all strips or tiles lie inside the file."""
        starts, sizes = self.tags.get(STRIPS) or self.tags.get(TILES), self.tags.get(STRIP_BYTES)
        sizes = sizes or self.tags.get(TILE_BYTES)
        if not starts or not sizes or len(starts) != len(sizes):
            return False
        return all(start + size <= self.length for start, size in zip(starts, sizes, strict=True))


def read_tiff(data: bytes) -> Tiff:
    """Raises: MessageError."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        raise MessageError("TIFF data has no head")
    try:
        at = struct.unpack_from(f"{order}I", data, 4)[0]
        tags, raw, following = _read_directory(data, order, at)
    except struct.error:
        raise MessageError("TIFF ends before its directory") from None
    return Tiff(tags, len(data), _is_picture(data, order, following), raw)


def _is_picture(data: bytes, order: str, at: int) -> bool:
    """Whether the next directory, if there is one, is a picture of its own: no smaller copy of the first."""
    try:
        return bool(at) and not _read_directory(data, order, at)[0].get(SUBFILE, (0,))[0] & 1
    except (struct.error, MessageError):
        return False


def _read_directory(data: bytes, order: str, at: int) -> tuple[dict[int, tuple[int, ...]], dict[int, bytes], int]:
    """Whole numbers by tag, bytes by tag, and where the next directory is (0: nowhere)."""
    count = struct.unpack_from(f"{order}H", data, at)[0]
    if count > MOST_TAGS:
        raise MessageError("TIFF has too many tags")
    tags: dict[int, tuple[int, ...]] = {}
    raw: dict[int, bytes] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", data, entry)
        letter = _SIZES.get(kind)
        if letter is None or values > MOST_VALUES:
            continue
        size = values * struct.calcsize(letter)
        place = entry + 8 if size <= 4 else struct.unpack_from(f"{order}I", data, entry + 8)[0]
        if letter == "B" and size > 4:
            raw[tag] = data[place : place + size]
        else:
            tags[tag] = struct.unpack_from(f"{order}{values}{letter}", data, place)
    return tags, raw, struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)[0]
