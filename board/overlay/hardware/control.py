"""A run of the engine from `start` to `done` or a fault, and what is cleared behind it.

Whatever ends a run, a finished program, a fault or a reset, ends it in the same way: no new burst is asked for, those
under way are finished, and then everything but the memories' contents is as after power-up.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal

from board.overlay.errors import Fault
from board.overlay.hardware.component import Elaboratable, data
from board.overlay.registers import COUNTERS

CLEAR_CYCLES = 24  # longer than the pipelines, through which no reset reaches
SETTLED_CYCLES = 8  # after which the end of `clear` is seen everywhere


class Control(Elaboratable):
    def __init__(self) -> None:
        self.start = Signal()
        self.reset = Signal()
        self.ended = Signal()  # in: the program, and every unit
        self.at_rest = Signal()  # in: no burst is under way
        self.found = Signal(Fault)  # in: what is wrong in this cycle
        self.dispatched = Signal(20)  # in: instructions
        self.events = Signal(len(COUNTERS) - 1)  # in: what is counted beside the cycles
        self.begin = Signal()
        self.busy = Signal()
        self.stop = Signal()
        self.clear = Signal(init=1)
        self.done, self.failed = Signal(), Signal()
        self.fault, self.fault_count = Signal(Fault), data(20)
        self.counters = {name: data(32, name=name.lower()) for name in COUNTERS}

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        good, cycle = Signal(), Signal(range(CLEAR_CYCLES + SETTLED_CYCLES))
        m.d.sync += self.clear.eq(0)
        with m.FSM(init="CLEAR") as states:
            with m.State("IDLE"), m.If(self.start):
                m.d.comb += self.begin.eq(1)
                m.d.sync += [self.fault.eq(Fault.NONE), *(count.eq(0) for count in self.counters.values())]
                m.next = "RUN"
            with m.State("RUN"):
                self._count(m)
                with m.If(self.reset):
                    m.next = "STOP"
                with m.Elif(self.found != Fault.NONE):
                    m.d.sync += [self.fault.eq(self.found), self.fault_count.eq(self.dispatched)]
                    m.next = "STOP"
                with m.Elif(self.ended):
                    m.d.sync += good.eq(1)
                    m.next = "STOP"
            with m.State("STOP"):
                m.d.sync += cycle.eq(0)
                with m.If(self.at_rest):
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.sync += [self.clear.eq(cycle < CLEAR_CYCLES), cycle.eq(cycle + 1)]
                with m.If(cycle == CLEAR_CYCLES + SETTLED_CYCLES - 1):
                    m.next = "END"
            with m.State("END"):
                m.d.comb += [self.done.eq(good), self.failed.eq(self.fault != Fault.NONE)]
                m.d.sync += good.eq(0)
                m.next = "IDLE"
        m.d.comb += self.busy.eq(~states.ongoing("IDLE"))
        m.d.comb += self.stop.eq(~states.ongoing("IDLE") & ~states.ongoing("RUN"))
        return m

    def _count(self, m: Module) -> None:
        events: tuple[Any, ...] = (1, *self.events)
        for count, event in zip(self.counters.values(), events, strict=True):
            with m.If(event):
                m.d.sync += count.eq(count + 1)
