"""The sums that stay in their registers: 16 lanes × 2 pixels of 32 bits, started from the bias."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed

from board.overlay.hardware.component import Elaboratable
from board.overlay.isa import CHANNELS_IN, CHANNELS_OUT, PIXELS


class Sums(Elaboratable):
    """Takes a step's sums while `valid`; after the `last` of a pair gives pixel 0's totals, a cycle later pixel 1's.

    A pair has at least two cycles, so that both leave before the next pair is ready.
    """

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
        done, second = Signal(), Signal()
        m.d.sync += [done.eq(self.valid & self.last), second.eq(done)]
        m.d.comb += self.total_valid.eq(done | second)
        for lane in range(CHANNELS_IN):
            sums = [self._sum(m, lane, p) for p in range(PIXELS)]
            held = Signal(signed(32), name=f"held{lane}")
            m.d.sync += held.eq(sums[1])
            m.d.comb += self.total[lane].eq(Mux(done, sums[0], held))
        return m

    def _sum(self, m: Module, lane: int, p: int) -> Signal:
        total = Signal(signed(32), name=f"sum{p}_{lane}")
        value, carry = Signal(signed(20), name=f"value{p}_{lane}"), Signal(name=f"carry{p}_{lane}")
        m.d.comb += value.eq(self.lanes[p][lane])
        if lane < CHANNELS_OUT:
            with m.If(~self.lane_mode):
                m.d.comb += value.eq(self.dense[p][lane])
                m.d.comb += carry.eq(self.borrow[lane] if p == 1 else 0)
        before = Mux(self.first, self.bias[lane], total)
        with m.If(self.valid):
            with m.If(~self.max_mode):
                m.d.sync += total.eq((Cat(Const(1, 1), before).as_signed() + Cat(carry, value).as_signed()) >> 1)
            with m.Elif(self.first | (value > total)):
                m.d.sync += total.eq(value)
        return total
