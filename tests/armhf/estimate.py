"""How long a model takes on the board's Cortex-A9, estimated from counted instructions. ESTIMATE.md says how, how well.

scripts/estimate-a9 models/bottle-128 [--runtime kernels onnxruntime opencv]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import InputError, run_main
from protocol.manifest import load_package
from sim.station import ROOT
from tests.armhf import userland

CLOCK_HZ = 650e6
# Cycles for each instruction, and for each NEON instruction alone: ESTIMATE.md, "Calibration".
CYCLES = {"int8": (2.9, 4.0), "float32": (5.1, 6.7), "scalar": (2.0, 0.0)}
# How far off the estimate may be, as a factor either way.
UNCERTAINTY = 1.5
ARITHMETIC = {"kernels": "int8", "onnxruntime": "float32", "opencv": "scalar"}  # OpenCV 4.6 has no NEON here
RUN_WITHIN_S = 900
FRAMES = Path("tests/armhf/guest/frames.py")


@dataclass(frozen=True)
class Count:
    instructions: int
    vector: int  # NEON's, with its loads and stores

    def __sub__(self, other: Count) -> Count:
        return Count(self.instructions - other.instructions, self.vector - other.vector)

    def __floordiv__(self, frames: int) -> Count:
        return Count(self.instructions // frames, self.vector // frames)


@dataclass(frozen=True)
class Estimate:
    runtime: str
    macs: float
    frame: Count
    load: Count

    @property
    def frame_ms(self) -> float:
        """The higher of the two ways to count."""
        each, each_vector = CYCLES[ARITHMETIC[self.runtime]]
        return max(self.frame.instructions * each, self.frame.vector * each_vector) / CLOCK_HZ * 1e3

    @property
    def load_s(self) -> float:
        return self.load.instructions * CYCLES["scalar"][0] / CLOCK_HZ


def estimate(folder: Path, runtime: str) -> Estimate:
    """Raises: InputError if the model does not run, or not to the golden map."""
    macs = load_package(folder).manifest.cost["macs"]
    plugin = build_plugin()
    nothing, one, three = (count(plugin, folder, runtime, frames) for frames in (-1, 1, 3))
    frame = (three - one) // 2
    return Estimate(runtime, macs, frame, one - nothing - frame)


def count(plugin: Path, folder: Path, runtime: str, frames: int) -> Count:
    emulator = (userland.EMULATOR_WITH_PLUGINS, "-plugin", str(plugin))
    command = userland.python(str(FRAMES), str(folder.resolve()), runtime, str(frames), emulator=emulator)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_WITHIN_S, check=False)
    numbers = re.search(r"instructions (\d+) vector (\d+) vector_memory (\d+)", done.stdout + done.stderr)
    if done.returncode or not numbers:
        words = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise InputError(f"{folder} does not run on the emulated processor: {words}")
    return Count(int(numbers[1]), int(numbers[2]) + int(numbers[3]))


def build_plugin() -> Path:
    """The counter, compiled for this machine."""
    source, target = Path(__file__).with_name("count.c"), userland.FOLDER / "count.so"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", str(source)]
        subprocess.run([*command, "-o", str(target)], check=True)
    return target


def write_table(estimates: list[Estimate]) -> str:
    """Markdown."""
    lines = [
        "| engine on one Cortex-A9 at 650 MHz, estimated | ms a frame | GMAC/s | load | M instructions a frame |",
        "|---|---|---|---|---|",
    ]
    for one in estimates:
        low, high = one.frame_ms / UNCERTAINTY, one.frame_ms * UNCERTAINTY
        speed = one.macs / one.frame_ms / 1e6
        count = f"{one.frame.instructions / 1e6:.1f}, {one.frame.vector / 1e6:.1f} of them NEON"
        time = f"{one.frame_ms:.0f} ({low:.0f} to {high:.0f})"
        lines.append(f"| {one.runtime} | {time} | {speed:.2f} | {one.load_s:.1f} s | {count} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/estimate-a9", description="Time of a model on the board's ARM cores."
    )
    parser.add_argument("model", type=Path, help="a model's folder, e.g. models/bottle-128")
    parser.add_argument(
        "--runtime", nargs="+", choices=tuple(ARITHMETIC), default=["kernels"], help="(default: kernels)"
    )
    options = parser.parse_args()
    userland.build()
    print(write_table([estimate(options.model, runtime) for runtime in options.runtime]))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
