"""Where a step reads: from source coordinates to two word addresses, zero padding told apart. Four cycles."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed

from board.overlay.hardware.activation import ADDRESS_BITS
from board.overlay.hardware.component import Elaboratable, data, kept

COORDINATE_BITS = 14  # 1023 · 2 + 31 + 15 · 2, and below 0


class Addresses(Elaboratable):
    """Coordinates of both pixels → `address[p]`, `outside[p]`, CYCLES later; all holds while `enable` is 0."""

    CYCLES = 4

    def __init__(self) -> None:
        self.enable = Signal()
        self.row = Signal(signed(COORDINATE_BITS))
        self.col = [Signal(signed(COORDINATE_BITS), name=f"col{p}") for p in range(2)]
        self.block = Signal(7)
        self.second = Signal()  # source b
        self.source_rows_last = Signal(10)
        self.source_cols_last = Signal(10)
        self.base = [Signal(ADDRESS_BITS, name=f"base_{s}") for s in "ab"]
        self.row_words = [Signal(12, name=f"row_words_{s}") for s in "ab"]
        self.col_words = [Signal(7, name=f"col_words_{s}") for s in "ab"]
        self.double = [Signal(name=f"double_{s}") for s in "ab"]
        self.address = [data(ADDRESS_BITS, name=f"address{p}") for p in range(2)]
        self.outside = [data(name=f"outside{p}") for p in range(2)]

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        row, col, block = data(signed(COORDINATE_BITS)), [data(signed(COORDINATE_BITS)) for _ in range(2)], data(7)
        of_row, of_words, of_col0, of_col1 = seconds = kept(4, "second")  # each for the pins of a part
        with m.If(self.enable):
            m.d.sync += [row.eq(self.row), block.eq(self.block), *(copy.eq(self.second) for copy in seconds)]
            m.d.sync += [to.eq(value) for to, value in zip(col, self.col, strict=True)]

        row_words, col_words, start = data(12), data(7), data(ADDRESS_BITS)
        source_row, row_product, row_outside = data(11), data(ADDRESS_BITS), data()
        start_later = data(ADDRESS_BITS)
        with m.If(self.enable):
            m.d.sync += [
                row_words.eq(_choose(of_words, self.row_words)),
                col_words.eq(_choose(of_words, self.col_words)),
                start.eq(_choose(of_row, self.base) + block),
                source_row.eq(Mux(_choose(of_row, self.double), row >> 1, row)),
                row_outside.eq((row < 0) | (row > self.source_rows_last)),
                row_product.eq(source_row * row_words),
                start_later.eq(start),
            ]
        for p, of_col in enumerate((of_col0, of_col1)):
            source_col, product = data(11, name=f"col{p}_stored"), data(ADDRESS_BITS, name=f"col{p}_product")
            outside, outside_later = data(name=f"col{p}_outside"), data(name=f"col{p}_outside_later")
            with m.If(self.enable):
                m.d.sync += [
                    source_col.eq(Mux(_choose(of_col, self.double), col[p] >> 1, col[p])),
                    outside.eq((col[p] < 0) | (col[p] > self.source_cols_last)),
                    product.eq(source_col * col_words),
                    outside_later.eq(outside | row_outside),
                    self.address[p].eq(start_later + row_product + product),
                    self.outside[p].eq(outside_later),
                ]
        return m


def _choose(second: Any, pair: list[Any]) -> Any:
    return Mux(second, pair[1], pair[0])
