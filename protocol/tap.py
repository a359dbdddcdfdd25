"""Bytes of the tap: verdict, frame and anomaly map of each part for whoever looks on.

Lossy; the sequence number shows what was missed. Parts of a message:

    b"part" | JSON {seq, shape, map_shape, map_scale} | verdict JSON | RGB pixels | int8 map
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MessageError
from protocol.messages import Verdict, decode_json, decode_verdict, encode_json, encode_verdict
from protocol.strict import require
from protocol.wire import MAX_SIDE_PX, Buffer, view_bytes

KIND = b"part"


@dataclass(frozen=True, eq=False)
class TapPart:
    seq: int
    verdict: Verdict
    image: NDArray[np.uint8] | None  # (h, w, 3) RGB; None when the frame was lost
    anomaly: NDArray[np.int8] | None  # (h', w'); None when no engine spoke
    map_scale: float  # anomaly × map_scale is what scores and thresholds are measured in


@dataclass(frozen=True)
class _Header:
    seq: int
    shape: tuple[int, int]
    map_shape: tuple[int, int]
    map_scale: float

    def __post_init__(self) -> None:
        sides = (*self.shape, *self.map_shape)
        require(all(0 <= side <= MAX_SIDE_PX for side in sides), "shape", f"sides must be 0..{MAX_SIDE_PX}")


def encode_tap(part: TapPart) -> list[Buffer]:
    """Frame and map as they lie in memory, without a copy."""
    image = np.zeros((0, 0, 3), np.uint8) if part.image is None else part.image
    anomaly = np.zeros((0, 0), np.int8) if part.anomaly is None else part.anomaly
    shape, map_shape = (image.shape[0], image.shape[1]), (anomaly.shape[0], anomaly.shape[1])
    head = encode_json(_Header(part.seq, shape, map_shape, part.map_scale))
    return [KIND, head, encode_verdict(part.verdict), view_bytes(image), view_bytes(anomaly)]


def decode_tap(parts: Sequence[Buffer]) -> TapPart:
    """Raises: MessageError."""
    if len(parts) != 5 or parts[0] != KIND:
        raise MessageError("not a message of the tap")
    head = decode_json(_Header, bytes(parts[1]))
    pixels, values = np.frombuffer(parts[3], np.uint8), np.frombuffer(parts[4], np.int8)
    if pixels.size != head.shape[0] * head.shape[1] * 3 or values.size != head.map_shape[0] * head.map_shape[1]:
        raise MessageError("tap message whose pixels do not fit its header")
    image = pixels.reshape(*head.shape, 3) if pixels.size else None
    anomaly = values.reshape(head.map_shape) if values.size else None
    return TapPart(head.seq, decode_verdict(bytes(parts[2])), image, anomaly, head.map_scale)
