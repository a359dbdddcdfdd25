"""What the camera cannot wait for Linux with: LEDs, buttons, time stamps of the light barrier, the gate's timer.

Registers from LINE_BASE on, on a plain bus. All times count cycles since the last reset. Pins are asynchronous.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib.cdc import FFSynchronizer

from board.overlay.hardware.axi_lite import ADDRESS_BITS
from board.overlay.hardware.barrier import TIME_BITS, Barrier
from board.overlay.hardware.component import Elaboratable
from board.overlay.hardware.gate import Gate
from board.overlay.registers import LINE, OFFSETS, timer_version


class LineIO(Elaboratable):
    """The bus is that of `AxiLite`: `write_data` stays for two cycles from `write` on."""

    def __init__(self) -> None:
        self.barrier_pin, self.gate_pin = Signal(), Signal()
        self.buttons_pin, self.leds = Signal(4), Signal(4)
        self.write, self.write_address, self.write_data = Signal(), Signal(ADDRESS_BITS), Signal(32)
        self.read, self.read_address, self.read_data = Signal(), Signal(ADDRESS_BITS), Signal(32)
        self.time = Signal(TIME_BITS)
        self.barrier, self.gate = Barrier(), Gate()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.barrier, m.submodules.gate = barrier, gate = self.barrier, self.gate
        buttons, pin, invert = Signal(4), Signal(), Signal()
        m.submodules.sync_buttons = FFSynchronizer(self.buttons_pin, buttons)
        m.submodules.sync_barrier = FFSynchronizer(self.barrier_pin, pin)
        m.d.sync += self.time.eq(self.time + 1)
        m.d.comb += [
            barrier.level.eq(pin ^ invert),
            barrier.time.eq(self.time),
            gate.time.eq(self.time),
            self.gate_pin.eq(gate.pin),
        ]
        mark, cycles = Signal(32), Signal(32)
        held = Signal(32)  # upper half of the time when the lower one was read
        plain = {
            "LEDS": self.leds,
            "BARRIER_FILTER": Cat(barrier.filter_cycles, invert),
            "GATE_LOW": gate.start[:32],
            "GATE_HIGH": gate.start[32:],
            "GATE_CYCLES": cycles,
            "TIMER_MARK": mark,
            "GATE_LIMIT": gate.limit,
        }
        for name, register in plain.items():
            with m.If(self._written(m, name)):
                m.d.sync += register.eq(self.write_data)
        # subtle: not from the register, a cycle later: a refusal must be there before the next access of the bus
        m.d.comb += [gate.add.eq(self._written(m, "GATE_CYCLES")), gate.cycles.eq(self.write_data)]
        m.d.comb += [barrier.drop.eq(self._written(m, "BARRIER_NEXT")), gate.shut.eq(self._written(m, "GATE_SHUT"))]
        flags = {"BARRIER_LOST": self._flags(m, "BARRIER_LOST", barrier.loses)}
        flags["GATE_REFUSED"] = self._flags(m, "GATE_REFUSED", gate.refused)
        self._reads(
            m,
            {
                **plain,
                **flags,
                "TIME_LOW": self.time[:32],
                "TIME_HIGH": held,
                "BUTTONS": Cat(buttons, barrier.broken),
                "BARRIER_COUNT": Cat(barrier.count[:16], barrier.lost),
                "BARRIER_LOW": barrier.stamp[:32],
                "BARRIER_HIGH": barrier.stamp[32:],
                "BARRIER_NEXT": barrier.stamps,
                "BARRIER_SEQUENCE": barrier.sequence,
                "GATE_STATUS": Cat(gate.queued, Const(0, 8 - len(gate.queued)), gate.pin, Const(0, 7), gate.missed),
                "TIMER_VERSION": Const(timer_version(), 32),
                "GATE_SHUT": Const(0, 32),
            },
        )
        with m.If(self.read & (self.read_address == OFFSETS["TIME_LOW"])):
            m.d.sync += held.eq(self.time[32:])
        return m

    def _written(self, m: Module, name: str) -> Any:
        strobe = Signal(name=f"write_{name.lower()}")
        m.d.sync += strobe.eq(self.write & (self.write_address == OFFSETS[name]))
        return strobe

    def _flags(self, m: Module, name: str, raised: Signal) -> Signal:
        """Bits that stay until 1 is written to them; what comes in that very cycle is kept."""
        flags, cleared = Signal(len(raised), name=name.lower()), Signal(len(raised))
        with m.If(self._written(m, name)):
            m.d.comb += cleared.eq(self.write_data)
        m.d.sync += flags.eq(flags & ~cleared | raised)
        return flags

    def _reads(self, m: Module, values: dict[str, Any]) -> None:
        with m.Switch(self.read_address):
            for name in LINE:
                with m.Case(OFFSETS[name]):
                    m.d.comb += self.read_data.eq(values[name])
