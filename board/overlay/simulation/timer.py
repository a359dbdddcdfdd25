"""The line's timer alone, compiled by Verilator: small enough to keep up with a slow clock in real time."""

from __future__ import annotations

import ctypes
import threading
import time
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import Module, Mux

from board.overlay.errors import OverlayError
from board.overlay.fabric import Buffer
from board.overlay.hardware.axi_lite import AxiLite
from board.overlay.hardware.component import Elaboratable
from board.overlay.hardware.line import LineIO
from board.overlay.hardware.overlay import AXI_LITE
from board.overlay.registers import ID_VALUE, OFFSETS
from board.overlay.simulation.simulator import HERE, build_library
from protocol.errors import EngineError

NAME = "beltsight_timer"
CLOCK_HZ = 100_000.0  # of the timer in real time; the board's has 100 MHz
MOST_CYCLES = 5_000_000  # that a look at the timer may have to catch up: longer, and nobody looks


class TimerAlone(Elaboratable):
    """The line's registers behind a slave of their own, for the simulation."""

    def __init__(self) -> None:
        self.axi_lite, self.line = AxiLite(), LineIO()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.axi_lite, m.submodules.line = bus, line = self.axi_lite, self.line
        for name in ("write", "write_address", "write_data", "read", "read_address"):
            m.d.comb += getattr(line, name).eq(getattr(bus, name))
        is_identity = bus.read_address == OFFSETS["ID"]
        m.d.comb += bus.read_data.eq(Mux(is_identity, ID_VALUE, line.read_data))
        return m


def emit_timer() -> str:
    alone = TimerAlone()
    signals = {f"s_axi_{name}": getattr(alone.axi_lite, name) for name in AXI_LITE}
    signals |= {"leds": alone.line.leds, "buttons": alone.line.buttons_pin}
    signals |= {"barrier": alone.line.barrier_pin, "passage": alone.line.passage_pin, "gate": alone.line.gate_pin}
    signals |= {"encoder": alone.line.encoder_pins}
    ports = {name: (signal, None) for name, signal in signals.items()}
    text: str = verilog.convert(alone, name=NAME, ports=ports, strip_internal_attrs=True)
    return text


def build_timer(folder: Path) -> Path:
    """Raises: OverlayError."""
    return build_library(emit_timer(), folder, NAME, HERE / "timer.cpp")


class TimerSimulator:
    """Registers and pins, cycle by cycle; closes as a context manager."""

    def __init__(self, library: Path, garbage: int = 1) -> None:
        self._library = _open_library(library)
        self._handle = ctypes.c_void_p(self._library.timer_open(garbage))

    def __enter__(self) -> TimerSimulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._handle:
            self._library.timer_close(self._handle)
            self._handle = ctypes.c_void_p()

    def reset(self, cycles: int = 1) -> None:
        self._library.timer_reset(self._handle, cycles)

    def write(self, name: str, value: int) -> None:
        self._library.timer_write(self._handle, OFFSETS[name], value)

    def read(self, name: str) -> int:
        return int(self._library.timer_read(self._handle, OFFSETS[name]))

    def run(self, cycles: int) -> None:
        self._library.timer_run(self._handle, cycles)

    def set_pins(self, *, barrier: bool = False, passage: bool = False, buttons: int = 0) -> None:
        self._library.timer_set_pins(self._handle, int(barrier), int(passage), buttons)

    def move_belt(self, counts: int, cycles_each: int) -> None:
        """Edges of the encoder, A before B while the belt goes forward, so many cycles apart."""
        self._library.timer_move_belt(self._handle, counts, cycles_each)

    def pins(self) -> tuple[bool, int]:
        """(gate, LEDs)"""
        pins = int(self._library.timer_get_pins(self._handle))
        return bool(pins >> 4), pins & 15

    def cycle(self) -> int:
        return int(self._library.timer_cycle(self._handle))

    def moves(self) -> list[tuple[int, bool]]:
        """Each change of the gate so far: (cycle since the last reset, open)."""
        count = int(self._library.timer_moves(self._handle))
        found = (self._library.timer_move(self._handle, number) for number in range(count))
        return [(int(move[0]), bool(move[1])) for move in found]

    def check(self) -> None:
        """Raises: OverlayError naming the first broken rule of the slave."""
        error = ctypes.string_at(self._library.timer_error(self._handle)).decode()
        if error:
            raise OverlayError(f"the simulated timer broke AXI: {error}")


