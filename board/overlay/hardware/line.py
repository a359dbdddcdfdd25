"""What the camera cannot wait for Linux with: LEDs, buttons, time stamps of the light barriers, the belt's encoder, the
gate's timer.

Registers from LINE_BASE on, on a plain bus. All times count cycles since the last reset. Pins are asynchronous.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib.cdc import FFSynchronizer

from board.overlay.hardware.axi_lite import ADDRESS_BITS, choose_register
from board.overlay.hardware.barrier import TIME_BITS, Barrier
from board.overlay.hardware.component import Elaboratable
from board.overlay.hardware.encoder import Encoder
from board.overlay.hardware.gate import Gate
from board.overlay.registers import LINE, OFFSETS, timer_version


class LineIO(Elaboratable):
    """The bus is that of `AxiLite`: `write_data` stays for two cycles from `write` on, `read_address` is there a cycle
    before `read`.
    """

    def __init__(self) -> None:
        self.barrier_pin, self.passage_pin, self.gate_pin = Signal(), Signal(), Signal()
        self.encoder_pins = Signal(2)  # A, B
        self.buttons_pin, self.leds = Signal(4), Signal(4)
        self.write, self.write_address, self.write_data = Signal(), Signal(ADDRESS_BITS), Signal(32)
        self.read, self.read_address, self.read_data = Signal(), Signal(ADDRESS_BITS), Signal(32)
        self.time = Signal(TIME_BITS)
        self.barrier, self.passage, self.encoder, self.gate = Barrier(), Barrier(), Encoder(), Gate()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.encoder, m.submodules.gate = self.encoder, self.gate
        m.d.sync += self.time.eq(self.time + 1)
        m.d.comb += self.gate_pin.eq(self.gate.pin)
        buttons = Signal(4)
        m.submodules.sync_buttons = FFSynchronizer(self.buttons_pin, buttons)
        values = {
            **self._plain(m, LEDS=self.leds, TIMER_MARK=Signal(32)),
            **self._barrier(m, "barrier", self.barrier_pin, self.barrier),
            **self._barrier(m, "passage", self.passage_pin, self.passage),
            **self._clocks(m),
            **self._encoder(m),
            **self._gate(m),
            "BUTTONS": Cat(buttons, self.barrier.broken, self.passage.broken),
            "BARRIER_COUNT": Cat(self.barrier.count[:16], self.barrier.lost),
            "TIMER_VERSION": Const(timer_version(), 32),
        }
        chosen = choose_register(m, self.read_address, {OFFSETS[name]: values[name] for name in LINE})
        m.d.comb += self.read_data.eq(chosen)
        return m

    def _barrier(self, m: Module, name: str, pin: Signal, barrier: Barrier) -> dict[str, Any]:
        level, invert, upper = Signal(), Signal(), name.upper()
        m.submodules[name] = barrier
        m.submodules[f"sync_{name}"] = FFSynchronizer(pin, level)
        m.d.comb += [
            barrier.level.eq(level ^ invert),
            barrier.time.eq(self.time),
            barrier.position.eq(self.encoder.position),
            barrier.drop.eq(self._written(m, f"{upper}_NEXT")),
        ]
        return {
            **self._plain(m, **{f"{upper}_FILTER": Cat(barrier.filter_cycles, invert)}),
            f"{upper}_NEXT": barrier.stamps,
            f"{upper}_LOST": self._flags(m, f"{upper}_LOST", barrier.loses),
            f"{upper}_SEQUENCE": barrier.sequence,
            f"{upper}_LOW": barrier.stamp[:32],
            f"{upper}_HIGH": barrier.stamp[32:],
            f"{upper}_POSITION_LOW": barrier.place[:32],
            f"{upper}_POSITION_HIGH": barrier.place[32:],
        }

    def _clocks(self, m: Module) -> dict[str, Any]:
        """Time and position of one and the same moment: that in which the lower half of the time was read."""
        high, position = Signal(32), Signal(64)
        with m.If(self.read & (self.read_address == OFFSETS["TIME_LOW"])):
            m.d.sync += [high.eq(self.time[32:]), position.eq(self.encoder.position)]
        return {
            "TIME_LOW": self.time[:32],
            "TIME_HIGH": high,
            "POSITION_LOW": position[:32],
            "POSITION_HIGH": position[32:],
        }

    def _encoder(self, m: Module) -> dict[str, Any]:
        encoder, gate = self.encoder, self.gate
        m.submodules.sync_encoder = FFSynchronizer(self.encoder_pins, Cat(encoder.a, encoder.b))
        faults = self._flags(m, "ENCODER_FAULT", Cat(encoder.raised, gate.overran))
        m.d.comb += gate.distrusted.eq(gate.by_position & faults.any())
        mode = Cat(encoder.quadrature, encoder.directs, encoder.turned, gate.by_position)
        with m.If(self._written(m, "ENCODER_MODE")):
            m.d.sync += [copy.eq(self.write_data[len(mode) - 1]) for copy in gate.by_positions]
        registers = {"ENCODER_MODE": mode, "ENCODER_FILTER": encoder.filter_cycles}
        registers |= {"ENCODER_SILENCE": encoder.silence, "ENCODER_BACK": encoder.most_back}
        return {**self._plain(m, **registers), "ENCODER_FAULT": faults}

    def _gate(self, m: Module) -> dict[str, Any]:
        gate, cycles = self.gate, Signal(32)
        # subtle: not from the register, a cycle later: a refusal must be there before the next access of the bus
        m.d.comb += [gate.add.eq(self._written(m, "GATE_CYCLES")), gate.cycles.eq(self.write_data)]
        # what was judged by other rules does not outlive them
        shuts = [self._written(m, name) for name in ("GATE_SHUT", "GATE_LIMIT", "ENCODER_MODE")]
        m.d.comb += [gate.shut.eq(Cat(shuts).any()), gate.time.eq(self.time)]
        m.d.comb += gate.position.eq(self.encoder.position)
        registers = {"GATE_LOW": gate.start[:32], "GATE_HIGH": gate.start[32:]}
        registers |= {"GATE_CYCLES": cycles, "GATE_LIMIT": gate.limit}
        status = Cat(gate.queued, Const(0, 8 - len(gate.queued)), gate.pin, Const(0, 7), gate.missed)
        return {
            **self._plain(m, **registers),
            "GATE_STATUS": status,
            "GATE_REFUSED": self._flags(m, "GATE_REFUSED", gate.refused),
            "GATE_SHUT": Const(0, 32),
        }

    def _plain(self, m: Module, **registers: Any) -> dict[str, Any]:
        """Registers that are read as they were written."""
        for name, register in registers.items():
            with m.If(self._written(m, name)):
                m.d.sync += register.eq(self.write_data)
        return registers

    def _written(self, m: Module, name: str) -> Any:
        strobe = Signal(name=f"write_{name.lower()}")
        m.d.sync += strobe.eq(self.write & (self.write_address == OFFSETS[name]))
        return strobe

    def _flags(self, m: Module, name: str, raised: Any) -> Signal:
        """Bits that stay until 1 is written to them; what comes in that very cycle is kept."""
        flags, cleared = Signal(len(raised), name=name.lower()), Signal(len(raised))
        with m.If(self._written(m, name)):
            m.d.comb += cleared.eq(self.write_data)
        m.d.sync += flags.eq(flags & ~cleared | raised)
        return flags
