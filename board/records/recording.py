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
MAX_BODY_BYTES = MAX_PIXEL_BYTES + (1 << 20)


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
