"""What loads and stores share: the rows of a tile in DDR, and its words in the activation memory."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal

from board.overlay.hardware.activation import ADDRESS_BITS
from board.overlay.hardware.component import Elaboratable, Stream
from board.overlay.hardware.segments import ACCESS


class TileRows(Elaboratable):
    """After `start`, one access for each row: `beats` beats from `address` + row · `pitch`."""

    def __init__(self) -> None:
        self.start = Signal()
        self.segment = Signal(2)
        self.address = Signal(29)
        self.pitch = Signal(16)
        self.rows_last = Signal(10)
        self.beats = Signal(ACCESS["beats"].shape)
        self.access = Stream(ACCESS, "row_access")

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        row = Signal(10)
        offset = self.access.payload.offset
        m.d.comb += [self.access.payload.segment.eq(self.segment), self.access.payload.beats.eq(self.beats)]
        position = Signal(29)
        m.d.comb += offset.eq(position)
        with m.If(self.start):
            m.d.sync += [self.access.valid.eq(1), position.eq(self.address), row.eq(0)]
        with m.Elif(self.access.valid & self.access.ready):
            m.d.sync += [position.eq(position + self.pitch), row.eq(row + 1)]
            m.d.sync += self.access.valid.eq(row != self.rows_last)
        return m


class TileWords(Elaboratable):
    """After `start`, the address of a word in each cycle with `next`, in the order row, pixel, word."""

    def __init__(self) -> None:
        self.start = Signal()
        self.base = Signal(ADDRESS_BITS)
        self.base_row = Signal(12)
        self.base_col = Signal(7)
        self.rows_last = Signal(10)
        self.cols_last = Signal(10)
        self.words_last = Signal(7)
        self.next = Signal()
        self.address = Signal(ADDRESS_BITS)
        self.valid = Signal()  # from the start to the last `next`
        self.last = Signal()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        y, x, word = Signal(10), Signal(10), Signal(7)
        row, col = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        row_end, col_end = x == self.cols_last, word == self.words_last
        m.d.comb += self.last.eq(row_end & col_end & (y == self.rows_last))
        with m.If(self.start):
            m.d.sync += [self.address.eq(self.base), row.eq(self.base), col.eq(self.base)]
            m.d.sync += [y.eq(0), x.eq(0), word.eq(0), self.valid.eq(1)]
        with m.Elif(self.next & self.valid):
            m.d.sync += [self.address.eq(self.address + 1), word.eq(word + 1), self.valid.eq(~self.last)]
            with m.If(col_end):
                m.d.sync += [word.eq(0), x.eq(x + 1), *self._go(col + self.base_col, col)]
                with m.If(row_end):
                    m.d.sync += [x.eq(0), y.eq(y + 1), row.eq(row + self.base_row)]
                    m.d.sync += self._go(row + self.base_row, col)
        return m

    def _go(self, address: Any, col: Any) -> list[Any]:
        return [self.address.eq(address), col.eq(address)]
