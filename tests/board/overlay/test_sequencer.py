from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Const, Module

from board.overlay import isa
from board.overlay.hardware.addresses import Addresses
from board.overlay.hardware.component import Elaboratable
from board.overlay.hardware.decode import split_fields
from board.overlay.hardware.sequencer import Sequencer
from tests.board.overlay.clocked import simulate
from tests.board.overlay.programs import random_compute

LOOPS = [
    isa.Compute(rows=3, cols=5, kernel_rows=3, kernel_cols=2, blocks=2, sources=2, first_row=-1, first_col=-2),
    isa.Compute(rows=2, cols=4, stride_rows=2, stride_cols=2, step_cols=2, kernel_cols=3, weights=1020),
    isa.Compute(rows=2, cols=1),
]


def fields_of(compute: isa.Compute) -> SimpleNamespace:
    return split_fields(Const(int.from_bytes(isa.encode(compute), "little"), 256), isa.Compute)


@pytest.mark.parametrize("compute", LOOPS)
def test_steps_come_in_the_order_of_the_document(compute: isa.Compute) -> None:
    part = Sequencer(fields_of(compute))
    want = []
    for y in range(compute.rows):
        for x in range(0, compute.cols, 2):
            steps = np.ndindex(compute.sources, compute.kernel_rows, compute.kernel_cols, compute.blocks)
            for k, (source, i, j, block) in enumerate(steps):
                row = y * compute.stride_rows + compute.first_row + i
                cols = [(x + p) * compute.stride_cols + compute.first_col + j * compute.step_cols for p in range(2)]
                want.append((row, *cols, block, source, (compute.weights + 1 + k) % isa.WEIGHT_WORDS))
    got: list[tuple[int, ...]] = []
    cycles = 0

    async def bench(ctx: Any) -> None:
        nonlocal cycles
        ctx.set(part.start, 1)
        await ctx.tick()
        ctx.set(part.start, 0)
        rng = np.random.default_rng(0)
        while len(got) < len(want) and cycles < 4 * len(want):
            enable = int(rng.random() < 0.7)
            ctx.set(part.enable, enable)
            if enable and ctx.get(part.valid):
                signals = (part.row, *part.col, part.block, part.second, part.weight)
                got.append(tuple(ctx.get(signal) for signal in signals))
            cycles += enable
            await ctx.tick()
        assert not ctx.get(part.valid)

    simulate(part, bench)
    assert got == want
    steps_a_pair = compute.sources * compute.kernel_rows * compute.kernel_cols * compute.blocks
    if steps_a_pair == 1:
        assert cycles == 2 * len(want) - 1


class Alone(Elaboratable):
    """The address arithmetic with the fields of one instruction."""

    def __init__(self, compute: isa.Compute) -> None:
        self.fields = fields_of(compute)
        self.addresses = Addresses()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.addresses = part = self.addresses
        f = self.fields
        m.d.comb += [part.source_rows_last.eq(f.source_rows), part.source_cols_last.eq(f.source_cols)]
        for s, (base, row, col, double) in enumerate(
            [(f.a, f.a_row, f.a_col, f.a_double), (f.b, f.b_row, f.b_col, f.b_double)]
        ):
            m.d.comb += [part.base[s].eq(base), part.row_words[s].eq(row)]
            m.d.comb += [part.col_words[s].eq(col), part.double[s].eq(double)]
        return m


@pytest.mark.parametrize("seed", range(6))
def test_addresses_follow_the_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    compute = random_compute(rng, isa.Mode.DENSE)
    alone = Alone(compute)
    part = alone.addresses

    async def bench(ctx: Any) -> None:
        ctx.set(part.enable, 1)
        for _ in range(40):
            row, cols = int(rng.integers(-5, 30)), rng.integers(-5, 30, 2).tolist()
            block, source = int(rng.integers(128)), int(rng.integers(2))
            ctx.set(part.row, row)
            ctx.set(part.col[0], cols[0])
            ctx.set(part.col[1], cols[1])
            ctx.set(part.block, block)
            ctx.set(part.second, source)
            await ctx.tick().repeat(part.CYCLES)
            base, row_words, col_words, double = (
                (compute.b, compute.b_row, compute.b_col, compute.b_double)
                if source
                else (compute.a, compute.a_row, compute.a_col, compute.a_double)
            )
            for p, col in enumerate(cols):
                inside = 0 <= row < compute.source_rows and 0 <= col < compute.source_cols
                assert ctx.get(part.outside[p]) == (not inside)
                if inside:
                    word = base + (row >> double) * row_words + (col >> double) * col_words + block
                    assert ctx.get(part.address[p]) == word % isa.ACTIVATION_WORDS

    simulate(alone, bench)
