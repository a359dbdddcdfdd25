"""`challenge.bin` of a model package: frames of known-bad parts, packed without loss.

The file is one zlib stream: `goods` frames of good parts, then for each known-bad frame its difference from the good
one that it was made of (frame i from good i modulo `goods`, modulo 256). Each row holds the differences from the pixel
to the left. A defect covers little of a part: so packed, a known-bad frame takes a tenth of its PNG.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from protocol.errors import ManifestError

CHALLENGE_BIN = "challenge.bin"
MAX_CHALLENGE_FRAMES = 64

Image = NDArray[np.uint8]


def encode_known_bad(goods: Sequence[Image], bad: Sequence[Image]) -> bytes:
    """`bad[i]`, uint8 (H, W, 3), was made of `goods[i % len(goods)]`."""
    packer = zlib.compressobj(9)
    changes = [frame - goods[number % len(goods)] for number, frame in enumerate(bad)]
    packed = [packer.compress(_to_left_differences(picture).tobytes()) for picture in (*goods, *changes)]
    return b"".join(packed) + packer.flush()


def decode_known_bad(data: bytes, goods: int, frames: int, frame_px: tuple[int, int]) -> Iterator[Image]:
    """The known-bad frames, uint8 (H, W, 3), one at a time: no more memory than the goods and one frame.

    Raises: ManifestError unless there are exactly these.
    """
    shape = (*frame_px, 3)
    pictures = _unpack(data, goods + frames, shape)
    originals = [next(pictures) for _ in range(goods)]
    for number, change in enumerate(pictures):
        yield originals[number % goods] + change


def _unpack(data: bytes, count: int, shape: tuple[int, int, int]) -> Iterator[Image]:
    unpacker = zlib.decompressobj()
    size = int(np.prod(shape))
    rest = data
    for _ in range(count):
        picture = _inflate(unpacker, rest, size)
        rest = unpacker.unconsumed_tail
        if len(picture) != size:
            raise ManifestError(f"{CHALLENGE_BIN} holds fewer pictures than the manifest says: export the model again")
        yield np.frombuffer(picture, np.uint8).reshape(shape).cumsum(axis=1, dtype=np.uint8)
    if _inflate(unpacker, rest, 1) or not unpacker.eof or unpacker.unused_data:
        raise ManifestError(f"{CHALLENGE_BIN} holds more pictures than the manifest says: export the model again")


def _inflate(unpacker: zlib._Decompress, data: bytes, most_bytes: int) -> bytes:
    try:
        return unpacker.decompress(data, most_bytes)
    except zlib.error as error:
        raise ManifestError(f"{CHALLENGE_BIN} is damaged ({error}): copy the model folder again") from None


def _to_left_differences(picture: Image) -> Image:
    differences: Image = picture.copy()
    differences[:, 1:] -= picture[:, :-1]
    return differences
