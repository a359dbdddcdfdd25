"""ZeroMQ messages: what is written is read, and bytes from outside are a message or a MessageError, nothing else."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MessageError
from protocol.messages import MAX_PART_ID, MAX_POSITION_UM, MAX_T_NS, Trigger
from protocol.wire import (
    MAX_HEADER_BYTES,
    MAX_SIDE_PX,
    EndOfRun,
    FrameHeader,
    FrameMessage,
    Message,
    Motion,
    Passage,
    decode_message,
    encode_message,
    encode_raw_frame,
    view_pixels,
)

TRIGGER = Trigger("run", 5, 123456789, "clock")
MOTION = Motion("run", 5_000, 123456789, "clock")
HEADER = FrameHeader(TRIGGER, (2, 3), "raw", {"die_c": 50.5})
IMAGE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)


def header_bytes(kind: int, content: object, version: int = 1) -> bytes:
    return b"BS" + bytes((version, kind)) + json.dumps(content).encode()


def frame_content(**changes: Any) -> dict[str, Any]:
    return {**asdict(HEADER), **changes}


@pytest.mark.parametrize(
    "message",
    [
        TRIGGER,
        replace(TRIGGER, position_um=-3),
        EndOfRun("run", 60),
        FrameMessage(HEADER, b"x" * 18),
        FrameMessage(replace(HEADER, trigger=replace(TRIGGER, position_um=MAX_POSITION_UM)), b"x" * 18),
        Motion("run", -12_500, 123456789, "clock"),
        Motion("run", MAX_POSITION_UM, MAX_T_NS, ""),
        Passage("run", 123456789, "clock"),
    ],
)
def test_message_and_back(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


def test_a_trigger_of_a_belt_without_an_encoder_is_read() -> None:
    content = {"run": "run", "part_id": 5, "t_ns": 123456789, "clock": "clock"}
    assert decode_message([header_bytes(1, content)]) == TRIGGER


def test_a_raw_frame_keeps_its_pixels() -> None:
    message = decode_message([bytes(part) for part in encode_raw_frame(TRIGGER, IMAGE[:, ::-1], {"die_c": 50.5})])
    assert isinstance(message, FrameMessage)
    assert message.header == HEADER
    assert np.array_equal(view_pixels(message.header.shape, message.pixels), IMAGE[:, ::-1])


def test_the_view_of_a_raw_frame_cannot_be_written() -> None:
    view = view_pixels(HEADER.shape, bytearray(18))
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1


@pytest.mark.parametrize("count", [0, 17, 19])
def test_a_header_that_lies_about_its_pixels_is_refused(count: int) -> None:
    with pytest.raises(MessageError, match=f"has {count} bytes of pixels, not 18"):
        view_pixels(HEADER.shape, b"x" * count)


def test_a_version_of_tomorrow_says_what_to_do() -> None:
    with pytest.raises(MessageError, match="message version 2, this program speaks 1: update the older side"):
        decode_message([header_bytes(1, asdict(TRIGGER), version=2)])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "message of 0 parts"),
        ([b"", b"", b""], "message of 3 parts"),
        ([b""], "not a Beltsight message"),
        ([b"BS\1"], "not a Beltsight message"),
        ([b"XX\1\1{}"], "not a Beltsight message"),
        ([b"BS\1\0{}"], "unknown kind of message 0"),
        ([b"BS\1\6{}"], "unknown kind of message 6"),
        ([header_bytes(1, {})], "Trigger: run: missing"),
        ([header_bytes(1, asdict(TRIGGER)), b""], "pixels after a message that has none"),
        ([header_bytes(2, frame_content())], "frame without pixels"),
        ([header_bytes(2, frame_content(shape=[0, 3])), b""], "shape: sides must be 1..4096"),
        ([header_bytes(2, frame_content(shape=[2, MAX_SIDE_PX + 1])), b""], "shape: sides must be 1..4096"),
        ([header_bytes(2, frame_content(shape=[2, -3])), b""], "shape: sides must be 1..4096"),
        ([header_bytes(2, frame_content(encoding="png")), b""], "encoding: must be one of 'raw', 'jpeg'"),
        ([header_bytes(2, frame_content(readings={"t": "hot"})), b""], "readings.t: must be a number"),
        ([header_bytes(3, {"run": "run", "parts": 1.5})], "parts: must be a whole number"),
        ([header_bytes(3, {"run": "", "parts": 1})], "run: must be 1..64 printable characters"),
        ([header_bytes(3, {"run": "run", "parts": -1})], "parts: must be 0.."),
        ([header_bytes(3, {"run": "run", "parts": MAX_PART_ID + 2})], "parts: must be 0.."),
        ([header_bytes(1, {**asdict(TRIGGER), "position_um": 0.5})], "position_um: must be a whole number"),
        ([header_bytes(1, {**asdict(TRIGGER), "position_um": -MAX_POSITION_UM - 1})], "position_um: must be -"),
        ([header_bytes(4, asdict(MOTION) | {"position_um": MAX_POSITION_UM + 1})], "position_um: must be -"),
        ([header_bytes(4, asdict(MOTION) | {"position_um": None})], "position_um: must be a whole number"),
        ([header_bytes(4, asdict(MOTION) | {"t_ns": -1})], "t_ns: must be 0.."),
        ([header_bytes(4, asdict(MOTION) | {"run": ""})], "run: must be 1..64"),
        ([header_bytes(4, asdict(MOTION)), b"pixels"], "pixels after a message that has none"),
        ([header_bytes(5, {"run": "run", "clock": ""})], "Passage: t_ns: missing"),
        ([header_bytes(5, {"run": "run", "t_ns": MAX_T_NS + 1, "clock": ""})], "t_ns: must be 0.."),
        ([header_bytes(5, {"run": "a\nb", "t_ns": 1, "clock": ""})], "run: must be 1..64"),
        ([b"BS\1\1" + b" " * MAX_HEADER_BYTES], "header of 4100 bytes"),
    ],
)
def test_what_is_no_message_is_refused(parts: list[bytes], message: str) -> None:
    with pytest.raises(MessageError) as refused:
        decode_message(parts)
    assert message in str(refused.value)


BODIES = st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda tail: b"BS\1" + tail))


@given(st.lists(BODIES, max_size=3))
def test_any_bytes_are_refused_as_no_message(parts: list[bytes]) -> None:
    with pytest.raises(MessageError):
        decode_message(parts)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70) | st.lists(st.integers())


KEYS = st.sampled_from(["run", "part_id", "t_ns", "clock", "parts", "position_um"])


@given(st.integers(1, 5), st.dictionaries(KEYS, VALUES))
def test_any_header_is_a_message_or_refused(kind: int, content: dict[str, object]) -> None:
    try:
        message = decode_message([header_bytes(kind, content)])
    except MessageError:
        return
    assert decode_message(encode_message(message)) == message


@given(st.integers(0, 200), st.binary(min_size=1, max_size=4), st.integers(0, 40))
def test_a_damaged_frame_is_a_frame_or_refused(at: int, patch: bytes, pixels: int) -> None:
    whole = bytes(encode_message(FrameMessage(HEADER, b""))[0])
    with contextlib.suppress(MessageError):
        message = decode_message([whole[:at] + patch + whole[at + len(patch) :], b"x" * pixels])
        assert isinstance(message, FrameMessage)
        assert view_pixels(message.header.shape, message.pixels).shape == (*message.header.shape, 3)


def test_a_frame_as_large_as_allowed_is_taken() -> None:
    header = replace(HEADER, shape=(MAX_SIDE_PX, 1))
    assert view_pixels(header.shape, bytes(MAX_SIDE_PX * 3)).shape == (MAX_SIDE_PX, 1, 3)
