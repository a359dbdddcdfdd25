"""The overlay's instruction set, once: hardware decoder, compiler, disassembler and document all read it.

An instruction is 32 bytes, little endian. Fields lie in the order of the dataclass, from bit 0 upwards, first the
header that all share. A field with `least` is stored as value - least, so that no stored value is illegal.

>>> add = Compute(mode=Mode.LANES, sources=2, rows=4, cols=8)
>>> decode(encode(add)) == add
True
"""

# ruff: noqa: RUF009  (`bits` is dataclasses.field with this file's metadata)

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, ClassVar

from board.overlay.errors import ProgramError
from board.overlay.registers import REGISTERS

INSTRUCTION_BYTES = 32
BEAT_BYTES = 8  # one transfer of the 64-bit memory port
WORD_BYTES = 16  # one word of the activation memory: 16 channels of one pixel
QUAD_BYTES = 4  # the smallest piece of a word that can be written
CHANNELS_IN = 16  # input channels that a step sums over
CHANNELS_OUT = 12  # output channels of a dense instruction
PIXELS = 2  # output pixels, side by side, that a step serves
WEIGHT_WORD_BYTES = CHANNELS_IN * CHANNELS_OUT  # byte of a weight word: output channel · 16 + input channel
PARAMETER_BYTES = 12  # of each of the 16 lanes in a parameter word: bias int32, shift uint8, 7 unused
BANKS = 4
BANK_WORDS = 4096
ACTIVATION_WORDS = BANKS * BANK_WORDS
WEIGHT_WORDS = 1024
IMAGE_TAPS = 5  # pixels of 3 bytes in a word that LoadImage makes; the 16th byte is zero
SEMANTICS = 1  # counts up when an instruction's meaning changes and its fields do not


class Unit(IntEnum):
    """The three units that work side by side; a token is a bit at the unit's place."""

    LOAD = 0
    COMPUTE = 1
    STORE = 2


class Segment(IntEnum):
    """Parts of the DDR buffer, each with a base and a size register."""

    MODEL = 0  # program, weights, parameters
    SCRATCH = 1
    INPUT = 2
    OUTPUT = 3


class Mode(IntEnum):
    DENSE = 0
    LANES = 1
    MAX = 2


class WeightFormat(IntEnum):
    INT8 = 0  # also for parameter words: bytes as they are
    INT4 = 1  # low nibble first, sign-extended to 8 bits while loading


def bits(width: int, text: str, *, signed: bool = False, least: int = 0, kind: type[IntEnum] | None = None) -> Any:
    """A field of an instruction; its default is the smallest value of an unsigned field, 0 of a signed one."""
    default = kind(0) if kind else (0 if signed else least)
    return field(
        default=default, metadata={"bits": width, "text": text, "signed": signed, "least": least, "kind": kind}
    )


@dataclass(frozen=True)
class Place:
    """Where a field lies in the 256 bits."""

    name: str
    start: int
    bits: int
    signed: bool
    least: int
    kind: type[IntEnum] | None
    text: str

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else self.least

    @property
    def high(self) -> int:
        return self.low + (1 << self.bits) - 1


@dataclass(frozen=True, kw_only=True)
class Instruction:
    OPCODE: ClassVar[int] = 0
    UNIT: ClassVar[Unit | None] = None

    wait: int = bits(3, "units of which one token each is taken before the start")
    signal: int = bits(3, "units to which one token each is given after the end")


@dataclass(frozen=True, kw_only=True)
class LoadTile(Instruction):
    """DDR rows into the activation memory: a row is `cols` pixels of `words` words, contiguous in DDR."""

    OPCODE = 1
    UNIT = Unit.LOAD

    segment: Segment = bits(2, "DDR segment", kind=Segment)
    address: int = bits(29, "first beat in the segment")
    pitch: int = bits(16, "beats from row to row in DDR")
    rows: int = bits(10, "rows", least=1)
    cols: int = bits(10, "pixels in a row", least=1)
    words: int = bits(7, "words of a pixel", least=1)
    base: int = bits(14, "first word in the activation memory")
    base_row: int = bits(12, "words from row to row")
    base_col: int = bits(7, "words from pixel to pixel")


@dataclass(frozen=True, kw_only=True)
class LoadImage(Instruction):
    """DDR rows of RGB uint8 into words of five neighbouring pixels.

    Byte 3 t + c of word x is pixel x · stride - lead + t, colour c, minus 128; pixels outside the row are 0.
    """

    OPCODE = 2
    UNIT = Unit.LOAD

    segment: Segment = bits(2, "DDR segment", kind=Segment)
    address: int = bits(29, "first beat in the segment")
    pitch: int = bits(16, "beats from row to row in DDR")
    rows: int = bits(10, "rows", least=1)
    cols: int = bits(10, "pixels in a row of DDR", least=1)
    words: int = bits(10, "words made of a row", least=1)
    stride: int = bits(1, "pixels from word to word", least=1)
    lead: int = bits(6, "zero pixels before the row; negative: pixels skipped", signed=True)
    base: int = bits(14, "first word in the activation memory")
    base_row: int = bits(12, "words from row to row")
    base_col: int = bits(7, "words from word to word")


