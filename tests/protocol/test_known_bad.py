"""Frames of known-bad parts travel in the package without loss; what does not fit the manifest is refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from protocol.errors import ManifestError
from protocol.known_bad import decode_known_bad, encode_known_bad

SHAPE = (6, 9)
RNG = np.random.default_rng(3)
GOODS = [RNG.integers(0, 256, (*SHAPE, 3), np.uint8) for _ in range(2)]
BAD = [RNG.integers(0, 256, (*SHAPE, 3), np.uint8) for _ in range(5)]
PACKED = encode_known_bad(GOODS, BAD)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_frame_comes_back_bit_for_bit(count: int) -> None:
    unpacked = list(decode_known_bad(encode_known_bad(GOODS, BAD[:count]), 2, count, SHAPE))
    assert len(unpacked) == count
    for frame, expected in zip(unpacked, BAD[:count], strict=True):
        assert np.array_equal(frame, expected)


@pytest.mark.parametrize(
    ("data", "said", "message"),
    [
        (PACKED, (2, 6, SHAPE), "fewer pictures"),
        (PACKED, (2, 4, SHAPE), "more pictures"),
        (PACKED, (1, 5, SHAPE), "more pictures"),
        (PACKED, (2, 5, (9, 9)), "fewer pictures"),
        (PACKED, (2, 5, (3, 9)), "more pictures"),
        (PACKED[:-1], (2, 5, SHAPE), "more pictures"),
        (PACKED[: len(PACKED) // 2], (2, 5, SHAPE), "fewer pictures"),
        (PACKED + b"\0", (2, 5, SHAPE), "more pictures"),
        (b"", (2, 5, SHAPE), "fewer pictures"),
        (b"no zlib", (2, 5, SHAPE), "is damaged"),
        (zlib.compress(bytes(50_000_000)), (2, 5, SHAPE), "more pictures"),
    ],
)
def test_other_bytes_than_the_manifest_says(data: bytes, said: tuple[int, int, tuple[int, int]], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        list(decode_known_bad(data, *said))


def test_a_damaged_byte_at_the_end_is_found_by_the_checksum() -> None:
    damaged = PACKED[:-1] + bytes([PACKED[-1] ^ 1])
    with pytest.raises(ManifestError, match="is damaged"):
        list(decode_known_bad(damaged, 2, 5, SHAPE))
