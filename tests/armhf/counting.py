"""Instructions that a Python program executes on the emulated Cortex-A9, counted by a plugin of qemu's (count.c)."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import InputError
from sim.station import ROOT
from tests.armhf import userland

CLOCK_HZ = 650e6
# Cycles for each instruction, and for each NEON instruction alone: ESTIMATE.md, "Calibration".
CYCLES = {"int8": (2.9, 4.0), "float32": (5.1, 6.7), "scalar": (2.0, 0.0)}
RUN_WITHIN_S = 900
_NUMBERS = re.compile(r"instructions (\d+) vector (\d+) vector_memory (\d+)")
_OPENS = re.compile(r"^opens (\d+) (\d+) (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Count:
    instructions: int
    vector: int  # NEON's, with its loads and stores

    def __add__(self, other: Count) -> Count:
        return Count(self.instructions + other.instructions, self.vector + other.vector)

    def __sub__(self, other: Count) -> Count:
        return Count(self.instructions - other.instructions, self.vector - other.vector)

    def __floordiv__(self, frames: int) -> Count:
        return Count(self.instructions // frames, self.vector // frames)


@dataclass(frozen=True)
class Opening:
    """A file that the program opened, or found missing."""

    before: Count
    path: str  # as the program named it


@dataclass(frozen=True)
class Run:
    count: Count
    openings: tuple[Opening, ...]
    output: str  # of the program, with the plugin's lines among it


def count_program(*arguments: str, before: tuple[str, ...] = ()) -> Run:
    """Run Python in the userland to its end. `before`: a command on this machine that runs the emulator.

    Raises: InputError if the program fails.
    """
    plugin = ("-plugin", f"{build_plugin()},opens={userland.GUEST_BASE:#x}")
    # What `before` has loaded into the emulator is nothing for the program, which is ARM's.
    emulator = (userland.EMULATOR_WITH_PLUGINS, *plugin, "-U", "LD_PRELOAD")
    command = [*before, *userland.python(*arguments, emulator=emulator)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=RUN_WITHIN_S, check=False
    )
    output = done.stdout.decode(errors="replace")
    numbers = _NUMBERS.search(output)
    if done.returncode or not numbers:
        words = [line for line in output.strip().splitlines() if not line.startswith("opens ")][-1:]
        raise InputError(f"{arguments[0]} does not run on the emulated processor: {words}")
    found = tuple(Opening(Count(int(a), int(v)), path) for a, v, path in _OPENS.findall(output))
    return Run(Count(int(numbers[1]), int(numbers[2]) + int(numbers[3])), found, output)


def build_plugin() -> Path:
    """The counter, compiled for this machine."""
    source, target = Path(__file__).with_name("count.c"), userland.FOLDER / "count.so"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", str(source)]
        subprocess.run([*command, "-o", str(target)], check=True)
    return target
