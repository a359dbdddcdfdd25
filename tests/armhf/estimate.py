"""How long a model takes on the board's Cortex-A9, estimated from counted instructions. ESTIMATE.md says how, how well.

beltsight estimate models/bottle-128 [--runtime kernels onnxruntime opencv]
beltsight estimate models/bottle-128 --start
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from host.flash.kernels import build_kernels
from protocol.errors import run_main
from protocol.manifest import load_package
from tests.armhf import userland
from tests.armhf.counting import CLOCK_HZ, CYCLES, Count, count_program
from tests.armhf.start import measure_start, write_start_table

# How far off the estimate may be, as a factor either way.
UNCERTAINTY = 1.5
ARITHMETIC = {"kernels": "int8", "onnxruntime": "float32", "opencv": "scalar"}  # OpenCV 4.6 has no NEON here
FRAMES = Path("tests/armhf/guest/frames.py")


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
    nothing, one, three = (count(folder, runtime, frames) for frames in (-1, 1, 3))
    frame = (three - one) // 2
    return Estimate(runtime, macs, frame, one - nothing - frame)


def count(folder: Path, runtime: str, frames: int) -> Count:
    return count_program(str(FRAMES), str(folder.resolve()), runtime, str(frames)).count


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
        prog="beltsight estimate", description="Time of a model, or of the station's start, on the board's ARM cores."
    )
    parser.add_argument("model", type=Path, help="a model's folder, e.g. models/bottle-128")
    parser.add_argument(
        "--runtime", nargs="+", choices=tuple(ARITHMETIC), default=["kernels"], help="(default: kernels)"
    )
    parser.add_argument("--start", action="store_true", help="instead: the station's start, up to its first verdict")
    options = parser.parse_args()
    load_package(options.model)  # what is wrong with it is said before some minutes have gone by
    userland.build()
    build_kernels()
    if options.start:
        with tempfile.TemporaryDirectory() as folder:
            print(write_start_table(measure_start(options.model, Path(folder))))
        return 0
    print(write_table([estimate(options.model, runtime) for runtime in options.runtime]))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
