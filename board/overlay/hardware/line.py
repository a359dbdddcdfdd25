"""What the camera cannot wait for Linux with: LEDs, buttons, time stamps of the light barrier, the gate's timer."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered

from board.overlay.hardware.component import Elaboratable

TIME_BITS = 64
STAMPS = 16
PULSES = 8


class LineIO(Elaboratable):
    """All times count cycles since power-up. Pins are asynchronous."""

    def __init__(self) -> None:
        self.barrier_pin, self.gate_pin = Signal(), Signal()
        self.buttons_pin = Signal(4)
        self.time = Signal(TIME_BITS)
        self.filter_cycles, self.invert = Signal(31), Signal()
        self.buttons, self.barrier = Signal(4), Signal()
        self.count, self.lost = Signal(16), Signal(16)
        self.stamp, self.stamps, self.drop = Signal(TIME_BITS), Signal(range(STAMPS + 1)), Signal()
        self.gate_time, self.gate_cycles, self.gate_add = Signal(TIME_BITS), Signal(32), Signal()
        self.gate_queued, self.gate_missed = Signal(range(PULSES + 2)), Signal(16)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.d.sync += self.time.eq(self.time + 1)
        m.submodules.sync_buttons = FFSynchronizer(self.buttons_pin, self.buttons)
        self._watch_barrier(m)
        self._drive_gate(m)
        return m

    def _watch_barrier(self, m: Module) -> None:
        pin, level, steady, since = Signal(), Signal(), Signal(31), Signal(TIME_BITS)
        m.submodules.sync_barrier = FFSynchronizer(self.barrier_pin, pin)
        m.submodules.stamps = stamps = SyncFIFO(width=TIME_BITS, depth=STAMPS)
        m.d.comb += level.eq(pin ^ self.invert)
        m.d.comb += [stamps.w_data.eq(since), self.stamp.eq(stamps.r_data), self.stamps.eq(stamps.level)]
        m.d.comb += stamps.r_en.eq(self.drop)
        with m.If(level == self.barrier):
            m.d.sync += [steady.eq(0), since.eq(self.time)]
        with m.Else():
            m.d.sync += steady.eq(steady + 1)
            with m.If(steady >= self.filter_cycles):
                # the stamp is the time of the edge, not of the end of the filter
                m.d.sync += [self.barrier.eq(level), steady.eq(0)]
                m.d.comb += stamps.w_en.eq(level)
                with m.If(level):
                    m.d.sync += self.count.eq(self.count + 1)
                    with m.If(~stamps.w_rdy):
                        m.d.sync += self.lost.eq(self.lost + 1)

    def _drive_gate(self, m: Module) -> None:
        m.submodules.pulses = pulses = SyncFIFOBuffered(width=TIME_BITS + 32, depth=PULSES)
        left = Signal(32)
        start, cycles = pulses.r_data[:TIME_BITS], pulses.r_data[TIME_BITS:]
        m.d.comb += [
            pulses.w_data.eq(Cat(self.gate_time, self.gate_cycles)),
            pulses.w_en.eq(self.gate_add),
            self.gate_queued.eq(pulses.level),
            self.gate_pin.eq(left != 0),
        ]
        missed: Any = self.gate_add & ~pulses.w_rdy
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(pulses.r_rdy & (self.time >= start)):
            m.d.comb += pulses.r_en.eq(1)
            with m.If(self.time == start):
                m.d.sync += left.eq(cycles)
        # a pulse that comes too late would hit the next part: it is only counted
        late = pulses.r_en & (self.time != start)
        m.d.sync += self.gate_missed.eq(self.gate_missed + missed + late)
