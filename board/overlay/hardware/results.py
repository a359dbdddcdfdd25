"""Results to the activation memory: one pixel a cycle, its quads turned to the place they have in a word."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal

from board.overlay.hardware.activation import ADDRESS_BITS, LANES, QUAD_BITS
from board.overlay.hardware.component import Elaboratable
from board.overlay.isa import CHANNELS_IN


class Results(Elaboratable):
    """After `start`, takes the results of a tile in order; `finished` when the last of them is in the memory."""

    def __init__(self, fields: Any) -> None:
        self.fields = fields
        self.start = Signal()
        self.valid = Signal()
        self.result = Signal(8 * CHANNELS_IN)
        self.write = Signal(LANES)
        self.write_address = [Signal(ADDRESS_BITS, name=f"result_address{lane}") for lane in range(LANES)]
        self.write_data = Signal(8 * CHANNELS_IN)
        self.finished = Signal()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        f = self.fields
        row_quad, quad = Signal(16), Signal(16)  # of the row's first pixel, of this pixel
        col, y, done = Signal(11), Signal(10), Signal()
        # the pairs of an odd row end with a pixel that is not written
        exists, row_end = col <= f.cols, col == (f.cols | 1)
        m.d.sync += [self.write.eq(0), done.eq(0), self.finished.eq(done)]
        with m.If(self.start):
            m.d.sync += [row_quad.eq(f.out), quad.eq(f.out), col.eq(0), y.eq(0)]
        with m.Elif(self.valid):
            m.d.sync += [col.eq(col + 1), quad.eq(quad + (f.out_col << 2))]
            with m.If(row_end):
                next_row = row_quad + (f.out_row << 2)
                m.d.sync += [col.eq(0), y.eq(y + 1), quad.eq(next_row), row_quad.eq(next_row), done.eq(y == f.rows)]
            turn = quad[:2]
            m.d.sync += self.write_data.eq(self._turned(turn))
            for lane in range(LANES):
                source = Signal(2, name=f"source{lane}")
                m.d.comb += source.eq(lane - turn)
                m.d.sync += self.write[lane].eq(exists & (source <= f.out_quads))
                m.d.sync += self.write_address[lane].eq(quad[2:] + Mux(lane < turn, 1, 0))
        return m

    def _turned(self, turn: Any) -> Any:
        double = Cat(self.result, self.result)
        whole = 8 * CHANNELS_IN
        once = Mux(turn[0], double[whole - QUAD_BITS : 2 * whole - QUAD_BITS], self.result)
        return Mux(turn[1], Cat(once, once)[whole - 2 * QUAD_BITS : 2 * whole - 2 * QUAD_BITS], once)
