"""Protocol buffers read without any package: a message is a list of fields (number, type of coding, content)."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_FIELD = 1 << 29  # exclusive: what the format allows


class Message:
    """The fields of one message. Raises: ValueError or IndexError where they are cut off."""

    def __init__(self, content: memoryview) -> None:
        self._fields: dict[int, list[int | memoryview]] = {}
        for number, value in fields(content):
            self._fields.setdefault(number, []).append(value)

    def all(self, number: int) -> list[memoryview]:
        return [value for value in self._fields.get(number, []) if isinstance(value, memoryview)]

    def text(self, number: int) -> str:
        return "".join(bytes(part).decode() for part in self.all(number)[-1:])

    def integers(self, number: int) -> tuple[int, ...]:
        """Repeated integers, one by one or packed."""
        found: list[int] = []
        for value in self._fields.get(number, []):
            found += [value] if isinstance(value, int) else _unpack(value)
        return tuple(_signed(value) for value in found)


def fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Raises: ValueError or IndexError where they are cut off, or mean nothing."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        coding = key & 7
        if not 0 < key >> 3 < MAX_FIELD:
            raise ValueError(f"a field {key >> 3}")
        if coding == VARINT:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if coding not in (FIXED64, BYTES, FIXED32):
            raise ValueError(f"coding {coding}")
        size = {FIXED64: 8, FIXED32: 4}.get(coding, 0)
        if coding == BYTES:
            size, at = _varint(content, at)
        if at + size > len(content):
            raise ValueError("a field is cut off")
        yield key >> 3, content[at : at + size]
        at += size


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, low bits first, and where it ends."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number does not end")


def _unpack(content: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(content):
        value, at = _varint(content, at)
        values.append(value)
    return values


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
