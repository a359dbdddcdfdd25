"""A JPEG is judged only if all of it is there, wherever it was cut and however the cut was covered up."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from protocol.errors import MessageError
from protocol.pictures.jpeg import decode_jpeg, jpeg_size

END = b"\xff\xd9"
QUALITY, OPTIMIZE, RESTART = cv2.IMWRITE_JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, cv2.IMWRITE_JPEG_RST_INTERVAL
PROGRESSIVE, SAMPLING = cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_SAMPLING_FACTOR


def draw(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    colours = (128 + 60 * np.sin(x / 9) + 20 * np.cos(y / 5), 100 + 50 * np.cos((x + y) / 7), 90 + y * 100 / height)
    noise = np.random.default_rng(1).normal(0, 3, (height, width, 3))
    return (np.stack(colours, -1) + noise).clip(0, 255).astype(np.uint8)


def encode(image: NDArray[np.uint8], *options: int) -> bytes:
    return cv2.imencode(".jpg", image, options)[1].tobytes()


IMAGE = draw(96, 112)
KINDS = {
    "plain": encode(IMAGE),
    "poor": encode(IMAGE, QUALITY, 30),
    "own tables": encode(IMAGE, OPTIMIZE, 1),
    "grey": encode(IMAGE[:, :, 0]),
    "full colour": encode(IMAGE, SAMPLING, 0x111111),
    "half colour": encode(IMAGE, SAMPLING, 0x211111),
    "odd sides": encode(IMAGE[:59, :101]),
    "restarts by row": encode(IMAGE, RESTART, 7),
    "restarts anywhere": encode(IMAGE[:59, :101], RESTART, 5),
    "one colour": encode(np.full_like(IMAGE, 128)),
}
RESTARTS = KINDS["restarts by row"]


def plain_decode(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def body_at(data: bytes) -> int:
    at = data.index(b"\xff\xda") + 2
    return at + int.from_bytes(data[at : at + 2], "big")


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_one_is_decoded_to_the_last_bit(kind: str) -> None:
    assert np.array_equal(decode_jpeg(KINDS[kind]), plain_decode(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("covered", [False, True])
def test_a_cut_one_is_refused_wherever_it_was_cut(kind: str, covered: bool) -> None:
    data = KINDS[kind]
    entropy = len(data) - 2 - body_at(data)
    for gone in (1, 2, 3, 5, 8, 40, entropy // 4, entropy // 2, entropy - 1, entropy):
        if gone <= entropy:
            with pytest.raises(MessageError, match=r"JPEG (ends before|has \d+ restart markers|does not decode)"):
                decode_jpeg(data[: -2 - gone] + END * covered)


def test_an_interval_that_lost_its_end_is_refused() -> None:
    """The next restart marker sets a decoder right again: only grey is left in the middle of the picture."""
    at = RESTARTS.index(b"\xff\xd2")
    for gone in (1, 2, 20, 60):
        with pytest.raises(MessageError, match="JPEG ends before its last block"):
            decode_jpeg(RESTARTS[: at - gone] + RESTARTS[at:])


def test_an_interval_that_is_lost_is_seen_from_the_markers() -> None:
    second, third = RESTARTS.index(b"\xff\xd1"), RESTARTS.index(b"\xff\xd2")
    with pytest.raises(MessageError, match="marker D2 within its picture: part of it is lost"):
        decode_jpeg(RESTARTS[:second] + RESTARTS[third:])
    with pytest.raises(MessageError, match="has 4 restart markers, not 5"):
        decode_jpeg(RESTARTS[: RESTARTS.index(b"\xff\xd4")] + END)


def test_a_packet_that_is_lost_in_the_middle_is_missing_at_the_end() -> None:
    data = KINDS["plain"]
    middle = (body_at(data) + len(data)) // 2
    for gone in (400, 900, 1500):
        with pytest.raises(MessageError, match=r"JPEG (ends before its last block|does not decode)"):
            decode_jpeg(data[:middle] + data[middle + gone :])


def test_what_follows_the_picture_is_nothing_of_it() -> None:
    """A camera's buffer is often longer than its picture."""
    data = KINDS["plain"]
    assert np.array_equal(decode_jpeg(data + bytes(99)), plain_decode(data))
    assert np.array_equal(decode_jpeg(data + data), plain_decode(data))
    with pytest.raises(MessageError, match="part of it is lost"):
        decode_jpeg(data[:-200] + data)  # the beginning of the next picture


def test_what_cannot_be_checked_is_refused_by_name() -> None:
    with pytest.raises(MessageError, match="is a progressive one, which cannot be checked: save it as a baseline JPEG"):
        decode_jpeg(encode(IMAGE, PROGRESSIVE, 1))
    data = bytearray(KINDS["plain"])
    data[data.index(b"\xff\xda") + 4] = 1
    with pytest.raises(MessageError, match="comes in several scans"):
        decode_jpeg(bytes(data))


def test_a_height_that_comes_later_is_refused() -> None:
    data = bytearray(KINDS["plain"])
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 2] = b"\0\0"
    with pytest.raises(MessageError, match="JPEG"):
        decode_jpeg(bytes(data))


@pytest.mark.parametrize("kind", ["plain", "restarts by row"])
def test_a_check_says_nothing_on_stderr(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """libjpeg complains there of what stands between its last block and an end marker."""
    decode_jpeg(KINDS[kind])
    assert capfd.readouterr().err == ""


def test_sizes_are_read_without_decoding() -> None:
    assert {jpeg_size(data) for data in KINDS.values()} == {(96, 112), (59, 101)}
