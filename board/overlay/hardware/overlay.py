"""The whole overlay: registers, engine and line I/O behind one AXI4-Lite slave and one AXI4 master; its Verilog."""

from __future__ import annotations

import re
import sys
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Cat, ClockDomain, Const, Module, ResetInserter, Signal

from board.overlay import isa
from board.overlay.hardware.axi_lite import READ_SIGNALS, WRITE_SIGNALS, AxiLite, choose_register
from board.overlay.hardware.component import Elaboratable, copied
from board.overlay.hardware.engine import Engine
from board.overlay.hardware.line import LineIO
from board.overlay.hardware.two_port import TEXT, VERILOG
from board.overlay.registers import ID_VALUE, OFFSETS

NAME = "beltsight_overlay"
# of every burst: 8 bytes a beat, rising addresses, bufferable, data
BURST = (("size", 3, 3), ("burst", 2, 1), ("cache", 4, 3), ("prot", 3, 0))
AXI_LITE = (*WRITE_SIGNALS, *READ_SIGNALS)


class Overlay(Elaboratable):
    """`rst` must last for four cycles; eight later, registers may be written, and 40 later a run be started."""

    def __init__(self) -> None:
        self.clock = ClockDomain("sync", reset_less=True)
        self.rst = Signal()
        self.axi_lite = AxiLite()
        self.engine = Engine()
        self.line = LineIO()
        self.irq = Signal()
        self.constants = {f"{c}{name}": Signal(width) for c in ("ar", "aw") for name, width, _ in BURST}

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.domains.sync = self.clock
        # a tree of registers: one wire to all would take most of a cycle
        (trunk,) = copied(m, self.rst, 1)
        parts = {"registers": _Registers(self), "axi_lite": self.axi_lite, "line": self.line}
        *resets, engine_rst = copied(m, trunk, len(parts) + 1)
        for (name, part), rst in zip(parts.items(), resets, strict=True):
            m.submodules[name] = ResetInserter(rst)(part)
        m.submodules.engine = self.engine
        m.d.comb += self.engine.rst.eq(engine_rst)
        for name, _, value in BURST:
            m.d.comb += [self.constants[f"{channel}{name}"].eq(value) for channel in ("ar", "aw")]
        return m

    def ports(self) -> dict[str, tuple[Signal, None]]:
        """Ports of the Verilog module by name, named so that Vivado finds the interfaces by itself."""
        signals = {
            "clk": self.clock.clk,
            "rst": self.rst,
            **{f"s_axi_{name}": getattr(self.axi_lite, name) for name in AXI_LITE},
            **{f"m_axi_{name}": signal for name, signal in vars(self.engine.reader.port).items()},
            **{f"m_axi_{name}": signal for name, signal in vars(self.engine.writer.port).items()},
            **{f"m_axi_{name}": signal for name, signal in self.constants.items()},
            "irq": self.irq,
            "leds": self.line.leds,
            "buttons": self.line.buttons_pin,
            "barrier": self.line.barrier_pin,
            "passage": self.line.passage_pin,
            "encoder": self.line.encoder_pins,
            "gate": self.line.gate_pin,
        }
        return {name: (signal, None) for name, signal in signals.items()}


class _Registers(Elaboratable):
    """The engine's registers, and the line's, which are its own matter."""

    def __init__(self, overlay: Overlay) -> None:
        self.axi_lite, self.engine, self.line, self.irq = overlay.axi_lite, overlay.engine, overlay.line, overlay.irq

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        done, failed, enabled = Signal(), Signal(), Signal()
        m.d.comb += self.irq.eq(enabled & (done | failed))
        self._run(m, done, failed, enabled)
        self._reads(m, done, failed, enabled)
        self._pass_on(m)
        return m

    def _written(self, m: Module, name: str) -> Any:
        strobe = Signal(name=f"write_{name.lower()}")
        bus = self.axi_lite
        # subtle: a cycle late; the bus keeps the data for two
        m.d.sync += strobe.eq(bus.write & (bus.write_address == OFFSETS[name]))
        return strobe

    def _run(self, m: Module, done: Signal, failed: Signal, enabled: Signal) -> None:
        engine, data = self.engine, self.axi_lite.write_data
        with m.If(self._written(m, "CONTROL")):
            m.d.comb += [engine.start.eq(data[0] & ~data[1]), engine.reset.eq(data[1])]
            m.d.sync += enabled.eq(data[2])
        with m.If(self._written(m, "STATUS")):
            m.d.sync += [done.eq(done & ~data[1]), failed.eq(failed & ~data[2])]
        with m.If(engine.start & ~engine.busy):
            m.d.sync += [done.eq(0), failed.eq(0)]
        with m.If(engine.done):
            m.d.sync += done.eq(1)
        with m.If(engine.failed):
            m.d.sync += failed.eq(1)
        beats = {"PROGRAM": engine.program}
        beats |= {f"SEGMENT{i}": engine.segments.base[i] for i in isa.Segment}
        beats |= {f"SIZE{i}": engine.segments.size[i] for i in isa.Segment}
        for name, register in beats.items():
            with m.If(self._written(m, name)):
                m.d.sync += register.eq(data >> 3)
        for name, register in {"INSTRUCTIONS": engine.instructions, "WATCHDOG": engine.watchdog}.items():
            with m.If(self._written(m, name)):
                m.d.sync += register.eq(data)

    def _reads(self, m: Module, done: Signal, failed: Signal, enabled: Signal) -> None:
        engine, bus = self.engine, self.axi_lite
        values: dict[str, Any] = {
            "ID": Const(ID_VALUE, 32),
            "VERSION": Const(isa.version(), 32),
            "CONTROL": enabled << 2,
            "STATUS": Cat(engine.busy, done, failed),
            "ERROR": engine.fault,
            "ERROR_PC": engine.fault_count,
            "PROGRAM": engine.program << 3,
            "INSTRUCTIONS": engine.instructions,
            "WATCHDOG": engine.watchdog,
            **engine.counters,
            **{f"SEGMENT{i}": engine.segments.base[i] << 3 for i in isa.Segment},
            **{f"SIZE{i}": engine.segments.size[i] << 3 for i in isa.Segment},
        }
        value = choose_register(m, bus.read_address, {OFFSETS[name]: value for name, value in values.items()})
        m.d.comb += bus.read_data.eq(value | self.line.read_data)

    def _pass_on(self, m: Module) -> None:
        line, bus = self.line, self.axi_lite
        for name in ("write", "write_address", "write_data", "read", "read_address"):
            m.d.comb += getattr(line, name).eq(getattr(bus, name))


def emit_verilog() -> str:
    """The design as Verilog. What the memories hold after power-up is left open: no program reads it."""
    overlay = Overlay()
    text: str = verilog.convert(overlay, name=NAME, platform=VERILOG, ports=overlay.ports(), strip_internal_attrs=True)
    # subtle: Amaranth writes a line for every word of a memory, two thirds of the file and of the time of its readers
    text = re.sub(r"^ *\S+ ?\[\d+\] = \d+'[dh]0+;\n", "", text, flags=re.MULTILINE)
    # and where on this machine a memory is described, which would make another design of every clone
    return re.sub(r'^ *\(\* src = "[^"]*" \*\)\n', "", text, flags=re.MULTILINE) + TEXT


if __name__ == "__main__":
    sys.stdout.write(emit_verilog())
