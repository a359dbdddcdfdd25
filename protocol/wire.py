"""Bytes of the ZeroMQ messages: a small versioned header, then pixels.

    part 0   b"BS", version, kind, then JSON       part 1   pixels, for frames only

Headers and pixels are bounded before anything is parsed or allocated; a header that lies about its pixels is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MessageError
from protocol.messages import (
    MAX_PART_ID,
    Trigger,
    decode_json,
    encode_json,
    require_position_um,
    require_run,
    require_t_ns,
)
from protocol.strict import require

MAGIC = b"BS"
VERSION = 1
MAX_HEADER_BYTES = 4096
MAX_SIDE_PX = 4096
MAX_PIXEL_BYTES = MAX_SIDE_PX * MAX_SIDE_PX * 3

_T = TypeVar("_T")
Encoding = Literal["raw", "jpeg"]
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class FrameHeader:
    trigger: Trigger
    shape: tuple[int, int]  # (height, width); always RGB
    encoding: Encoding = "raw"
    readings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(all(1 <= side <= MAX_SIDE_PX for side in self.shape), "shape", f"sides must be 1..{MAX_SIDE_PX}")


@dataclass(frozen=True)
class FrameMessage:
    header: FrameHeader
    pixels: Buffer


@dataclass(frozen=True)
class EndOfRun:
    """The maker's run is over: parts `0 .. parts - 1` went by."""

    run: str
    parts: int

    def __post_init__(self) -> None:
        require_run(self.run)
        require(0 <= self.parts <= MAX_PART_ID, "parts", f"must be 0..{MAX_PART_ID}")


@dataclass(frozen=True)
class Motion:
    """How far the belt had moved at a time, by its encoder: said every few millimetres, and while it stands still."""

    run: str
    position_um: int  # falls where the belt backs up
    t_ns: int  # monotonic, on the clock named `clock`, as of triggers
    clock: str

    def __post_init__(self) -> None:
        require_run(self.run)
        require_position_um(self.position_um)
        require_t_ns(self.t_ns)


@dataclass(frozen=True)
class Passage:
    """A part broke the second light barrier, which stands where a part's window at the gate begins."""

    run: str
    t_ns: int  # monotonic, on the clock named `clock`, as of triggers
    clock: str

    def __post_init__(self) -> None:
        require_run(self.run)
        require_t_ns(self.t_ns)


Header = Trigger | FrameHeader | EndOfRun | Motion | Passage
Message = Trigger | FrameMessage | EndOfRun | Motion | Passage
# One numbering for all messages: protocol/detection.py has 16 and up
_KINDS: dict[int, type[Header]] = {1: Trigger, 2: FrameHeader, 3: EndOfRun, 4: Motion, 5: Passage}
_CODES = {cls: code for code, cls in _KINDS.items()}


def encode_message(message: Message) -> list[Buffer]:
    if isinstance(message, FrameMessage):
        return [encode_header(_CODES[FrameHeader], message.header), message.pixels]
    return [encode_header(_CODES[type(message)], message)]


def encode_raw_frame(trigger: Trigger, image: NDArray[np.uint8], readings: dict[str, float]) -> list[Buffer]:
    """Parts of a frame message that carries uint8 (h, w, 3) RGB as it is."""
    header = FrameHeader(trigger, (image.shape[0], image.shape[1]), "raw", readings)
    return encode_message(FrameMessage(header, view_bytes(image)))


def decode_message(parts: Sequence[Buffer]) -> Message:
    """Raises: MessageError for bytes that are no message of this protocol."""
    if not 1 <= len(parts) <= 2:
        raise MessageError(f"message of {len(parts)} parts")
    header = decode_header(_KINDS, parts[0])
    if not isinstance(header, FrameHeader):
        if len(parts) == 2:
            raise MessageError("pixels after a message that has none")
        return header
    if len(parts) != 2:
        raise MessageError("frame without pixels")
    return FrameMessage(header, parts[1])


def view_bytes(array: NDArray[np.uint8] | NDArray[np.int8]) -> memoryview:
    """Its values, row by row, without a copy if that is how they lie in memory."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def view_pixels(shape: tuple[int, int], pixels: Buffer) -> NDArray[np.uint8]:
    """Bytes as uint8 (h, w, 3) RGB, read-only, without a copy. Raises: MessageError."""
    if len(pixels) != shape[0] * shape[1] * 3:
        raise MessageError(f"frame of {shape} has {len(pixels)} bytes of pixels, not {shape[0] * shape[1] * 3}")
    image = np.frombuffer(pixels, np.uint8).reshape(*shape, 3)
    image.flags.writeable = False
    return image


def encode_header(code: int, header: Any) -> bytes:
    """`header` is a dataclass."""
    return MAGIC + bytes((VERSION, code)) + encode_json(header)


def decode_header(kinds: Mapping[int, type[_T]], data: Buffer) -> _T:
    """Raises: MessageError for what is no header of one of these kinds."""
    if len(data) > MAX_HEADER_BYTES:
        raise MessageError(f"header of {len(data)} bytes; at most {MAX_HEADER_BYTES} are read")
    data = bytes(data)
    if data[:2] != MAGIC or len(data) < 4:
        raise MessageError("not a Beltsight message")
    if data[2] != VERSION:
        raise MessageError(f"message version {data[2]}, this program speaks {VERSION}: update the older side")
    if data[3] not in kinds:
        raise MessageError(f"unknown kind of message {data[3]}")
    return decode_json(kinds[data[3]], data[4:])
