"""Properties in a flattened device tree (Devicetree Specification 0.4, chapter 5), also in one packed inside another.

`image.ub` of the boot partition is such a tree: U-Boot's FIT, with the kernel and the board's own tree as properties.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAGIC = b"\xd0\x0d\xfe\xed"
_BEGIN_NODE, _END_NODE, _PROP, _NOP = 1, 2, 3, 4
_MAX_DEPTH = 4


def find_property(blob: bytes, name: str, depth: int = 0) -> Iterator[bytes]:
    """Values of every property of that name, nested trees included. What is no device tree yields nothing."""
    if depth > _MAX_DEPTH or not blob.startswith(MAGIC) or len(blob) < 40:
        return
    for found, value in _properties(blob):
        if found == name:
            yield value
        elif value.startswith(MAGIC):
            yield from find_property(value, name, depth + 1)


def _properties(blob: bytes) -> Iterator[tuple[str, bytes]]:
    structure, strings = struct.unpack_from(">II", blob, 8)
    at = structure
    while at + 4 <= len(blob):
        (token,) = struct.unpack_from(">I", blob, at)
        at += 4
        if token == _BEGIN_NODE:
            end = blob.find(b"\0", at)
            if end < 0:
                return
            at = _aligned(end + 1)
        elif token == _PROP and at + 8 <= len(blob):
            length, offset = struct.unpack_from(">II", blob, at)
            value = blob[at + 8 : at + 8 + length]
            end = blob.find(b"\0", strings + offset)
            yield blob[strings + offset : max(end, 0)].decode(errors="replace"), value
            at = _aligned(at + 8 + length)
        elif token not in (_END_NODE, _NOP):
            return


def _aligned(at: int) -> int:
    return (at + 3) & ~3
