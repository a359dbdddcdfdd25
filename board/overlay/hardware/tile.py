"""What loads and stores share: the rows of a tile in DDR, and its words in the activation memory."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal

from board.overlay.hardware.activation import ADDRESS_BITS
from board.overlay.hardware.component import Elaboratable, Loop, Nest, Stream, data
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
        row = data(10)
        offset = self.access.payload.offset
        m.d.comb += [self.access.payload.segment.eq(self.segment), self.access.payload.beats.eq(self.beats)]
        position = data(29)
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
        self.address = data(ADDRESS_BITS)
        self.valid = Signal()  # from the start to the last `next`
        self.last = Signal()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        y, x, word = Loop(self.rows_last, "y"), Loop(self.cols_last, "x"), Loop(self.words_last, "word")
        row, col = data(ADDRESS_BITS), data(ADDRESS_BITS)
        nest = Nest(word, x, y)
        m.d.comb += self.last.eq(nest.wraps[2])
        with m.If(self.start):
            m.d.sync += [self.address.eq(self.base), row.eq(self.base), col.eq(self.base), self.valid.eq(1)]
            m.d.sync += nest.begin()
        with m.Elif(self.next & self.valid):
            m.d.sync += [self.address.eq(self.address + 1), self.valid.eq(~self.last), nest.advance()]
            with m.If(nest.wraps[0]):
                m.d.sync += self._go(col + self.base_col, col)
            with m.If(nest.wraps[1]):
                m.d.sync += [row.eq(row + self.base_row), self._go(row + self.base_row, col)]
        return m

    def _go(self, address: Any, col: Any) -> list[Any]:
        return [self.address.eq(address), col.eq(address)]


def count_beats(m: Module, cols_last: Any, words_last: Any) -> Signal:
    """Beats of a row, two cycles later. Multiplied in look-up tables: the DSPs are the array's."""
    terms = [Mux(words_last[i], cols_last << i, 0) for i in range(len(words_last))]
    terms += [Const(0, 1)] * (-len(terms) % 4)
    parts = [data(17) for _ in range(0, len(terms), 4)]
    rest, words = data(11), data(18)
    m.d.sync += [part.eq((a + b) + (c + d)) for part, (a, b, c, d) in zip(parts, batched(terms), strict=True)]
    m.d.sync += [rest.eq(cols_last + words_last + 1), words.eq((parts[0] + parts[1]) + rest)]
    beats = Signal(19)
    m.d.comb += beats.eq(words << 1)
    return beats


def batched(terms: list[Any]) -> list[list[Any]]:
    return [terms[i : i + 4] for i in range(0, len(terms), 4)]
