"""Right shift with round-half-to-even, saturation to int8 and ReLU, 16 lanes, one pixel a cycle."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed

from board.overlay.hardware.component import Elaboratable, copied, data, delayed
from board.overlay.isa import CHANNELS_IN

SLICE_BITS = 11  # of the shifted 33, that have registers of their own for the shift


class Requantizer(Elaboratable):
    """`shift` and `relu` are those of an instruction: SETTLE cycles before its first total."""

    CYCLES = 3
    SETTLE = 1

    def __init__(self) -> None:
        self.relu = Signal()
        self.valid = Signal()
        self.total = [Signal(signed(32), name=f"total{lane}") for lane in range(CHANNELS_IN)]
        self.shift = [Signal(5, name=f"shift{lane}") for lane in range(CHANNELS_IN)]
        self.result_valid = Signal()
        self.result = Signal(8 * CHANNELS_IN)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.d.comb += self.result_valid.eq(delayed(m, self.valid, self.CYCLES))
        relus = copied(m, self.relu, CHANNELS_IN)
        for lane in range(CHANNELS_IN):
            m.d.comb += self.result.word_select(lane, 8).eq(
                self._lane(m, self.total[lane], self.shift[lane], relus[lane])
            )
        return m

    def _lane(self, m: Module, total: Any, shift: Any, relu: Any) -> Any:
        # bit 0 is the half that is shifted out last; `rest` tells whether anything below it was 1
        start = Cat(Const(0, 1), total).as_signed()
        shifts = copied(m, shift, -(-len(start) // SLICE_BITS))
        coarse, coarse_rest = data(signed(33)), data()
        fine, fine_rest = data(signed(33)), data()
        value, rest = _shift(start, Const(0, 1), shifts, (4, 3))
        m.d.sync += [coarse.eq(value), coarse_rest.eq(rest)]
        value, rest = _shift(coarse, coarse_rest, shifts, (2, 1, 0))
        m.d.sync += [fine.eq(value), fine_rest.eq(rest)]

        floor, half = fine[1:].as_signed(), fine[0]
        up = half & (fine_rest | floor[0])
        result = data(signed(8))
        with m.If(relu & (floor < 0)):
            m.d.sync += result.eq(0)
        with m.Elif(floor >= 127):
            m.d.sync += result.eq(127)
        with m.Elif(floor < -128):
            m.d.sync += result.eq(-128)
        with m.Else():
            m.d.sync += result.eq(floor + up)
        return result


def _shift(value: Any, rest: Any, shifts: list[Any], places: tuple[int, ...]) -> tuple[Any, Any]:
    """Each slice of the result by its own copy of the shift."""
    whole = [_shift_all(value, rest, shift, places) for shift in shifts]
    slices = [word[i * SLICE_BITS : (i + 1) * SLICE_BITS] for i, (word, _) in enumerate(whole)]
    return Cat(slices).as_signed(), whole[0][1]


def _shift_all(value: Any, rest: Any, shift: Any, places: tuple[int, ...]) -> tuple[Any, Any]:
    for place in places:
        count = 1 << place
        rest = rest | (shift[place] & value[:count].any())
        value = Mux(shift[place], (value >> count).as_signed(), value.as_signed())
    return value, rest
