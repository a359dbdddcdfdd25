"""Decode pictures to RGB, bounded, with OpenCV: whole ones only, whatever its version makes of the others."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError, MessageError
from protocol.pictures.jpeg import decode_jpeg, jpeg_size
from protocol.wire import MAX_SIDE_PX, Buffer, Encoding, FrameMessage, view_pixels

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
MAX_PICTURE_BYTES = 64 << 20


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
    if not size:
        raise InputError(f"{path} is not a picture that can be read: replace or remove it")
    try:
        return _decode_whole(data)
    except MessageError as error:
        raise InputError(f"{path} cannot be used ({error}): replace or remove it") from None


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
    image = rgb(decode_jpeg(data))
    if image.shape[:2] != shape:
        raise MessageError(f"JPEG frame turns itself to {image.shape[:2]}: leave its orientation out")
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


def _decode_whole(data: bytes) -> NDArray[np.uint8]:
    """Of a JPEG, PNG or BMP file. Raises: MessageError."""
    if data[:2] == b"\xff\xd8":
        return rgb(decode_jpeg(data))
    if data[:2] == b"BM":
        _check_bmp(data)
    else:
        _check_png(data)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        bgr = None
    if bgr is None or max(bgr.shape) > MAX_SIDE_PX:
        raise MessageError("it does not decode")
    return rgb(bgr)


def _check_png(data: bytes) -> None:
    """Chunks with their checksums, up to the last (PNG, 5.3). Raises: MessageError."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise MessageError("PNG is damaged")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end + 4
    raise MessageError("PNG ends before its last chunk")


def _check_bmp(data: bytes) -> None:
    """Raises: MessageError if the file is shorter than it says."""
    if len(data) < int.from_bytes(data[2:6], "little"):
        raise MessageError("BMP ends before its last row")
