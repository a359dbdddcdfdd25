"""The sums that stay in their registers: 16 lanes × 2 pixels of 32 bits, started from the bias."""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed

from board.overlay.hardware.component import SPREAD_CYCLES, Elaboratable, data, delayed, spread
from board.overlay.isa import CHANNELS_IN, CHANNELS_OUT, PIXELS

SUMS = CHANNELS_IN * PIXELS


class Sums(Elaboratable):
    """Takes a step's sums AHEAD cycles after `valid`; after the `last` of a pair gives pixel 0's totals, a cycle later
    pixel 1's. The mode is that of an instruction: SETTLE cycles before its first `valid`.

    A pair has at least two cycles, so that both leave before the next pair is ready.
    """

    AHEAD = SPREAD_CYCLES - 1
    SETTLE = 1

    def __init__(self) -> None:
        self.lane_mode = Signal()
        self.max_mode = Signal()
        self.valid = Signal()
        self.first = Signal()
        self.last = Signal()
        self.bias = [Signal(signed(32), name=f"bias{lane}") for lane in range(CHANNELS_IN)]
        self.dense = [[Signal(signed(20), name=f"dense{p}_{j}") for j in range(CHANNELS_OUT)] for p in range(PIXELS)]
        self.borrow = [Signal(name=f"borrow{j}") for j in range(CHANNELS_OUT)]
        self.lanes = [[Signal(signed(18), name=f"lane{p}_{c}") for c in range(CHANNELS_IN)] for p in range(PIXELS)]
        self.total_valid = Signal()
        self.total = [Signal(signed(32), name=f"total{lane}") for lane in range(CHANNELS_IN)]

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        ends = self.valid & self.last
        # a register for the pins of each sum: one for all would have a thousand
        orders = _Orders(
            spread(m, self.lane_mode, SUMS),
            spread(m, ~self.first & ~self.max_mode, SUMS),
            spread(m, self.first & ~self.max_mode, SUMS),
            delayed(m, self.valid & (self.first | ~self.max_mode), SPREAD_CYCLES),
            delayed(m, self.valid & ~self.first & self.max_mode, SPREAD_CYCLES),
        )
        done = spread(m, delayed(m, ends, 1), CHANNELS_IN)
        one = delayed(m, ends, 1 + SPREAD_CYCLES)
        m.d.comb += self.total_valid.eq(one | delayed(m, one, 1))
        for lane in range(CHANNELS_IN):
            sums = [self._sum(m, lane, p, orders) for p in range(PIXELS)]
            held = data(signed(32), name=f"held{lane}")
            m.d.sync += held.eq(sums[1])
            m.d.comb += self.total[lane].eq(Mux(done[lane], sums[0], held))
        return m

    def _sum(self, m: Module, lane: int, p: int, orders: _Orders) -> Signal:
        number = PIXELS * lane + p
        total: Signal = data(signed(32), name=f"sum{p}_{lane}")
        value, carry = data(signed(20), name=f"value{p}_{lane}"), data(name=f"carry{p}_{lane}")
        if lane < CHANNELS_OUT:
            in_lanes = orders.in_lanes[number]
            m.d.sync += value.eq(Mux(in_lanes, self.lanes[p][lane], self.dense[p][lane]))
            m.d.sync += carry.eq(~in_lanes & self.borrow[lane] if p == 1 else 0)
        else:
            m.d.sync += value.eq(self.lanes[p][lane])
        goes_on, begins = orders.goes_on[number], orders.begins[number]
        # neither in MAX mode, where 0 + value is what is taken
        before = (total & goes_on.replicate(32)) | (self.bias[lane] & begins.replicate(32))
        with m.If(orders.adds | (orders.compares & (value > total))):
            # {value, carry} + {before, 1}: the carry enters the adder's own chain
            m.d.sync += total.eq((Cat(carry, value).as_signed() + Cat(Const(1, 1), before).as_signed()) >> 1)
        return total


class _Orders(NamedTuple):
    """What is done with a value, in the cycle of its register; lists have one for each sum."""

    in_lanes: list[Any]  # a cycle earlier
    goes_on: list[Any]
    begins: list[Any]
    adds: Any
    compares: Any
