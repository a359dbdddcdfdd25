"""Fields of an instruction as slices of its 256 bits, from the one description in `isa`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from board.overlay import isa


def split_fields(word: Any, kind: type[isa.Instruction]) -> SimpleNamespace:
    """One slice a field. A field with `least` = 1 holds value - 1: the index of the last."""
    slices = {}
    for place in isa.layout(kind):
        part = word[place.start : place.start + place.bits]
        slices[place.name] = part.as_signed() if place.signed else part
    return SimpleNamespace(**slices)


def unit_opcodes(unit: isa.Unit) -> list[int]:
    return [kind.OPCODE for kind in isa.INSTRUCTIONS if unit == kind.UNIT]