@dataclass(frozen=True, kw_only=True)
class LoadWeights(Instruction):
    """Contiguous weight or parameter words (192 bytes, 96 as INT4) into the weight memory."""

    OPCODE = 3
    UNIT = Unit.LOAD

    segment: Segment = bits(2, "DDR segment", kind=Segment)
    address: int = bits(29, "first beat in the segment")
    format: WeightFormat = bits(1, "of the bytes in DDR", kind=WeightFormat)
    words: int = bits(10, "words", least=1)
    base: int = bits(10, "first word in the weight memory")


@dataclass(frozen=True, kw_only=True)
class Compute(Instruction):
    """One tile: 12 output channels (DENSE) or 16 (LANES, MAX) of rows × cols pixels.

    Step k of an output pixel (order: source, kernel row, kernel column, block) reads weight word `weights` + 1 + k.
    """

    OPCODE = 4
    UNIT = Unit.COMPUTE

    mode: Mode = bits(2, "what a step does", kind=Mode)
    relu: int = bits(1, "negative results become 0")
    weights: int = bits(10, "parameter word; the words of the steps follow it")
    rows: int = bits(10, "output rows", least=1)
    cols: int = bits(10, "output columns", least=1)
    kernel_rows: int = bits(4, "rows of the kernel", least=1)
    kernel_cols: int = bits(4, "steps along a row of the kernel", least=1)
    step_cols: int = bits(1, "source columns from step to step", least=1)
    blocks: int = bits(7, "words of a pixel that are summed over", least=1)
    stride_rows: int = bits(1, "source rows from output row to output row", least=1)
    stride_cols: int = bits(1, "source columns from output column to output column", least=1)
    first_row: int = bits(6, "source row of output row 0 at kernel row 0", signed=True)
    first_col: int = bits(6, "source column of output column 0 at kernel column 0", signed=True)
    source_rows: int = bits(10, "rows that exist; others read as 0 (MAX: -128)", least=1)
    source_cols: int = bits(10, "columns that exist", least=1)
    sources: int = bits(1, "1: a alone, 2: a then b", least=1)
    a: int = bits(14, "first word of source a")
    a_row: int = bits(12, "words from stored row to row")
    a_col: int = bits(7, "words from stored pixel to pixel")
    a_double: int = bits(1, "each stored pixel stands for 2 × 2")
    b: int = bits(14, "first word of source b")
    b_row: int = bits(12, "words from stored row to row")
    b_col: int = bits(7, "words from stored pixel to pixel")
    b_double: int = bits(1, "each stored pixel stands for 2 × 2")
    out: int = bits(16, "first quad of the output: word · 4 + quad")
    out_row: int = bits(12, "words from row to row")
    out_col: int = bits(7, "words from pixel to pixel")
    out_quads: int = bits(2, "quads written of a pixel", least=1)


@dataclass(frozen=True, kw_only=True)
class StoreTile(Instruction):
    """The reverse of LoadTile."""

    OPCODE = 5
    UNIT = Unit.STORE

    segment: Segment = bits(2, "DDR segment", kind=Segment)
    address: int = bits(29, "first beat in the segment")
    pitch: int = bits(16, "beats from row to row in DDR")
    rows: int = bits(10, "rows", least=1)
    cols: int = bits(10, "pixels in a row", least=1)
    words: int = bits(7, "words of a pixel", least=1)
    base: int = bits(14, "first word in the activation memory")
    base_row: int = bits(12, "words from row to row")
    base_col: int = bits(7, "words from pixel to pixel")


@dataclass(frozen=True, kw_only=True)
class End(Instruction):
    """The program is over when all that stands before it is."""

    OPCODE = 6


INSTRUCTIONS: tuple[type[Instruction], ...] = (LoadTile, LoadImage, LoadWeights, Compute, StoreTile, End)
OPCODE_BITS = 4


_LAYOUTS: dict[type[Instruction], tuple[Place, ...]] = {}  # found once: programs have thousands of instructions


def layout(kind: type[Instruction]) -> tuple[Place, ...]:
    """Places of an instruction's fields, without the opcode in bits 0..3."""
    if kind not in _LAYOUTS:
        _LAYOUTS[kind] = _find_places(kind)
    return _LAYOUTS[kind]