class SimulatedTimer:
    """A `Fabric` that has nothing but the timer, and keeps step with the monotonic clock whenever somebody looks."""

    def __init__(self, library: Path, clock_hz: float = CLOCK_HZ) -> None:
        self.clock_hz = clock_hz
        self.simulator = TimerSimulator(library)
        self._lock = threading.Lock()
        self._started_ns = time.monotonic_ns()

    def read(self, register: str) -> int:
        with self._lock:
            self._catch_up()
            return self.simulator.read(register)

    def write(self, register: str, value: int) -> None:
        with self._lock:
            self._catch_up()
            self.simulator.write(register, value)

    def set_pins(self, *, barrier: bool = False, passage: bool = False, buttons: int = 0) -> int:
        """The time at which they changed, on the monotonic clock."""
        with self._lock:
            self._catch_up()
            self.simulator.set_pins(barrier=barrier, passage=passage, buttons=buttons)
            return self._t_ns(self.simulator.cycle())

    def move_belt(self, counts: int, cycles_each: int = 4) -> None:
        """The belt has moved by so many counts; they come one after the other, back where negative."""
        with self._lock:
            self._catch_up()
            self.simulator.move_belt(counts, cycles_each)

    def gate(self) -> bool:
        """Is it open now?"""
        with self._lock:
            self._catch_up()
            return self.simulator.pins()[0]

    def leds(self) -> int:
        with self._lock:
            self._catch_up()
            return self.simulator.pins()[1]

    def moves(self) -> list[tuple[int, bool]]:
        """Each change of the gate so far: (time on the monotonic clock, open)."""
        with self._lock:
            self._catch_up()
            return [(self._t_ns(cycle), is_open) for cycle, is_open in self.simulator.moves()]

    def reload(self) -> None:
        with self._lock:
            self.simulator.reset()
            self._started_ns = time.monotonic_ns()

    def close(self) -> None:
        self.simulator.close()

    def wait(self, timeout_s: float) -> None:
        time.sleep(timeout_s)

    def allocate(self, size_bytes: int) -> Buffer:
        raise EngineError(f"the timer alone has no memory for {size_bytes} bytes: take the engine fpga-sim")

    def free(self, buffer: Buffer) -> None:
        """There is none."""

    def flush(self, buffer: Buffer) -> None:
        """There is none."""

    def invalidate(self, buffer: Buffer) -> None:
        """There is none."""

    def _catch_up(self) -> None:
        due = int((time.monotonic_ns() - self._started_ns) * self.clock_hz / 1e9)
        behind = due - self.simulator.cycle()
        if behind > MOST_CYCLES:
            raise EngineError(f"the simulated timer is {behind} cycles behind its time: choose a slower clock")
        self.simulator.run(max(0, behind))
        try:
            self.simulator.check()
        except OverlayError as error:
            raise EngineError(str(error)) from None

    def _t_ns(self, cycle: int) -> int:
        return self._started_ns + int(cycle * 1e9 / self.clock_hz)


def _open_library(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, number, u32, u64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64
    signatures = {
        "open": ((number,), handle),
        "close": ((handle,), None),
        "reset": ((handle, number), None),
        "write": ((handle, u32, u32), None),
        "read": ((handle, u32), u32),
        "run": ((handle, u64), None),
        "set_pins": ((handle, number, number, number), None),
        "move_belt": ((handle, number, number), None),
        "get_pins": ((handle,), number),
        "cycle": ((handle,), u64),
        "moves": ((handle,), u64),
        "move": ((handle, u64), ctypes.POINTER(u64)),
        "error": ((handle,), handle),
    }
    for name, (arguments, result) in signatures.items():
        function = getattr(library, f"timer_{name}")
        function.argtypes, function.restype = arguments, result
    return library
