"""Random programs of one layer, legal by ARCHITECTURE.md, that reach into the corners of the instruction set."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from board.overlay.isa import (
    Compute,
    End,
    Instruction,
    LoadImage,
    LoadTile,
    LoadWeights,
    Mode,
    Segment,
    StoreTile,
    Unit,
    WeightFormat,
)

Bytes = NDArray[np.uint8]
TO_COMPUTE, TO_STORE, TO_LOAD = 1 << Unit.COMPUTE, 1 << Unit.STORE, 1 << Unit.LOAD
FROM_LOAD, FROM_COMPUTE, FROM_STORE = TO_LOAD, TO_COMPUTE, TO_STORE
CODE_BYTES = 1024


@dataclass(frozen=True)
class Case:
    program: list[Instruction]
    segments: list[Bytes]  # contents before the run

    def with_code(self) -> list[Bytes]:
        code = np.frombuffer(isa.encode_program(self.program), np.uint8)
        model = self.segments[Segment.MODEL].copy()
        model[: len(code)] = code
        return [model, *(segment.copy() for segment in self.segments[1:])]


def random_case(rng: np.random.Generator) -> Case:
    mode = Mode(rng.choice(3, p=[0.5, 0.35, 0.15]))
    compute = random_compute(rng, mode)
    steps = compute.sources * compute.kernel_rows * compute.kernel_cols * compute.blocks
    narrow = bool(rng.random() < 0.3)
    parameters, weights = _parameters(rng, steps), _weights(rng, mode, steps, narrow)
    model = np.concatenate([np.zeros(CODE_BYTES, np.uint8), parameters, weights])
    image = rng.random() < 0.2 and compute.a_double == 0 and compute.sources == 1 and mode == Mode.DENSE
    loads, data = _image_load(rng, compute) if image else _source_loads(rng, compute)
    store = StoreTile(
        segment=Segment.OUTPUT,
        rows=compute.rows,
        cols=compute.cols,
        words=compute.out_col,
        pitch=2 * compute.cols * compute.out_col + int(rng.integers(3)),
        base=compute.out // 4,
        base_row=compute.out_row,
        base_col=compute.out_col,
        wait=FROM_COMPUTE,
    )
    weight_format = WeightFormat.INT4 if narrow else WeightFormat.INT8
    program: list[Instruction] = [
        LoadWeights(address=CODE_BYTES // 8, words=1, base=compute.weights),
        LoadWeights(
            address=(CODE_BYTES + isa.WEIGHT_WORD_BYTES) // 8,
            words=steps,
            base=(compute.weights + 1) % isa.WEIGHT_WORDS,
            format=weight_format,
        ),
        *loads,
        replace(compute, wait=FROM_LOAD, signal=TO_STORE),
        store,
        End(),
    ]
    output = np.zeros(8 * store.pitch * store.rows + 16, np.uint8)
    return Case(program, [model, np.zeros(8, np.uint8), data, output])


def random_compute(rng: np.random.Generator, mode: Mode) -> Compute:
    def upto(high: int, low: int = 1) -> int:
        return int(rng.integers(low, high, endpoint=True))

    dense = mode == Mode.DENSE
    blocks = upto(3) if dense else 1
    sources = upto(2)
    doubles = (int(rng.random() < 0.2), int(rng.random() < 0.2))
    source_rows, source_cols = upto(12), upto(14)
    cols = upto(13)
    # a row of the output is as wide in memory as all its pixels, and a pixel of it as its words
    out_words, out_quads = upto(3), upto(3 if dense else 4)
    quad = upto(4 * out_words - out_quads, 0)
    a_col = blocks + upto(2, 0)
    b_col = blocks + upto(2, 0)
    a = upto(isa.ACTIVATION_WORDS - 1, 0)
    # source b a bank further, and the output in the bank of the one, of the other or of none
    offset = upto(4000, 0)
    behind = (900 + offset // 2, 5100 + offset // 2, 8300 + offset)[offset % 3]
    return Compute(
        mode=mode,
        relu=upto(1, 0),
        weights=upto(isa.WEIGHT_WORDS - 1, 0),
        rows=upto(9),
        cols=cols,
        kernel_rows=upto(5),
        kernel_cols=upto(5) if rng.random() < 0.9 else upto(7),
        step_cols=upto(2),
        blocks=blocks,
        stride_rows=upto(2),
        stride_cols=upto(2),
        first_row=upto(3, -4),
        first_col=upto(3, -4),
        source_rows=source_rows,
        source_cols=source_cols,
        sources=sources,
        a=a,
        a_row=a_col * source_cols + upto(2, 0),
        a_col=a_col,
        a_double=doubles[0],
        b=(a + 4096 + upto(100, 0)) % isa.ACTIVATION_WORDS,
        b_row=b_col * source_cols + upto(2, 0),
        b_col=b_col,
        b_double=doubles[1],
        out=(4 * (a + behind) + quad) % (4 * isa.ACTIVATION_WORDS),
        out_row=out_words * cols + upto(2, 0),
        out_col=out_words,
        out_quads=out_quads,
    )


def _parameters(rng: np.random.Generator, steps: int) -> Bytes:
    lanes = np.zeros((isa.CHANNELS_IN, isa.PARAMETER_BYTES), np.uint8)
    reach = int(rng.choice([0, 100, 10_000, 1 << 23]))
    bias = rng.integers(-reach, reach, isa.CHANNELS_IN, endpoint=True).astype("<i4")
    lanes[:, :4] = bias.view(np.uint8).reshape(-1, 4)
    lanes[:, 4] = rng.integers(0, 32, isa.CHANNELS_IN) if rng.random() < 0.3 else _fitting_shift(rng, steps)
    return np.concatenate([lanes.ravel(), rng.integers(0, 256, 0, dtype=np.uint8)])


def _fitting_shift(rng: np.random.Generator, steps: int) -> NDArray[np.int64]:
    """So that most results do not saturate."""
    typical = int(np.log2(np.sqrt(16 * steps) * 74 * 73 / 60))
    return np.maximum(0, typical + rng.integers(-3, 3, isa.CHANNELS_IN))


def _weights(rng: np.random.Generator, mode: Mode, steps: int, narrow: bool) -> Bytes:
    low, high = (-8, 7) if narrow else (-127, 127)
    words = rng.integers(low, high, (steps, isa.CHANNELS_OUT, isa.CHANNELS_IN), endpoint=True)
    if rng.random() < 0.15:
        words[:] = np.where(rng.random(words.shape) < 0.5, low, high)
    if mode != Mode.DENSE:
        parity = np.arange(6)[:, np.newaxis] % 2 != np.arange(isa.CHANNELS_IN) % 2
        words[:, :6][:, parity] = 0
    data: Bytes = words.astype(np.int8).view(np.uint8).reshape(steps, -1)
    if narrow:
        data = (data[:, 0::2] & np.uint8(15)) | (data[:, 1::2] << np.uint8(4))
    return data.ravel()


def _values(rng: np.random.Generator, size: int) -> Bytes:
    if rng.random() < 0.15:
        return rng.choice(np.array([127, 128], np.uint8), size)
    return rng.integers(0, 256, size, dtype=np.uint8)


def _source_loads(rng: np.random.Generator, compute: Compute) -> tuple[list[Instruction], Bytes]:
    loads, parts, address = [], [], 0
    sources = [(compute.a, compute.a_row, compute.a_col), (compute.b, compute.b_row, compute.b_col)]
    for base, row, col in sources[: compute.sources]:
        beats = 2 * compute.source_cols * col
        pitch = beats + int(rng.integers(3))
        parts.append(_values(rng, 8 * (pitch * compute.source_rows)))
        loads.append(
            LoadTile(
                segment=Segment.INPUT,
                address=address,
                pitch=pitch,
                rows=compute.source_rows,
                cols=compute.source_cols,
                words=col,
                base=base,
                base_row=row,
                base_col=col,
            )
        )
        address += pitch * compute.source_rows
    loads[-1] = replace(loads[-1], signal=TO_COMPUTE)
    return [*loads], np.concatenate(parts)


def _image_load(rng: np.random.Generator, compute: Compute) -> tuple[list[Instruction], Bytes]:
    cols = int(rng.integers(1, 40))
    pitch = -(-3 * cols // 8) + int(rng.integers(3))
    load = LoadImage(
        segment=Segment.INPUT,
        pitch=pitch,
        rows=compute.source_rows,
        cols=cols,
        words=compute.source_cols,
        stride=int(rng.integers(1, 3)),
        lead=int(rng.integers(-6, 7)),
        base=compute.a,
        base_row=compute.a_row,
        base_col=compute.a_col,
    )
    seconds = [replace(load, base=(load.base + i) % isa.ACTIVATION_WORDS) for i in range(1, compute.a_col)]
    loads = [load, *(replace(second, lead=int(rng.integers(-6, 7))) for second in seconds)]
    loads[-1] = replace(loads[-1], signal=TO_COMPUTE)
    return [*loads], _values(rng, 8 * pitch * compute.source_rows)
