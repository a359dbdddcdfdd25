"""The file that holds a program: what the driver copies to DDR, and how large the other segments must be.

    header   magic, format, version of the overlay, sizes (little endian)
    model    segment 0: instructions, then weights
    SHA-256  of all that stands before it

An image lies in segment 2 as rows of RGB bytes, each padded to 8 bytes; the output in segment 3 as rows of pixels of
words of 16 channels. A model's output has one channel, the anomaly map; what the word's other bytes hold is no concern.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from board.overlay.errors import ProgramError

PROGRAM_BIN = "program.bin"  # its name in a model package
MAGIC = b"BELTPROG"
FORMAT = 1
MAX_MODEL_BYTES = 64 << 20
MAX_INSTRUCTIONS = 1 << 14  # a model of 1024 x 1024 has some 12,000; each takes the board's time to decode
MAX_SCRATCH_BYTES = 256 << 20
MAX_SIDE_PX = 1024  # what the fields of the instructions can say
MAX_CHANNELS = 2032
# magic; format, version, instructions, bytes of model and scratch, image height and width, output (channels, h, w)
HEADER = struct.Struct("<8s10I")
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Program:
    model: bytes  # segment 0; the instructions are its beginning
    instruction_count: int
    scratch_bytes: int
    input_px: tuple[int, int]  # (height, width)
    output_shape: tuple[int, int, int]  # (channels, height, width)

    def instructions(self) -> list[isa.Instruction]:
        """Raises: ProgramError naming an instruction that means nothing."""
        return isa.decode_program(self.model[: self.instruction_count * isa.INSTRUCTION_BYTES])

    def segment_bytes(self) -> tuple[int, int, int, int]:
        """Sizes of the segments, in their order, multiples of 8."""
        image = self.input_px[0] * row_bytes(self.input_px[1])
        channels, height, width = self.output_shape
        return len(self.model), self.scratch_bytes, image, height * width * _words(channels) * isa.WORD_BYTES


def _words(channels: int) -> int:
    return -(-channels // isa.WORD_BYTES)


def row_bytes(width_px: int) -> int:
    """Of an image's row in segment 2."""
    return -(-3 * width_px // isa.BEAT_BYTES) * isa.BEAT_BYTES


def pack_image(image: NDArray[np.uint8]) -> bytes:
    """Segment 2 from an image uint8 (h, w, 3)."""
    height, width, _ = image.shape
    rows = np.zeros((height, row_bytes(width)), np.uint8)
    rows[:, : 3 * width] = image.reshape(height, -1)
    return rows.tobytes()


def unpack_output(program: Program, content: bytes) -> NDArray[np.int8]:
    """Output int8 (channels, h', w'), a copy, from segment 3."""
    channels, height, width = program.output_shape
    pixels = np.frombuffer(content, np.int8).reshape(height, width, -1)
    output: NDArray[np.int8] = pixels[:, :, :channels].transpose(2, 0, 1).copy()
    return output


def encode_file(program: Program) -> bytes:
    """Raises: ProgramError if `decode_file` would refuse it."""
    _check(program)
    sizes = (program.instruction_count, len(program.model), program.scratch_bytes)
    shapes = (*program.input_px, *program.output_shape)
    content = HEADER.pack(MAGIC, FORMAT, isa.version(), *sizes, *shapes) + program.model
    return content + hashlib.sha256(content).digest()


def decode_file(data: bytes) -> Program:
    """Raises: ProgramError for anything that is not a program for this version of the overlay."""
    if len(data) < HEADER.size + DIGEST_BYTES or not data.startswith(MAGIC):
        raise ProgramError("this is no overlay program: export the model again")
    _magic, form, version, count, model_bytes, scratch_bytes, *shapes = HEADER.unpack_from(data)
    if form != FORMAT:
        raise ProgramError(f"program format {form}, this program reads {FORMAT}: export the model again")
    if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
        raise ProgramError("the overlay program is damaged: export the model again")
    if version != isa.version():
        raise ProgramError(f"program for overlay {version:08x}, this is {isa.version():08x}: export the model again")
    if model_bytes != len(data) - HEADER.size - DIGEST_BYTES:
        raise ProgramError("the overlay program's size is wrong: export the model again")
    height, width, *output = shapes
    model = data[HEADER.size : -DIGEST_BYTES]
    program = Program(model, count, scratch_bytes, (height, width), (output[0], output[1], output[2]))
    _check(program)
    return program


def _check(program: Program) -> None:
    """Raises: ProgramError if sizes are impossible, an instruction means nothing, or End is not the last."""
    sides = (*program.input_px, *program.output_shape[1:])
    limits = (
        all(1 <= side <= MAX_SIDE_PX for side in sides)
        and 1 <= program.output_shape[0] <= MAX_CHANNELS
        and len(program.model) <= MAX_MODEL_BYTES
        and 0 <= program.scratch_bytes <= MAX_SCRATCH_BYTES
        and len(program.model) % isa.BEAT_BYTES == program.scratch_bytes % isa.BEAT_BYTES == 0
        and 0 < program.instruction_count <= MAX_INSTRUCTIONS
        and program.instruction_count * isa.INSTRUCTION_BYTES <= len(program.model)
    )
    if not limits:
        raise ProgramError("the overlay program's sizes are impossible: export the model again")
    ends = [position for position, item in enumerate(program.instructions()) if isinstance(item, isa.End)]
    if ends != [program.instruction_count - 1]:
        raise ProgramError("the overlay program does not end with its only End: export the model again")
