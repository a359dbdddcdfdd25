"""Which places of which memories an instruction reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from board.overlay.isa import Compute, Instruction, LoadImage, LoadTile, LoadWeights, Mode, StoreTile, WeightFormat

Places = NDArray[np.int64]
ACTIVATIONS, WEIGHTS, DDR = "activations", "weights", "ddr"


@dataclass(frozen=True)
class Access:
    memory: str
    places: Places  # words of activations or weights, beats of DDR
    write: bool


def find_accesses(instruction: Instruction) -> Iterator[Access]:
    if isinstance(instruction, LoadTile | StoreTile):
        storing = isinstance(instruction, StoreTile)
        beats = instruction.cols * instruction.words * isa.WORD_BYTES // isa.BEAT_BYTES
        yield _ddr(instruction, beats, write=storing)
        pixel = np.add.outer(np.arange(instruction.cols) * instruction.base_col, np.arange(instruction.words))
        yield _activations(instruction.base, instruction.rows, instruction.base_row, pixel, write=not storing)
    elif isinstance(instruction, LoadImage):
        yield _ddr(instruction, -(-3 * instruction.cols // isa.BEAT_BYTES), write=False)
        pixel = np.arange(instruction.words) * instruction.base_col
        yield _activations(instruction.base, instruction.rows, instruction.base_row, pixel, write=True)
    elif isinstance(instruction, LoadWeights):
        beats = instruction.words * isa.WEIGHT_WORD_BYTES // isa.BEAT_BYTES
        beats >>= instruction.format == WeightFormat.INT4
        yield Access(f"{DDR}{int(instruction.segment)}", instruction.address + np.arange(beats), write=False)
        yield Access(WEIGHTS, (instruction.base + np.arange(instruction.words)) % isa.WEIGHT_WORDS, write=True)
    elif isinstance(instruction, Compute):
        yield from _compute(instruction)


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


def _ddr(instruction: LoadTile | LoadImage | StoreTile, beats: int, *, write: bool) -> Access:
    rows = np.arange(instruction.rows) * instruction.pitch
    places = np.add.outer(rows, np.arange(beats)).ravel() + instruction.address
    return Access(f"{DDR}{int(instruction.segment)}", places, write)
