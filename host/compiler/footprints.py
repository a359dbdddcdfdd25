"""Which places of which memories an instruction reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from board.overlay.isa import Compute, Instruction, LoadImage, LoadTile, LoadWeights, Mode, StoreTile, WeightFormat

Places = NDArray[np.int64]
Transfer = LoadTile | LoadImage | LoadWeights | StoreTile  # what uses the memory port
ACTIVATIONS, WEIGHTS, DDR = "activations", "weights", "ddr"


@dataclass(frozen=True)
class Access:
    memory: str
    places: Places  # words of activations or weights, beats of DDR
    write: bool


def count_places(segment_beats: Sequence[int]) -> dict[str, int]:
    """Of each memory."""
    places = {ACTIVATIONS: isa.ACTIVATION_WORDS, WEIGHTS: isa.WEIGHT_WORDS}
    return places | {f"{DDR}{segment}": beats for segment, beats in enumerate(segment_beats)}


def find_accesses(instruction: Instruction) -> Iterator[Access]:
    if isinstance(instruction, LoadTile | StoreTile):
        storing = isinstance(instruction, StoreTile)
        yield _ddr(instruction, write=storing)
        pixel = np.add.outer(np.arange(instruction.cols) * instruction.base_col, np.arange(instruction.words))
        yield _activations(instruction.base, instruction.rows, instruction.base_row, pixel, write=not storing)
    elif isinstance(instruction, LoadImage):
        yield _ddr(instruction, write=False)
        pixel = np.arange(instruction.words) * instruction.base_col
        yield _activations(instruction.base, instruction.rows, instruction.base_row, pixel, write=True)
    elif isinstance(instruction, LoadWeights):
        beats = instruction.address + np.arange(row_beats(instruction))
        yield Access(f"{DDR}{int(instruction.segment)}", beats, write=False)
        yield Access(WEIGHTS, (instruction.base + np.arange(instruction.words)) % isa.WEIGHT_WORDS, write=True)
    elif isinstance(instruction, Compute):
        yield from _compute(instruction)


def row_beats(transfer: Transfer) -> int:
    """In a row of DDR; weights are one row."""
    if isinstance(transfer, LoadWeights):
        return transfer.words * isa.WEIGHT_WORD_BYTES // isa.BEAT_BYTES >> (transfer.format == WeightFormat.INT4)
    if isinstance(transfer, LoadImage):
        return -(-3 * transfer.cols // isa.BEAT_BYTES)
    return transfer.cols * transfer.words * isa.WORD_BYTES // isa.BEAT_BYTES


def moved_beats(instruction: Instruction) -> int:
    """Over the memory port, without the instruction itself."""
    if not isinstance(instruction, Transfer):
        return 0
    rows = 1 if isinstance(instruction, LoadWeights) else instruction.rows
    return rows * row_beats(instruction)


def steps_of(compute: Compute) -> int:
    return compute.sources * compute.kernel_rows * compute.kernel_cols * compute.blocks


def _compute(compute: Compute) -> Iterator[Access]:
    words = 1 if compute.mode == Mode.MAX else 1 + steps_of(compute)
    yield Access(WEIGHTS, (compute.weights + np.arange(words)) % isa.WEIGHT_WORDS, write=False)
    sources = [(compute.a, compute.a_row, compute.a_col, compute.a_double)]
    if compute.sources == 2:
        sources.append((compute.b, compute.b_row, compute.b_col, compute.b_double))
    last_row = (compute.rows - 1) * compute.stride_rows + compute.first_row + compute.kernel_rows
    rows = min(last_row, compute.source_rows)
    for base, base_row, base_col, double in sources:
        cols = np.arange((compute.source_cols + double) >> double) * base_col
        pixel = np.add.outer(cols, np.arange(compute.blocks))
        yield _activations(base, (rows + double) >> double, base_row, pixel, write=False)
    quads = np.arange(compute.out_quads) + compute.out % 4
    pixel = np.add.outer(np.arange(compute.cols) * compute.out_col, np.unique(quads // 4))
    yield _activations(compute.out // 4, compute.rows, compute.out_row, pixel, write=True)


def _activations(base: int, rows: int, base_row: int, pixel: Places, *, write: bool) -> Access:
    words = np.add.outer(np.arange(rows) * base_row, pixel).ravel() + base
    return Access(ACTIVATIONS, words % isa.ACTIVATION_WORDS, write)


def _ddr(instruction: LoadTile | LoadImage | StoreTile, *, write: bool) -> Access:
    rows = np.arange(instruction.rows) * instruction.pitch
    places = np.add.outer(rows, np.arange(row_beats(instruction))).ravel() + instruction.address
    return Access(f"{DDR}{int(instruction.segment)}", places, write)
