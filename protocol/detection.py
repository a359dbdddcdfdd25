"""Bytes between a board and the detection server, over DEALER/ROUTER. The header is that of `protocol/wire.py`.

    board → server     Request, pixels | Ping
    server → board     Answer, int8 map | Refusal | Pong

A board numbers its requests; the reply carries the number, so that a late one is never taken for the present one.
No clock crosses the network: a request says how much time it has left, and whoever receives it starts from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MessageError
from protocol.strict import require
from protocol.wire import MAX_SIDE_PX, Buffer, Encoding, decode_header, encode_header

MAX_ID = 2**53  # beyond it a JSON reader that keeps numbers as doubles would round
MAX_DEADLINE_MS = 60_000.0
MAX_NAME = 64
MAX_TEXT = 500

RefusalCode = Literal[
    "bad-message",  # no message of this protocol, or of another version
    "duplicate",  # a request of the same number is still being worked on
    "unknown-model",
    "other-model",  # the server has the model of that name, but not that file
    "broken-model",  # the model does not load, or does not give its golden maps
    "wrong-size",  # pixels that are not what the header says or what the model takes
    "undecodable",  # a JPEG that does not decode
    "busy",  # the queue is full: ask again later, or ask another
    "late",  # the deadline passed before the work was done
    "worker-lost",  # the work was begun twice, and twice the worker died
]

Content = Literal["image", "frame"]


@dataclass(frozen=True)
class Request:
    id: int  # counts up within a connection, from 1
    model: str
    deadline_ms: float  # time left when it was sent
    shape: tuple[int, int]  # (height, width); always RGB
    content: Content = "image"  # the network's image, or a frame that the server preprocesses
    encoding: Encoding = "raw"
    model_sha256: str = ""  # of the board's own model.onnx; empty: any of that name will do

    def __post_init__(self) -> None:
        require(1 <= self.id <= MAX_ID, "id", f"must be 1..{MAX_ID}")
        _require_name(self.model, self.model_sha256)
        require(0 < self.deadline_ms <= MAX_DEADLINE_MS, "deadline_ms", f"must be above 0, at most {MAX_DEADLINE_MS}")
        require(all(1 <= side <= MAX_SIDE_PX for side in self.shape), "shape", f"sides must be 1..{MAX_SIDE_PX}")


@dataclass(frozen=True)
class Ping:
    """Are you there, and is this model ready? The server loads it if it is not."""

    id: int
    model: str
    model_sha256: str = ""

    def __post_init__(self) -> None:
        require(1 <= self.id <= MAX_ID, "id", f"must be 1..{MAX_ID}")
        _require_name(self.model, self.model_sha256)


@dataclass(frozen=True)
class Answer:
    id: int
    model_sha256: str  # of the model.onnx that gave the map
    shape: tuple[int, int]  # (height, width) of the map
    batch: int  # pictures that were judged together with this one
    infer_ms: float  # of the whole batch, preprocessing included

    def __post_init__(self) -> None:
        require(all(1 <= side <= MAX_SIDE_PX for side in self.shape), "shape", f"sides must be 1..{MAX_SIDE_PX}")


@dataclass(frozen=True)
class Refusal:
    id: int  # 0 where the request was too broken to have one
    code: RefusalCode
    text: str  # what is wrong and what to do


@dataclass(frozen=True)
class Pong:
    id: int
    ready: bool  # a worker has the model loaded and tested
    text: str = ""  # why not


ToServer = Request | Ping
ToBoard = Answer | Refusal | Pong
_TO_SERVER: dict[int, type[Request] | type[Ping]] = {16: Request, 17: Ping}
_TO_BOARD: dict[int, type[Answer] | type[Refusal] | type[Pong]] = {18: Answer, 19: Refusal, 20: Pong}
_CODES = {cls: code for code, cls in (*_TO_SERVER.items(), *_TO_BOARD.items())}


def encode(header: ToServer | ToBoard) -> bytes:
    """The header's part; a Request's pixels or an Answer's map follow as the next part."""
    return encode_header(_CODES[type(header)], header)


def refuse(number: int, code: RefusalCode, text: str) -> bytes:
    """A Refusal, cut to a length that every header may have."""
    return encode(Refusal(number, code, text[:MAX_TEXT]))


def decode_to_server(parts: Sequence[Buffer]) -> ToServer:
    """The header; `parts[1]` are a Request's pixels, not looked at. Raises: MessageError."""
    _require_parts(parts)
    header = decode_header(_TO_SERVER, parts[0])
    if (len(parts) == 2) != isinstance(header, Request):
        raise MessageError("a request without pixels, or pixels without a request")
    return header


def decode_to_board(parts: Sequence[Buffer]) -> tuple[ToBoard, NDArray[np.int8] | None]:
    """The header, and with an Answer its map int8 (h', w'), read-only. Raises: MessageError."""
    _require_parts(parts)
    header = decode_header(_TO_BOARD, parts[0])
    if not isinstance(header, Answer):
        if len(parts) == 2:
            raise MessageError("a map after a message that has none")
        return header, None
    if len(parts) != 2 or len(parts[1]) != header.shape[0] * header.shape[1]:
        raise MessageError("an answer whose map does not fit its header")
    anomaly = np.frombuffer(parts[1], np.int8).reshape(header.shape)
    anomaly.flags.writeable = False
    return header, anomaly


def is_answer(header: bytes) -> bool:
    """Whether an encoded reply carries a map, without parsing it."""
    return header[3] == _CODES[Answer]


def _require_parts(parts: Sequence[Buffer]) -> None:
    if not 1 <= len(parts) <= 2:
        raise MessageError(f"message of {len(parts)} parts")


def _require_name(model: str, sha256: str) -> None:
    require(0 < len(model) <= MAX_NAME and model.isprintable(), "model", f"must be 1..{MAX_NAME} printable characters")
    plain = sha256 == "" or (len(sha256) == 64 and set(sha256) <= set("0123456789abcdef"))
    require(plain, "model_sha256", "must be 64 hexadecimal digits, or empty")
