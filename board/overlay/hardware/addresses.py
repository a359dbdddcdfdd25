"""Where a step reads: from source coordinates to two word addresses, zero padding told apart. Three cycles."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed

from board.overlay.hardware.activation import ADDRESS_BITS
from board.overlay.hardware.component import Elaboratable

COORDINATE_BITS = 14  # 1023 · 2 + 31 + 15 · 2, and below 0


class Addresses(Elaboratable):
    """Coordinates of both pixels → `address[p]`, `outside[p]`, CYCLES later; all holds while `enable` is 0."""

    CYCLES = 3

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
        self.address = [Signal(ADDRESS_BITS, name=f"address{p}") for p in range(2)]
        self.outside = [Signal(name=f"outside{p}") for p in range(2)]

    def elaborate(self, _platform: object) -> Module:
        m = Module()

        def choose(pair: list[Any]) -> Any:
            return Mux(self.second, pair[1], pair[0])

        row_words, col_words, start = Signal(12), Signal(7), Signal(ADDRESS_BITS)
        row, row_product, row_outside = Signal(11), Signal(ADDRESS_BITS), Signal()
        double = choose(self.double)
        with m.If(self.enable):
            m.d.sync += [
                row_words.eq(choose(self.row_words)),
                col_words.eq(choose(self.col_words)),
                start.eq(choose(self.base) + self.block),
                row.eq(Mux(double, self.row >> 1, self.row)),
                row_outside.eq((self.row < 0) | (self.row > self.source_rows_last)),
                row_product.eq(row * row_words),
            ]
        start_later = Signal(ADDRESS_BITS)
        with m.If(self.enable):
            m.d.sync += start_later.eq(start)
        for p in range(2):
            col, product = Signal(11, name=f"col{p}_stored"), Signal(ADDRESS_BITS, name=f"col{p}_product")
            outside, outside_later = Signal(name=f"col{p}_outside"), Signal(name=f"col{p}_outside_later")
            with m.If(self.enable):
                m.d.sync += [
                    col.eq(Mux(double, self.col[p] >> 1, self.col[p])),
                    outside.eq((self.col[p] < 0) | (self.col[p] > self.source_cols_last)),
                    product.eq(col * col_words),
                    outside_later.eq(outside | row_outside),
                    self.address[p].eq(start_later + row_product + product),
                    self.outside[p].eq(outside_later),
                ]
        return m
