"""A light barrier: filtered, each interruption with its number, its edge's time and belt position, in a queue of 16."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib.fifo import SyncFIFO

from board.overlay.hardware.component import Elaboratable

TIME_BITS = POSITION_BITS = 64
NUMBER_BITS = 32
STAMPS = 16


class Barrier(Elaboratable):
    """`level` is synchronous and 1 while the beam is broken."""

    def __init__(self) -> None:
        self.level, self.time = Signal(), Signal(TIME_BITS)
        self.position = Signal(signed(POSITION_BITS))
        self.filter_cycles = Signal(31)
        self.drop = Signal()
        self.broken = Signal()  # the level after the filter
        self.count, self.lost, self.loses = Signal(NUMBER_BITS), Signal(16), Signal()
        self.stamp, self.sequence = Signal(TIME_BITS), Signal(NUMBER_BITS)
        self.place = Signal(signed(POSITION_BITS))  # of the belt at the time of the stamp
        self.stamps = Signal(range(STAMPS + 1))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        steady = Signal(31)
        since = Signal(TIME_BITS)
        place = Signal(signed(POSITION_BITS))
        stamps: Any = SyncFIFO(width=TIME_BITS + NUMBER_BITS + POSITION_BITS, depth=STAMPS)
        m.submodules.stamps = stamps
        comes: Any = Signal()
        m.d.comb += [
            # the stamp is the time of the edge, not of the end of the filter
            stamps.w_data.eq(Cat(since, self.count, place)),
            stamps.w_en.eq(comes),
            stamps.r_en.eq(self.drop),
            Cat(self.stamp, self.sequence, self.place).eq(stamps.r_data),
            self.stamps.eq(stamps.level),
            self.loses.eq(comes & ~stamps.w_rdy),
        ]
        with m.If(self.level == self.broken):
            m.d.sync += [steady.eq(0), since.eq(self.time), place.eq(self.position)]
        with m.Else():
            m.d.sync += steady.eq(steady + 1)
            with m.If(steady >= self.filter_cycles):
                m.d.sync += [self.broken.eq(self.level), steady.eq(0), since.eq(self.time), place.eq(self.position)]
                m.d.comb += comes.eq(self.level)
        # a lost one has its number too: it is a gap in what is read
        m.d.sync += [self.count.eq(self.count + comes), self.lost.eq(self.lost + self.loses)]
        return m
