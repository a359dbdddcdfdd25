from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from board.overlay import isa
from board.overlay.errors import ProgramError

DOCUMENT = Path(isa.__file__).with_name("ARCHITECTURE.md")


def random_instruction(rng: np.random.Generator, kind: type[isa.Instruction]) -> isa.Instruction:
    values = {}
    for place in isa.layout(kind):
        choices = [int(item) for item in place.kind] if place.kind else None
        value = int(rng.choice(choices)) if choices else int(rng.integers(place.low, place.high, endpoint=True))
        values[place.name] = place.kind(value) if place.kind else value
    if kind.UNIT is not None:
        values["wait"] &= ~(1 << kind.UNIT)
        values["signal"] &= ~(1 << kind.UNIT)
    return kind(**values)


@pytest.mark.parametrize("kind", isa.INSTRUCTIONS)
def test_what_is_encoded_is_decoded(kind: type[isa.Instruction]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        instruction = random_instruction(rng, kind)
        assert isa.decode(isa.encode(instruction)) == instruction


@pytest.mark.parametrize("kind", isa.INSTRUCTIONS)
def test_fields_do_not_overlap_and_fit(kind: type[isa.Instruction]) -> None:
    end = isa.OPCODE_BITS
    for place in isa.layout(kind):
        assert place.start == end
        end += place.bits
    assert end <= 8 * isa.INSTRUCTION_BYTES


@pytest.mark.parametrize("kind", isa.INSTRUCTIONS)
def test_a_value_beside_its_field_is_refused(kind: type[isa.Instruction]) -> None:
    for place in isa.layout(kind):
        for value in (place.low - 1, place.high + 1):
            with pytest.raises(ProgramError, match=f"{kind.__name__}.{place.name} is {value}"):
                isa.encode(kind(**{place.name: value}))


def test_a_unit_does_not_wait_for_itself() -> None:
    with pytest.raises(ProgramError, match="own unit"):
        isa.encode(isa.StoreTile(wait=4))


@pytest.mark.parametrize("data", [bytes(32), b"\xff" * 32, b"\x06" + bytes(30), b"\x06" + bytes(30) + b"\x01"])
def test_what_encode_does_not_write_is_refused(data: bytes) -> None:
    with pytest.raises(ProgramError):
        isa.decode(data)


def test_a_program_names_its_wrong_instruction() -> None:
    data = isa.encode_program([isa.LoadTile(rows=3), isa.End()])
    assert isa.decode_program(data) == [isa.LoadTile(rows=3), isa.End()]
    with pytest.raises(ProgramError, match="instruction 2"):
        isa.decode_program(data + bytes(32))


def test_the_document_has_the_tables_of_the_code() -> None:
    assert isa.tables() in DOCUMENT.read_text(encoding="utf-8")


def test_every_field_is_explained() -> None:
    for kind in isa.INSTRUCTIONS:
        for item in fields(kind):
            assert item.metadata["text"], f"{kind.__name__}.{item.name}"