def _find_places(kind: type[Instruction]) -> tuple[Place, ...]:
    places, start = [], OPCODE_BITS
    for item in fields(kind):
        meta = item.metadata
        places.append(
            Place(item.name, start, meta["bits"], meta["signed"], meta["least"], meta["kind"], str(meta["text"]))
        )
        start += meta["bits"]
    return tuple(places)


def encode(instruction: Instruction) -> bytes:
    """Raises: ProgramError if a value does not fit its field, or a unit would wait for itself."""
    name, word = type(instruction).__name__, instruction.OPCODE
    for place in layout(type(instruction)):
        value = int(getattr(instruction, place.name))
        if not place.low <= value <= place.high:
            takes = f"{place.low}..{place.high}"
            raise ProgramError(f"{name}.{place.name} is {value}, it takes {takes}: compile again")
        word |= ((value - place.least) & ((1 << place.bits) - 1)) << place.start
    if instruction.UNIT is not None and (instruction.wait | instruction.signal) >> instruction.UNIT & 1:
        raise ProgramError(f"{name} exchanges tokens with its own unit: compile again")
    return word.to_bytes(INSTRUCTION_BYTES, "little")


def decode(data: bytes) -> Instruction:
    """Raises: ProgramError for anything that `encode` does not write."""
    word = int.from_bytes(data, "little")
    opcode = word & ((1 << OPCODE_BITS) - 1)
    kind = next((kind for kind in INSTRUCTIONS if opcode == kind.OPCODE), None)
    if kind is None or len(data) != INSTRUCTION_BYTES:
        raise ProgramError(f"no instruction has opcode {opcode} in {len(data)} bytes: compile again")
    values: dict[str, int] = {}
    for place in layout(kind):
        value = (word >> place.start) & ((1 << place.bits) - 1)
        if place.signed and value >> (place.bits - 1):
            value -= 1 << place.bits
        try:
            values[place.name] = place.kind(value) if place.kind else value + place.least
        except ValueError:
            raise ProgramError(f"{kind.__name__}.{place.name} cannot be {value}: compile again") from None
    instruction = kind(**values)
    if encode(instruction) != data:
        raise ProgramError(f"{kind.__name__} has bits set that mean nothing: compile again")
    return instruction


def encode_program(instructions: Iterable[Instruction]) -> bytes:
    return b"".join(encode(instruction) for instruction in instructions)


def decode_program(data: bytes) -> list[Instruction]:
    """Raises: ProgramError naming the instruction."""
    program = []
    for start in range(0, len(data), INSTRUCTION_BYTES):
        try:
            program.append(decode(data[start : start + INSTRUCTION_BYTES]))
        except ProgramError as error:
            raise ProgramError(f"instruction {start // INSTRUCTION_BYTES}: {error}") from None
    return program


def text(instruction: Instruction) -> str:
    """One line of a disassembly: the fields that differ from their defaults.

    >>> text(LoadWeights(words=37, base=5))
    'LoadWeights words=37 base=5'
    """
    changed = (
        f"{item.name}={value.name if isinstance(value, IntEnum) else value}"
        for item in fields(instruction)
        if (value := getattr(instruction, item.name)) != item.default
    )
    return " ".join((type(instruction).__name__, *changed))


def tables() -> str:
    """The instruction set and the registers as Markdown: a part of ARCHITECTURE.md."""
    return "\n\n".join([*(_instruction_table(kind) for kind in INSTRUCTIONS), _register_table()]) + "\n"


def version() -> int:
    """Hash of all that hardware and program must agree on, 32 bits, in the register VERSION."""
    shape = (CHANNELS_IN, CHANNELS_OUT, PIXELS, BANKS, BANK_WORDS, WEIGHT_WORDS, IMAGE_TAPS, SEMANTICS)
    return int.from_bytes(hashlib.sha256(f"{shape}\n{tables()}".encode()).digest()[:4], "little")


def _instruction_table(kind: type[Instruction]) -> str:
    lines = [
        f"**{kind.__name__}**, opcode {kind.OPCODE}",
        "",
        "| bits | field | values | meaning |",
        "|---|---|---|---|",
    ]
    for place in layout(kind):
        end = place.start + place.bits - 1
        lines.append(f"| {place.start}–{end} | `{place.name}` | {place.low}..{place.high} | {place.text} |")
    return "\n".join(lines)


def _register_table() -> str:
    lines = ["**Registers**", "", "| offset | register | access | meaning |", "|---|---|---|---|"]
    lines += [f"| 0x{r.offset:03x} | {r.name} | {r.access} | {r.text} |" for r in REGISTERS]
    return "\n".join(lines)
