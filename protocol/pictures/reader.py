"""The one reader of picture files: whole pictures in RGB of 8 bits, upright, the same on every version of OpenCV.

Board, belt and host read files with it. What cannot be read right is refused by name; what a person might wonder
about (depth, transparency, a colour profile, a turned camera) is told with the picture.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError, MessageError
from protocol.pictures.files import TIFF_SIGNATURES, read_file, read_head, shown
from protocol.pictures.header import Header, png_chunks, read_header
from protocol.pictures.jpeg import decode_jpeg
from protocol.pictures.tiff import read_tiff
from protocol.wire import MAX_SIDE_PX

ALL_BITS = 16  # of a deep picture, where nobody says that fewer are in use
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras give
_AS_STORED = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
NO_PICTURE = "is not a picture that can be read: replace or remove it"

Image = NDArray[np.uint8]
Stored = NDArray[np.uint8 | np.uint16]


@dataclass(frozen=True, eq=False)
class Reading:
    image: Image  # (h, w, 3) RGB
    header: Header
    has_holes: bool  # transparent pixels, which are black here


def read_picture(path: Path, depth_bits: int = ALL_BITS) -> Image:
    """uint8 (h, w, 3) RGB. `depth_bits` are those in use of a 16-bit picture: the highest 8 of them are taken.

    Raises: InputError naming the file.
    """
    return read_whole(path, depth_bits).image


def read_whole(path: Path, depth_bits: int = ALL_BITS) -> Reading:
    """With what its file says of it. Raises: InputError naming the file."""
    data = read_file(path)
    header = _require_header(path, data)
    with _naming(path):
        image, has_holes = _decode(data, header, depth_bits)
    return Reading(image, header, has_holes)


def read_stored(path: Path) -> Stored:
    """(h, w) or (h, w, channels) as stored, BGR or BGRA, upright; JPEG in 8-bit BGR. Raises: InputError."""
    data = read_file(path)
    header = _require_header(path, data)
    with _naming(path):
        return _decode_stored(data, header)


def survey(path: Path) -> Header:
    """Of a picture that is not decoded yet. Raises: InputError naming the file."""
    head = read_head(path)
    if head.startswith(TIFF_SIGNATURES) or (head[:2] == b"\xff\xd8" and not _knows_size(head)):
        head = read_file(path)  # a TIFF's directory may stand at its end, a JPEG's frame behind much else
    return _require_header(path, head)


def bits_in_use(highest: int) -> int:
    """The fewest bits that a camera gives and that hold so high a value."""
    return next(bits for bits in DEPTHS if highest < 1 << bits)


def rgb(bgr: cv2.typing.MatLike) -> Image:
    """uint8 (h, w, 3) RGB, C-contiguous, from what OpenCV decodes to."""
    return np.ascontiguousarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def turn(image: Stored, orientation: int) -> Stored:
    """Upright, from EXIF's orientation 1..8 (CIPA DC-008, 4.6.5.1)."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    return np.ascontiguousarray(image[::rows, ::columns])


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What is wrong with the bytes is said of the file. Raises: InputError."""
    try:
        yield
    except MessageError as error:
        raise InputError(f"{shown(path)} cannot be used ({error}): replace or remove it") from None


def _knows_size(head: bytes) -> bool:
    try:
        return read_header(head) is not None
    except MessageError:
        return True


def _require_header(path: Path, data: bytes) -> Header:
    """Raises: InputError."""
    with _naming(path):
        header = read_header(data)
    if header is None:
        raise InputError(f"{shown(path)} {'is empty: remove it' if not data else NO_PICTURE}")
    height, width = header.size_px
    if not min(height, width) > 0 or max(height, width) > MAX_SIDE_PX:
        raise InputError(f"{shown(path)} is {width} × {height}, at most {MAX_SIDE_PX} are read: use a smaller picture")
    return header


def _decode(data: bytes, header: Header, depth_bits: int) -> tuple[Image, bool]:
    """Raises: MessageError."""
    stored = _decode_stored(data, header)
    if stored.dtype == np.uint16:
        stored = _shorten(stored, depth_bits)
    has_holes = _has_holes(stored)
    if stored.ndim == 3:
        stored = _over_black(stored) if has_holes else stored[..., :3]
    if stored.ndim == 2:
        return np.ascontiguousarray(cv2.cvtColor(stored, cv2.COLOR_GRAY2RGB), dtype=np.uint8), has_holes
    return rgb(stored), has_holes


def _decode_stored(data: bytes, header: Header) -> Stored:
    """Raises: MessageError."""
    if header.format == "JPEG":
        image: Stored = decode_jpeg(data)
        if image.shape[:2] != header.upright_px:
            raise MessageError(f"it is {image.shape[:2]}, its head says {header.upright_px}")
        return image  # OpenCV has turned it
    _require_whole(data, header)
    other = _decode_other(data, header)
    if other.shape[:2] != header.size_px:
        raise MessageError(f"it is {other.shape[:2]}, its head says {header.size_px}")
    if header.format == "TIFF" and _has_holes(other):
        # subtle: decoders differ in whether colours were multiplied by it
        raise MessageError("TIFF has transparent pixels: save it as PNG, or without transparency")
    return turn(other, header.orientation)


def _decode_other(data: bytes, header: Header) -> Stored:
    """Raises: MessageError."""
    # subtle: the fourth byte of a BMP's pixel is mostly zero, and no transparency
    flags = cv2.IMREAD_COLOR if header.format == "BMP" else _AS_STORED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None or max(image.shape) > MAX_SIDE_PX or image.dtype not in (np.uint8, np.uint16):
        raise MessageError("it does not decode")
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        raise MessageError(f"it has {image.shape[2]} channels")
    return cast(Stored, image)


def _has_holes(stored: Stored) -> bool:
    """Whether there is transparency, and any pixel that is not quite opaque."""
    is_one = stored.ndim == 3 and stored.shape[2] == 4
    return is_one and bool((stored[..., 3] != np.iinfo(stored.dtype).max).any())


def _shorten(stored: Stored, depth_bits: int) -> Image:
    """The highest 8 of the bits in use. Raises: MessageError if a pixel has more."""
    highest = int(stored[..., :3].max() if stored.ndim == 3 else stored.max())
    if highest >> depth_bits:
        raise MessageError(f"it has the value {highest}, more than {depth_bits} bits as the other pictures have")
    if stored.ndim == 3 and stored.shape[2] == 4:  # transparency has all bits, whatever the camera had
        colours = _shorten(stored[..., :3], depth_bits)
        return np.dstack([colours, (stored[..., 3] >> 8).astype(np.uint8)])
    return np.asarray(stored >> (depth_bits - 8), np.uint8)


def _over_black(stored: Stored) -> Image:
    """What lies under transparent pixels nobody has seen: it is left out, as if on black."""
    colours, alpha = stored[..., :3].astype(np.uint16), stored[..., 3:].astype(np.uint16)
    return np.asarray((colours * alpha + np.uint16(127)) // np.uint16(255), np.uint8)


def _require_whole(data: bytes, header: Header) -> None:
    """Raises: MessageError if a part of the file is missing; a decoder fills it with something and tells nobody."""
    if header.format == "PNG":
        _check_png(data)
    elif header.format == "BMP" and len(data) < _bmp_bytes(data, header):
        raise MessageError("BMP ends before its last row")
    elif header.format == "TIFF" and not read_tiff(data).is_whole():
        raise MessageError("TIFF ends before its last strip")
    elif header.format == "WebP" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise MessageError("WebP ends before its last byte")


def _check_png(data: bytes) -> None:
    """Chunks with their checksums, up to the last (PNG, 5.3). Raises: MessageError."""
    for kind, start, end in png_chunks(data):
        # the library itself refuses whole chunks that hold too few pixels
        if zlib.crc32(data[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise MessageError("PNG is damaged")
        if kind == b"IEND":
            return
    raise MessageError("PNG ends before its last chunk")


def _bmp_bytes(data: bytes, header: Header) -> int:
    """Of the whole file, from its head; of packed rows what the head says alone."""
    stated = int.from_bytes(data[2:6], "little")
    if data[14:18] == b"\x0c\0\0\0" or int.from_bytes(data[30:34], "little") not in (0, 3):
        return stated
    bits = int.from_bytes(data[28:30], "little")
    row = (header.size_px[1] * bits + 31) // 32 * 4
    return max(stated, int.from_bytes(data[10:14], "little") + row * header.size_px[0])
