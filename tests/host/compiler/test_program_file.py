"""The program's file: what is written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.overlay import isa
from board.overlay.errors import ProgramError
from board.overlay.program import (
    DIGEST_BYTES,
    HEADER,
    MAX_INSTRUCTIONS,
    Program,
    decode_file,
    encode_file,
    pack_image,
    unpack_output,
)
from host.compiler.compilation import compile_net
from tests.host.random_nets import random_net

PROGRAM = compile_net(random_net(1, (16, 16))).program
FILE = encode_file(PROGRAM)


def sealed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def is_read_or_refused(data: bytes) -> None:
    try:
        program = decode_file(data)
    except ProgramError:
        return
    assert encode_file(program) == data
    assert len(program.instructions()) == program.instruction_count


def test_what_is_written_is_read() -> None:
    assert decode_file(FILE) == PROGRAM


def test_a_program_that_would_take_long_to_read_is_refused() -> None:
    """A file of 8 MiB could hold 262,144 instructions, which took half a minute here and minutes on the board."""
    count = MAX_INSTRUCTIONS + 1
    sizes = (count, len(many := bytes(count * isa.INSTRUCTION_BYTES)), 0, 16, 16, 1, 16, 16)
    began_s = time.process_time()
    with pytest.raises(ProgramError, match="sizes are impossible"):
        decode_file(sealed(HEADER.pack(b"BELTPROG", 1, isa.version(), *sizes) + many))
    assert time.process_time() - began_s < 1.0


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    is_read_or_refused(data)
    is_read_or_refused(sealed(FILE[:8] + data))


@given(st.integers(0, len(FILE) - DIGEST_BYTES - 1), st.binary(min_size=1, max_size=40))
def test_changed_bytes(start: int, change: bytes) -> None:
    changed = FILE[:start] + change + FILE[start + len(change) :]
    if changed != FILE:
        with pytest.raises(ProgramError):
            decode_file(changed)
    is_read_or_refused(sealed(changed[:-DIGEST_BYTES]))


@given(st.lists(st.one_of(st.integers(0, 2000), st.integers(0, 2**32 - 1)), min_size=10, max_size=10))
def test_any_header(numbers: list[int]) -> None:
    is_read_or_refused(sealed(HEADER.pack(b"BELTPROG", 1, isa.version(), *numbers[2:]) + PROGRAM.model))
    is_read_or_refused(sealed(HEADER.pack(b"BELTPROG", *numbers) + PROGRAM.model))


@given(st.integers(0, len(FILE)))
def test_a_file_cut_off(size: int) -> None:
    if size < len(FILE):
        with pytest.raises(ProgramError):
            decode_file(FILE[:size])


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (replace(PROGRAM, instruction_count=0), "sizes are impossible"),
        (replace(PROGRAM, instruction_count=PROGRAM.instruction_count - 1), "does not end"),
        (replace(PROGRAM, scratch_bytes=3), "sizes are impossible"),
        (replace(PROGRAM, input_px=(0, 5)), "sizes are impossible"),
        (replace(PROGRAM, output_shape=(1, 5, 5000)), "sizes are impossible"),
        (replace(PROGRAM, model=bytes(PROGRAM.model)[:-1]), "sizes are impossible"),
        (replace(PROGRAM, model=bytes(32) + PROGRAM.model[32:]), "instruction 0"),
    ],
)
def test_impossible_programs_are_not_written(program: Program, reason: str) -> None:
    with pytest.raises(ProgramError, match=reason):
        encode_file(program)


def test_another_overlay_is_refused() -> None:
    fields = list(HEADER.unpack_from(FILE))
    fields[2] ^= 1
    with pytest.raises(ProgramError, match="program for overlay"):
        decode_file(sealed(HEADER.pack(*fields) + PROGRAM.model))


def test_images_and_outputs_as_they_lie_in_memory() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert pack_image(image) == bytes([*range(9), *[0] * 7, *range(9, 18), *[0] * 7])
    program = replace(PROGRAM, output_shape=(17, 1, 2))
    output = unpack_output(program, bytes(range(64)))
    assert output[:, 0, 0].tolist() == list(range(17))
    assert output[:, 0, 1].tolist() == list(range(32, 49))
