"""COCO's run lengths: where a picture is defective. Counts of good and defective pixels in turn, down its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError

BITS, MORE, SIGN = 5, 0x20, 0x10  # of a character of packed counts, less 48: its share, "goes on", "is negative"


@dataclass(frozen=True)
class Runs:
    size_px: tuple[int, int]  # (height, width)
    counts: tuple[int, ...]


def read_runs(segmentation: dict[str, Any]) -> Runs:
    """Of an annotation's `segmentation`. Raises: ValueError if they are not as long as their picture."""
    height, width = (int(side) for side in segmentation["size"])
    counts = segmentation["counts"]
    counts = _unpack(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError("run lengths of a mask do not add up to its size")
    return Runs((height, width), tuple(counts))


def decode_runs(runs: Runs, size_px: tuple[int, int]) -> NDArray[np.bool_]:
    """(h, w), True where defective. Raises: InputError for a picture of another size."""
    if runs.size_px != size_px:
        (height, width), (wanted_height, wanted_width) = runs.size_px, size_px
        raise InputError(
            f"run lengths of a mask are of a picture of {width}x{height} pixels, theirs has "
            f"{wanted_width}x{wanted_height}: export them again"
        )
    defective = np.arange(len(runs.counts)) % 2 == 1
    return np.asarray(np.repeat(defective, runs.counts).reshape(size_px[::-1]).T, np.bool_)


def _unpack(text: str) -> list[int]:
    """COCO's own packing: from the third count on the difference to the last but one."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & (MORE - 1)) << shift
        shift += BITS
        if bits & MORE:
            continue
        value -= bool(bits & SIGN) << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    return counts
