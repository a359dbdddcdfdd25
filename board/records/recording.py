"""What the line saw and said, on disk, so that a replay gives the same frames bit for bit.

    file     MAGIC, then records
    record   length and CRC-32 of the body (little-endian uint32), then the body
    body     length of header (uint32), frame header JSON, length of verdict (uint32), verdict JSON, raw pixels

A torn last record (power cut) is left out; a record whose CRC does not match ends the file with an error.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from protocol.errors import InputError, MessageError
from protocol.messages import (
    Frame,
    Location,
    Trigger,
    Verdict,
    decode_json,
    decode_verdict,
    encode_json,
    encode_verdict,
)
from protocol.wire import MAX_PIXEL_BYTES, MAX_SIDE_PX, view_bytes

MAGIC = b"BELTREC1"
RECORDING_SUFFIX = ".beltrec"
_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
MAX_HEADER_BYTES = 1 << 20
MAX_BODY_BYTES = MAX_PIXEL_BYTES + MAX_HEADER_BYTES


@dataclass(frozen=True)
class RecordHeader:
    trigger: Trigger
    shape: tuple[int, int]  # (height, width) RGB; (0, 0) when the frame was lost
    fault: str = ""
    readings: dict[str, float] = field(default_factory=dict)
    location: Location | None = None


@dataclass(frozen=True, eq=False)
class Record:
    frame: Frame
    verdict: Verdict


def encode_record(frame: Frame, verdict: Verdict) -> bytes:
    image = frame.image
    shape = (0, 0) if image is None else (image.shape[0], image.shape[1])
    header = RecordHeader(frame.trigger, shape, frame.fault, frame.readings, frame.location)
    heads = _prefixed(encode_json(header)) + _prefixed(encode_verdict(verdict))
    pixels = b"" if image is None else view_bytes(image)
    head = _HEAD.pack(len(heads) + len(pixels), zlib.crc32(pixels, zlib.crc32(heads)))
    return b"".join((head, heads, pixels))


def read_recording(path: Path) -> Iterator[Record]:
    """Raises: InputError if the file is no recording or a record in its middle is damaged."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError(f"{path} is not a recording of this version: record again")
        while (body := _read_body(file, path)) is not None:
            try:
                yield _decode_body(body)
            except MessageError as error:
                raise InputError(f"{path}: damaged record ({error}): delete the file or cut it there") from None


@dataclass(frozen=True)
class Entry:
    """Where a record stands, and what it says without its picture."""

    offset: int  # of the file
    verdict: Verdict
    has_picture: bool


def list_records(path: Path) -> Iterator[Entry]:
    """Reads no picture, and so compares no checksum. Raises: InputError as `read_recording`."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError(f"{path} is not a recording of this version: record again")
        size_bytes = path.stat().st_size
        while (length := _read_length(file, path)) is not None:
            offset = file.tell() - _HEAD.size
            if file.tell() + length > size_bytes:
                return
            try:
                header = decode_json(RecordHeader, _read_prefixed(file, length))
                yield Entry(offset, decode_verdict(_read_prefixed(file, length)), header.shape != (0, 0))
            except MessageError as error:
                raise InputError(f"{path}: damaged record ({error}): delete the file or cut it there") from None
            file.seek(offset + _HEAD.size + length)


def read_record(path: Path, offset: int) -> Record:
    """The one that `list_records` found there. Raises: InputError if it is damaged, or there no more."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            body = _read_body(file, path)
        if body is not None:
            return _decode_body(body)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): look at the capture again") from None
    except MessageError as error:
        raise InputError(f"{path}: damaged record ({error}): delete the file or cut it there") from None
    raise InputError(f"{path} has no record there: look at the capture again")


def _read_prefixed(file: BinaryIO, most: int) -> bytes:
    """Raises: MessageError."""
    prefix = file.read(_LENGTH.size)
    size = int(_LENGTH.unpack(prefix)[0]) if len(prefix) == _LENGTH.size else most + 1
    if size > min(most, MAX_HEADER_BYTES):
        raise MessageError("cut short")
    return file.read(size)


def _read_length(file: BinaryIO, path: Path) -> int | None:
    """Of the next record's body; None at the end. Raises: InputError."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length = int(_HEAD.unpack(head)[0])
    if length > MAX_BODY_BYTES:
        raise InputError(f"{path}: damaged record of {length} bytes: delete the file or cut it there")
    return length


def _read_body(file: BinaryIO, path: Path) -> bytes | None:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, crc = _HEAD.unpack(head)
    if length > MAX_BODY_BYTES:
        raise InputError(f"{path}: damaged record of {length} bytes: delete the file or cut it there")
    body = file.read(length)
    if len(body) < length:
        return None
    if zlib.crc32(body) != crc:
        raise InputError(f"{path}: damaged record (checksum): delete the file or cut it there")
    return body


def _decode_body(body: bytes) -> Record:
    header_json, at = _take(body, 0)
    verdict_json, at = _take(body, at)
    header = decode_json(RecordHeader, header_json)
    height, width = header.shape
    if not (0 <= height <= MAX_SIDE_PX and 0 <= width <= MAX_SIDE_PX and len(body) - at == height * width * 3):
        raise MessageError(f"picture of {header.shape} with {len(body) - at} bytes")
    pixels = np.frombuffer(body, np.uint8, offset=at).reshape(height, width, 3)
    frame = Frame(header.trigger, pixels if pixels.size else None, header.fault, header.readings, header.location)
    return Record(frame, decode_verdict(verdict_json))


def _prefixed(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _take(body: bytes, at: int) -> tuple[bytes, int]:
    start = at + _LENGTH.size
    if start > len(body):
        raise MessageError("cut short")
    end = start + int(_LENGTH.unpack_from(body, at)[0])
    if end > len(body):
        raise MessageError("cut short")
    return body[start:end], end
