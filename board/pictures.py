"""Decode pictures to RGB, bounded, with OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError, MessageError
from protocol.wire import MAX_SIDE_PX, Buffer, Encoding, FrameMessage, view_pixels

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
MAX_PICTURE_BYTES = 64 << 20
# JPEG markers that start a frame and carry its size: SOF0..SOF15 without DHT, JPG and DAC (ITU T.81, table B.1)
_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that a length follows and that may stand before it: all but RST0..RST7, SOI, EOI and SOS
_SEGMENT_MARKERS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDB))


def read_picture(path: Path) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) RGB. Raises: InputError naming the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_PICTURE_BYTES:
        raise InputError(f"{path} has {len(data)} bytes, at most {MAX_PICTURE_BYTES} are read: use a smaller picture")
    size = picture_size(data)
    if size and max(size) > MAX_SIDE_PX:
        raise InputError(f"{path} is {size[1]} × {size[0]}, at most {MAX_SIDE_PX} are read: use a smaller picture")
    image = _decode(data) if size else None
    if image is None:
        raise InputError(f"{path} is not a picture that can be read: replace or remove it")
    return image


def decode_frame(message: FrameMessage) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) RGB of a raw or JPEG frame. Raises: MessageError if the pixels are not what the header says."""
    return decode_pixels(message.header.encoding, message.header.shape, message.pixels)


def decode_pixels(encoding: Encoding, shape: tuple[int, int], pixels: Buffer) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) RGB; a raw picture is a read-only view of `pixels`. Raises: MessageError."""
    if encoding == "raw":
        return view_pixels(shape, pixels)
    data = bytes(pixels)
    # subtle: the size is read from the bytes before decoding, so that a small file cannot ask for a huge picture
    if jpeg_size(data) != shape:
        raise MessageError(f"JPEG frame is {jpeg_size(data)}, its header says {shape}")
    image = _decode(data)
    if image is None or image.shape[:2] != shape:
        raise MessageError("JPEG frame does not decode")
    return image


def rgb(bgr: cv2.typing.MatLike) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) RGB, C-contiguous, from what OpenCV decodes to."""
    return np.ascontiguousarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def picture_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) from the header of a PNG, JPEG or BMP file, None for any other.

    subtle: read before decoding, so that a small file cannot ask for a huge picture.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if data[:2] == b"BM":
        at = 2 if data[14:18] == b"\x0c\0\0\0" else 4  # bytes of a side: 2 in OS/2's header, else 4 with their sign
        width, height = (int.from_bytes(data[i : i + at], "little", signed=at == 4) for i in (18, 18 + at))
        return abs(height), abs(width)  # a negative height: rows from the top
    return jpeg_size(data)


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(height, width) from a JPEG's frame header, None if there is none."""
    at = 2
    while at + 9 <= len(data) and data[:2] == b"\xff\xd8" and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _SIZE_MARKERS:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        # subtle: past a marker without a length the decoder would find another frame header than this loop
        if marker not in _SEGMENT_MARKERS or length < 2:
            return None
        at += 2 + length
    return None


def _decode(data: bytes) -> NDArray[np.uint8] | None:
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    if bgr is None or max(bgr.shape) > MAX_SIDE_PX:
        return None
    return rgb(bgr)
