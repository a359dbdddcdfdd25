"""The loops of a compute instruction: one step a cycle, in the order row, column pair, source, kernel, block."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal, signed

from board.overlay.hardware.addresses import COORDINATE_BITS
from board.overlay.hardware.component import Elaboratable
from board.overlay.isa import WEIGHT_WORDS


class Sequencer(Elaboratable):
    """After `start`, one step in each cycle with `enable`; a pair of one step is followed by an empty cycle."""

    def __init__(self, fields: Any) -> None:
        self.fields = fields
        self.start = Signal()
        self.enable = Signal()
        self.valid = Signal()
        self.first = Signal()  # step of its pair
        self.last = Signal()
        self.row = Signal(signed(COORDINATE_BITS))
        self.col = [Signal(signed(COORDINATE_BITS), name=f"sequence_col{p}") for p in range(2)]
        self.block = Signal(7)
        self.second = Signal()  # source b
        self.weight = Signal(range(WEIGHT_WORDS))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        f = self.fields
        y, pair = Signal(10), Signal(9)
        i, j = Signal(4), Signal(4)
        row_start, col_start = Signal(signed(COORDINATE_BITS)), Signal(signed(COORDINATE_BITS))
        running, rest = Signal(), Signal()
        col_step = f.stride_cols + 1

        block_last, j_last = self.block == f.blocks, j == f.kernel_cols
        i_last, source_last = i == f.kernel_rows, self.second == f.sources
        pair_last, y_last = pair == f.cols[1:], y == f.rows
        m.d.comb += [
            self.valid.eq(running & ~rest),
            self.first.eq((self.block == 0) & (j == 0) & (i == 0) & ~self.second),
            self.last.eq(block_last & j_last & i_last & source_last),
            self.col[1].eq(self.col[0] + col_step),
        ]

        def begin_pair(col: Any, row: Any) -> list[Any]:
            return [self.col[0].eq(col), col_start.eq(col), self.row.eq(row), self.weight.eq(f.weights + 1)]

        with m.If(self.start):
            m.d.sync += [running.eq(1), rest.eq(0), y.eq(0), pair.eq(0), row_start.eq(f.first_row)]
            m.d.sync += [self.block.eq(0), j.eq(0), i.eq(0), self.second.eq(0), *begin_pair(f.first_col, f.first_row)]
        with m.Elif(rest & self.enable):
            m.d.sync += rest.eq(0)
        with m.Elif(running & self.enable):
            m.d.sync += [
                rest.eq(self.first & self.last),
                self.weight.eq(self.weight + 1),
                self.block.eq(self.block + 1),
            ]
            with m.If(block_last):
                m.d.sync += [self.block.eq(0), j.eq(j + 1), self.col[0].eq(self.col[0] + f.step_cols + 1)]
            with m.If(block_last & j_last):
                m.d.sync += [j.eq(0), self.col[0].eq(col_start), i.eq(i + 1), self.row.eq(self.row + 1)]
            with m.If(block_last & j_last & i_last):
                m.d.sync += [i.eq(0), self.row.eq(row_start), self.second.eq(1)]
            with m.If(self.last):
                next_row = row_start + f.stride_rows + 1
                m.d.sync += [self.second.eq(0), pair.eq(pair + 1)]
                m.d.sync += begin_pair(col_start + (col_step << 1), row_start)
                with m.If(pair_last):
                    m.d.sync += [pair.eq(0), y.eq(y + 1), row_start.eq(next_row), *begin_pair(f.first_col, next_row)]
                    with m.If(y_last):
                        m.d.sync += running.eq(0)
        return m
