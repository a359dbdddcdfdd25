"""Results to the activation memory: one pixel a cycle, its quads turned to the place they have in a word."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Module, Mux, Signal

from board.overlay.hardware.activation import ADDRESS_BITS, LANES, QUAD_BITS
from board.overlay.hardware.component import Elaboratable, data, kept
from board.overlay.isa import CHANNELS_IN


class Results(Elaboratable):
    """After `start`, takes the results of a tile in order; `finished` when the last of them is in the memory."""

    def __init__(self, fields: Any) -> None:
        self.fields = fields
        self.start = Signal()
        self.valid = Signal()
        self.result = Signal(8 * CHANNELS_IN)
        self.write = Signal(LANES)
        self.write_address = [data(ADDRESS_BITS, name=f"result_address{lane}") for lane in range(LANES)]
        self.write_data = data(8 * CHANNELS_IN)
        self.finished = Signal()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        f = self.fields
        row_quad, quad, next_quad = data(16), data(16), Signal(16)  # of the row's first pixel, of this pixel
        turns = kept(LANES, "turn", 2)  # the lower bits of `quad`, for each lane
        col, y, done = data(11), data(10), Signal()
        # the pairs of an odd row end with a pixel that is not written
        exists, row_end = col <= f.cols, col == (f.cols | 1)
        m.d.comb += next_quad.eq(quad)
        m.d.sync += [self.write.eq(0), done.eq(0), self.finished.eq(done)]
        m.d.sync += [quad.eq(next_quad), *(turn.eq(next_quad[:2]) for turn in turns)]
        with m.If(self.start):
            m.d.comb += next_quad.eq(f.out)
            m.d.sync += [row_quad.eq(f.out), col.eq(0), y.eq(0)]
        with m.Elif(self.valid):
            m.d.comb += next_quad.eq(quad + (f.out_col << 2))
            m.d.sync += col.eq(col + 1)
            with m.If(row_end):
                next_row = row_quad + (f.out_row << 2)
                m.d.comb += next_quad.eq(next_row)
                m.d.sync += [col.eq(0), y.eq(y + 1), row_quad.eq(next_row), done.eq(y == f.rows)]
            for lane, turn in enumerate(turns):
                m.d.sync += self.write[lane].eq(exists & (self._source(lane, turn) <= f.out_quads))
        for lane, turn in enumerate(turns):
            quads = Array(self.result.word_select(i, QUAD_BITS) for i in range(LANES))
            m.d.sync += self.write_data.word_select(lane, QUAD_BITS).eq(quads[self._source(lane, turn)])
            m.d.sync += self.write_address[lane].eq(quad[2:] + Mux(lane < turn, 1, 0))
        return m

    def _source(self, lane: int, turn: Any) -> Any:
        """Which quad of the result goes to this lane."""
        return (lane - turn)[:2]
