"""The multipliers: 16 input channels × 12 output channels, two pixels in each DSP48E1.

A DSP multiplies a₁·2¹⁶ + a₀ (25 bits) by w; two in a cascade add up: |a₀·w + a₀'·w'| ≤ 2·128·127 < 2¹⁵, so the lower 16
bits are the sum for pixel 0 and what lies above is the sum for pixel 1, less the borrow that bit 15 tells.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, signed

from board.overlay.hardware.component import Elaboratable, data, delayed
from board.overlay.isa import CHANNELS_IN, CHANNELS_OUT, PIXELS

PRODUCT_BITS = 34  # a cascade of two products of 25 × 8 bits
PAIRS = CHANNELS_IN // 2


class MacArray(Elaboratable):
    CYCLES = 7  # from operands to sums

    def __init__(self) -> None:
        self.a = [Signal(signed(25), name=f"a{i}") for i in range(CHANNELS_IN)]
        self.w = [[Signal(signed(8), name=f"w{j}_{i}") for i in range(CHANNELS_IN)] for j in range(CHANNELS_OUT)]
        self.dense = [[Signal(signed(20), name=f"dense{p}_{j}") for j in range(CHANNELS_OUT)] for p in range(PIXELS)]
        # seven adders take seven of eight borrows in; one more bit is left to add to dense[1][j]
        self.borrow = [Signal(name=f"borrow{j}") for j in range(CHANNELS_OUT)]
        self.lanes = [[Signal(signed(18), name=f"lane{p}_{c}") for c in range(CHANNELS_IN)] for p in range(PIXELS)]

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        cascades = [[self._cascade(m, j, pair) for pair in range(PAIRS)] for j in range(CHANNELS_OUT)]
        for j in range(CHANNELS_OUT):
            lower = [product[:16].as_signed() for product in cascades[j]]
            upper = [product[16:].as_signed() for product in cascades[j]]
            borrows = [product[15] for product in cascades[j]]
            m.d.comb += self.dense[0][j].eq(_tree(m, lower, [])[0])
            total, (rest,) = _tree(m, upper, borrows)
            m.d.comb += [self.dense[1][j].eq(total), self.borrow[j].eq(rest)]
        for c in range(CHANNELS_IN):
            self._lane(m, c, [cascades[2 * v + c % 2][c // 2] for v in range(3)])
        return m

    def _cascade(self, m: Module, j: int, pair: int) -> Any:
        """a·w + a'·w' of one pair of input channels, as two DSP48E1 with all their registers: 4 cycles."""
        first, second = 2 * pair, 2 * pair + 1
        product = [data(signed(33), name=f"m{j}_{i}") for i in (first, second)]
        sums = [data(signed(PRODUCT_BITS), name=f"p{j}_{i}") for i in (first, second)]
        m.d.sync += [
            product[0].eq(delayed(m, self.a[first], 1) * delayed(m, self.w[j][first], 1)),
            sums[0].eq(product[0]),
            product[1].eq(delayed(m, self.a[second], 2) * delayed(m, self.w[j][second], 2)),
            sums[1].eq(product[1] + sums[0]),
        ]
        return sums[1]

    def _lane(self, m: Module, c: int, products: list[Any]) -> None:
        """Sums of one channel: s₀ = a₀·U + a₁·V, s₁ = a₁·U + a₀·T."""
        u, v, t = products
        halves = []
        for product in (u, v):
            upper = data(signed(17), name=f"lane{c}_upper")
            m.d.sync += upper.eq(product[16:].as_signed() + product[15])
            halves.append(upper)
        lower_u, lower_t = (delayed(m, product[:16], 1).as_signed() for product in (u, t))
        sums = [data(signed(18), name=f"lane{c}_sum{p}") for p in range(PIXELS)]
        m.d.sync += [sums[0].eq(lower_u + halves[1]), sums[1].eq(halves[0] + lower_t)]
        for p in range(PIXELS):
            m.d.comb += self.lanes[p][c].eq(delayed(m, sums[p], 1))


def _tree(m: Module, terms: list[Any], carries: list[Any]) -> tuple[Any, list[Any]]:
    """Sum of the terms, a register a level; each adder takes one of the carries in, those left over are returned."""
    while len(terms) > 1:
        sums = []
        for left, right in zip(terms[::2], terms[1::2], strict=True):
            carry, carries = (carries[0], carries[1:]) if carries else (Const(0, 1), [])
            total = data(signed(max(len(left), len(right)) + 1))
            # {left, 1} + {right, carry}: the carry enters the adder's own chain
            whole = Cat(Const(1, 1), left).as_signed() + Cat(carry, right).as_signed()
            m.d.sync += total.eq(whole >> 1)
            sums.append(total)
        carries = [delayed(m, carry, 1) for carry in carries]
        terms = sums
    return terms[0], carries
