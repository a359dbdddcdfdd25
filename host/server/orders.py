"""Bytes between the front and its workers. A worker has two connections, so that it can be heard while it computes:

    work       front → Batch, (request header, pixels)…        worker → Result, (reply header, map or nothing)…
    control    front → Welcome, Load + 3 files, Unload         worker → Hello, Beat, Loaded, Goodbye

Request and reply headers are those of `protocol/detection.py`, whole: the front forwards them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.errors import MessageError
from protocol.strict import require
from protocol.wire import Buffer, decode_header, encode_header

BEAT_EVERY_S = 0.5
LOST_AFTER_S = 2.0  # silence after which the other side is taken for dead
MAX_BATCH = 64
WORK, CONTROL = b"w", b"c"  # last byte of a connection's routing id; before it the worker's name
NAME_BYTES = 8


@dataclass(frozen=True)
class Hello:
    """On both connections: only then can the front reach the worker on both."""


@dataclass(frozen=True)
class Beat:
    """I am here. Both ways, on control."""


@dataclass(frozen=True)
class Load:
    """Followed by manifest.json, model.onnx and golden.npz."""

    digest: str


@dataclass(frozen=True)
class Unload:
    digest: str


@dataclass(frozen=True)
class Loaded:
    digest: str
    fault: str = ""  # why the model cannot be run


@dataclass(frozen=True)
class Goodbye:
    """The worker leaves in order; what it had in hand is for others."""


@dataclass(frozen=True)
class Batch:
    number: int
    digest: str
    count: int

    def __post_init__(self) -> None:
        require(1 <= self.count <= MAX_BATCH, "count", f"must be 1..{MAX_BATCH}")


@dataclass(frozen=True)
class Result:
    number: int
    infer_ms: float
    each_ms: tuple[float, ...] = ()  # of the worker's time, request by request


Order = Hello | Beat | Load | Unload | Loaded | Goodbye | Batch | Result
_KINDS: dict[int, type[Order]] = dict(enumerate((Hello, Beat, Load, Unload, Loaded, Goodbye, Batch, Result), start=32))
_CODES = {cls: code for code, cls in _KINDS.items()}


def encode(order: Order) -> bytes:
    return encode_header(_CODES[type(order)], order)


def decode(parts: Sequence[Buffer]) -> Order:
    """Raises: MessageError."""
    if not parts:
        raise MessageError("empty message")
    order = decode_header(_KINDS, parts[0])
    pairs = 2 * order.count if isinstance(order, Batch) else len(parts) - 1
    if isinstance(order, Load):
        pairs = 3
    if len(parts) != 1 + pairs or (isinstance(order, Result) and pairs % 2):
        raise MessageError(f"{type(order).__name__} of {len(parts)} parts")
    return order
