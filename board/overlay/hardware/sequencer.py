"""The loops of a compute instruction: one step a cycle, in the order row, column pair, source, kernel, block."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal, signed

from board.overlay.hardware.addresses import COORDINATE_BITS
from board.overlay.hardware.component import Elaboratable, Loop, Nest, data
from board.overlay.isa import WEIGHT_WORDS


class Sequencer(Elaboratable):
    """After `start`, one step in each cycle with `enable`; a pair of one step is followed by an empty cycle."""

    def __init__(self, fields: Any) -> None:
        self.fields = fields
        self.start = Signal()
        self.enable = Signal()
        self.valid = Signal()
        self.first = data()  # step of its pair
        self.last = Signal()
        self.row = data(signed(COORDINATE_BITS))
        self.col = [data(signed(COORDINATE_BITS), name=f"sequence_col{p}") for p in range(2)]
        self.block = Signal(7)
        self.second = Signal()  # source b
        self.weight = data(range(WEIGHT_WORDS))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        f = self.fields
        y, pair = Loop(f.rows, "y"), Loop(f.cols[1:], "pair")
        source, i, j = Loop(f.sources, "source"), Loop(f.kernel_rows, "i"), Loop(f.kernel_cols, "j")
        block = Loop(f.blocks, "block")
        nest = Nest(block, j, i, source, pair, y)
        row_start, col_start = data(signed(COORDINATE_BITS)), data(signed(COORDINATE_BITS))
        running, rest = Signal(), Signal()
        col_step = f.stride_cols + 1
        m.d.comb += [
            self.valid.eq(running & ~rest),
            self.last.eq(nest.wraps[3]),
            self.block.eq(block.count),
            self.second.eq(source.count),
            self.col[1].eq(self.col[0] + col_step),
        ]

        def begin_pair(col: Any, row: Any) -> list[Any]:
            return [self.col[0].eq(col), col_start.eq(col), self.row.eq(row), self.weight.eq(f.weights + 1)]

        with m.If(self.start):
            m.d.sync += [running.eq(1), rest.eq(0), self.first.eq(1), row_start.eq(f.first_row)]
            m.d.sync += [nest.begin(), begin_pair(f.first_col, f.first_row)]
        with m.Elif(rest & self.enable):
            m.d.sync += rest.eq(0)
        with m.Elif(running & self.enable):
            m.d.sync += [rest.eq(self.first & self.last), self.first.eq(self.last), self.weight.eq(self.weight + 1)]
            m.d.sync += nest.advance()
            with m.If(nest.wraps[0]):
                m.d.sync += self.col[0].eq(self.col[0] + f.step_cols + 1)
            with m.If(nest.wraps[1]):
                m.d.sync += [self.col[0].eq(col_start), self.row.eq(self.row + 1)]
            with m.If(nest.wraps[2]):
                m.d.sync += self.row.eq(row_start)
            with m.If(nest.wraps[3]):
                next_row = row_start + f.stride_rows + 1
                m.d.sync += begin_pair(col_start + (col_step << 1), row_start)
                with m.If(nest.wraps[4]):
                    m.d.sync += [row_start.eq(next_row), begin_pair(f.first_col, next_row)]
                    with m.If(nest.wraps[5]):
                        m.d.sync += running.eq(0)
        return m
