"""What board and server say to each other survives the bytes; what is no such message is refused in our words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.detection import (
    MAX_TEXT,
    Answer,
    Ping,
    Pong,
    Refusal,
    Request,
    ToBoard,
    ToServer,
    decode_to_board,
    decode_to_server,
    encode,
    is_answer,
    refuse,
)
from protocol.errors import MessageError
from protocol.strict import FieldError
from protocol.wire import MAX_HEADER_BYTES

SHA256 = "0123456789abcdef" * 4
TO_SERVER: list[ToServer] = [
    Request(1, "orange-256", 99.5, (128, 64), "frame", "jpeg", SHA256),
    Request(2**53, "m" * 64, 0.001, (1, 4096)),
    Ping(7, "orange-256", SHA256),
]
TO_BOARD: list[ToBoard] = [
    Answer(1, SHA256, (2, 3), 4, 1.25),
    Refusal(0, "bad-message", "what to do"),
    Pong(3, False, "no worker has the model yet"),
]
MAP = np.arange(-3, 3, dtype=np.int8).reshape(2, 3)


@pytest.mark.parametrize("message", TO_SERVER)
def test_what_a_board_says_arrives(message: ToServer) -> None:
    pixels = [b"pixels"] if isinstance(message, Request) else []
    assert decode_to_server([encode(message), *pixels]) == message


@pytest.mark.parametrize("message", TO_BOARD)
def test_what_the_server_says_arrives(message: ToBoard) -> None:
    with_map = isinstance(message, Answer)
    header, anomaly = decode_to_board([encode(message), *([MAP.tobytes()] if with_map else [])])
    assert header == message
    assert is_answer(encode(message)) == with_map
    assert (anomaly is not None) == with_map
    if anomaly is not None:
        assert np.array_equal(anomaly, MAP)
        assert not anomaly.flags.writeable


@pytest.mark.parametrize(
    "fields",
    [
        {"id": 0},
        {"id": 2**53 + 1},
        {"model": ""},
        {"model": "m" * 65},
        {"model": "two\nlines"},
        {"deadline_ms": 0.0},
        {"deadline_ms": 60_001.0},
        {"shape": (0, 1)},
        {"shape": (4097, 1)},
        {"model_sha256": "0"},
        {"model_sha256": "X" * 64},
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(fields: dict[str, object]) -> None:
    good = {"id": 1, "model": "m", "deadline_ms": 1.0, "shape": (1, 1)}
    with pytest.raises(FieldError):
        Request(**(good | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [encode(TO_SERVER[0])],
        [encode(TO_SERVER[2]), b"pixels"],
        [encode(TO_SERVER[0]), b"pixels", b"more"],
        [encode(TO_BOARD[0]), b"pixels"],
    ],
)
def test_what_is_no_message_to_the_server_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(MessageError):
        decode_to_server(parts)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [encode(TO_BOARD[0])],
        [encode(TO_BOARD[0]), MAP.tobytes()[:-1]],
        [encode(TO_BOARD[1]), MAP.tobytes()],
        [encode(TO_SERVER[2])],
    ],
)
def test_what_is_no_message_to_a_board_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(MessageError):
        decode_to_board(parts)


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_garbage_is_a_message_error_and_nothing_else(parts: list[bytes]) -> None:
    for decode in (decode_to_server, decode_to_board):
        with pytest.raises(MessageError):
            decode(parts)


@given(st.sampled_from([encode(message) for message in (*TO_SERVER, *TO_BOARD)]), st.integers(0, 200), st.binary())
def test_a_damaged_header_is_a_message_or_a_message_error(header: bytes, at: int, damage: bytes) -> None:
    damaged = header[:at] + damage + header[at + len(damage) :]
    for decode in (decode_to_server, decode_to_board):
        for parts in ([damaged], [damaged, b"pixels"]):
            try:
                decode(parts)
            except MessageError:
                continue


def test_a_long_explanation_is_cut_to_what_a_header_may_be() -> None:
    refusal, _ = decode_to_board([refuse(1, "bad-message", "“" * 10_000)])
    assert isinstance(refusal, Refusal)
    assert len(refusal.text) == MAX_TEXT
    assert len(refuse(1, "bad-message", "\U0001f34a" * 10_000)) <= MAX_HEADER_BYTES * 2
