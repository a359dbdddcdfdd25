"""The overlay, simulated to the cycle, beside the engines that a user would pick instead: `beltsight bench overlay`.

The whole design runs in Verilator with the memory port of `MemoryPort`, at the bitstream's clock; the program lies in
memory already, the image is read and the map is written. Every map must equal the integer network's. A layer's cycles
are read off the counter of the array's steps while the frame runs, so that utilisation is measured, not predicted.

What stands beside it: ONNX Runtime measured on this machine, one thread, and the board's ARM engine as an estimate, for
which nothing has run on a board: products over the rate of one Cortex-A9 at 650 MHz in ONNX Runtime int8, from counted
instructions (qemu-user) times cycles an instruction calibrated on ncnn's published table for the Zynq-7020. And what
FINN+ estimates, where it is installed (host/compiler/finn_estimate.py).
"""

from __future__ import annotations

import argparse
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from board.engines.fpga_sim import find_library
from board.engines.onnx_runtime import session_options
from board.overlay.errors import Fault, OverlayError
from board.overlay.isa import BEAT_BYTES, PIXELS, Compute
from board.overlay.program import pack_image, unpack_output
from board.overlay.simulation.simulator import MemoryPort, Run, Simulator
from board.preprocess import as_input
from host.compiler.compilation import Compiled, compile_net
from host.compiler.finn_estimate import INSTALL, Estimate, estimate, is_installed
from host.compiler.footprints import steps_of
from host.compiler.reader import load_qdq
from host.compiler.table import Row, dense_utilisation, make_rows, write_rows
from host.compiler.timing import CLOCK_HZ, predict
from host.export.untrained import make_untrained
from host.integers.arithmetic import IMAGE, IntegerNet, costs, run
from host.integers.qdq import write_qdq
from host.learning.network import Widths
from protocol.errors import run_main
from protocol.manifest import MODEL_ONNX, load_package
from sim.station import ROOT

SMALL_PX, LARGE_PX = (128, 128), (256, 256)
WIDE = Widths((32, 64, 96, 128, 128), 48, 32)  # 149 M products at 128 × 128, 595 M at 256 × 256
LEAST_HZ = {SMALL_PX: 150, LARGE_PX: 40}
LEAST_UTILISATION = 0.70
MOST_ERROR = 0.02  # of the predicted cycles
ARM_MACS_PER_S = (0.33e9, 0.5e9)
SAMPLE_CYCLES = 100  # between two looks at the counters
RUNS = 30  # of ONNX Runtime
SEED = 1


@dataclass(frozen=True)
class Candidate:
    """`image` uint8 (h, w, 3)."""

    name: str
    net: IntegerNet
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Result:
    candidate: Candidate
    counters: dict[str, int]
    predicted: int
    rows: list[Row]  # with measured cycles
    onnx_ms: float
    finn: Estimate | None  # where FINN+ is installed

    @property
    def macs(self) -> int:
        return sum(cost.macs for cost in costs(self.candidate.net))

    @property
    def cycles(self) -> int:
        return self.counters["CYCLES"]

    @property
    def frames_per_s(self) -> float:
        return CLOCK_HZ / self.cycles

    @property
    def overlay_ms(self) -> float:
        return 1e3 / self.frames_per_s

    @property
    def error(self) -> float:
        return self.predicted / self.cycles - 1

    @property
    def ddr_bytes(self) -> int:
        return (self.counters["BEATS_READ"] + self.counters["BEATS_WRITTEN"]) * BEAT_BYTES

    @property
    def arm_ms(self) -> tuple[float, float]:
        """From the slow end of the estimate to the fast one."""
        slow, fast = (1e3 * self.macs / rate for rate in ARM_MACS_PER_S)
        return slow, fast


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight bench overlay", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", action="store_true", help="also where the cycles of each network went")
    options = parser.parse_args()
    with Simulator(find_library(), memory_bytes=1 << 26) as simulator:
        results = []
        for candidate in list_candidates():
            print(f"simulating {candidate.name} …", file=sys.stderr, flush=True)
            results.append(measure(simulator, candidate))
    print(write_results(results))
    if options.layers:
        for result in results:
            print(f"\n{result.candidate.name}, cycles measured\n\n{write_rows(result.rows)}")
    missed = [line for result in results for line in find_missed(result)]
    print("\n" + "\n".join(missed or ["Every goal is met."]))
    return 1 if missed else 0


def list_candidates() -> list[Candidate]:
    shipped = [load_package(path.parent) for path in sorted((ROOT / "models").glob("*/manifest.json"))]
    found = [
        Candidate(package.folder.name, load_qdq(package.path(MODEL_ONNX)), package.load_golden().images[0])
        for package in shipped
    ]
    untrained = (("wide-128", WIDE, SMALL_PX), ("wide-256", WIDE, LARGE_PX))
    rng = np.random.default_rng(SEED)
    for name, widths, input_px in untrained:
        image = rng.integers(0, 256, (*input_px, 3), np.uint8)
        found.append(Candidate(name, make_untrained(widths, input_px), image))
    return found


def measure(simulator: Simulator, candidate: Candidate) -> Result:
    """Raises: OverlayError if the frame fails or its map is not the integer network's."""
    compiled = compile_net(candidate.net)
    done, ends = simulate(simulator, compiled, candidate)
    predicted, rows = predict(compiled.instructions).total, make_rows(compiled, ends)
    finn = estimate(candidate.net) if is_installed() else None
    return Result(candidate, done.counters, predicted, rows, time_onnx(candidate), finn)


def simulate(simulator: Simulator, compiled: Compiled, candidate: Candidate) -> tuple[Run, list[float]]:
    """The finished frame, and the cycle of each computation's last step."""
    program = compiled.program
    model, _, picture, output = simulator.place(program.segment_bytes())
    model[:] = np.frombuffer(program.model, np.uint8)
    picture[:] = np.frombuffer(pack_image(candidate.image), np.uint8)
    simulator.start(0, program.instruction_count)
    cycles, steps = [0], [0]
    while not simulator.wait(SAMPLE_CYCLES):
        cycles.append(simulator.read("CYCLES"))
        steps.append(simulator.read("CYCLES_MAC"))
    done = simulator.finish()
    if done.fault != Fault.NONE:
        raise OverlayError(f"{candidate.name} ends with the fault {done.fault.name}: run the tests of the overlay")
    if not np.array_equal(
        unpack_output(program, output.tobytes())[0], run(candidate.net, as_input(candidate.image)[0])
    ):
        raise OverlayError(f"{candidate.name} gives another map than its integers: run the tests of the overlay")
    cycles.append(done.counters["CYCLES"])
    steps.append(done.counters["CYCLES_MAC"])
    return done, [find_cycle(count, steps, cycles) for count in count_steps(compiled)]


def find_cycle(count: int, steps: list[int], cycles: list[int]) -> float:
    """At which the array took its step number `count`, between the last look before it and the first one after."""
    after = bisect_left(steps, count)
    share = (count - steps[after - 1]) / (steps[after] - steps[after - 1])
    return cycles[after - 1] + share * (cycles[after] - cycles[after - 1])


def count_steps(compiled: Compiled) -> list[int]:
    """What the counter of the array's steps shows at the end of each computation."""
    computes = [item for item in compiled.instructions if isinstance(item, Compute)]
    return list(accumulate(item.rows * -(-item.cols // PIXELS) * steps_of(item) for item in computes))


def time_onnx(candidate: Candidate) -> float:
    """Shortest ms of model.onnx in ONNX Runtime, one thread: what else runs on the machine does not count."""
    model, image = write_qdq(candidate.net).SerializeToString(), as_input(candidate.image)
    session = onnxruntime.InferenceSession(model, session_options(threads=1), providers=["CPUExecutionProvider"])
    took_ms = []
    for _ in range(RUNS):
        started_s = time.perf_counter()
        session.run(None, {IMAGE: image})
        took_ms.append(1e3 * (time.perf_counter() - started_s))
    return min(took_ms)


# ---- what is printed


FIGURES: dict[str, Callable[[Result], str]] = {
    "M MAC": lambda r: f"{r.macs / 1e6:.1f}",
    "cycles": lambda r: f"{r.cycles:,}",
    "cycles predicted by the compiler": lambda r: f"{r.predicted:,} ({r.error:+.2%})",
    "frames/s": lambda r: f"{r.frames_per_s:.1f}",
    "array used by dense layers of ≥ 16 inputs": lambda r: f"{dense_utilisation(r.rows):.1%}",
    "KiB from and to DDR a frame": lambda r: f"{r.ddr_bytes / 1024:,.0f}",
    "ONNX Runtime here, 1 thread, best ms": lambda r: f"{r.onnx_ms:.1f}",
    "times as fast as that": lambda r: f"{r.onnx_ms / r.overlay_ms:.2f}",
    "ARM engine estimated, ms": lambda r: "{1:.0f} to {0:.0f}".format(*r.arm_ms),
    "times as fast as that estimate": lambda r: "{1:.0f} to {0:.0f}".format(*(ms / r.overlay_ms for ms in r.arm_ms)),
}


FINN_FIGURES: dict[str, Callable[[Result], str]] = {
    "FINN+ estimate of the convolutions alone, frames/s": lambda r: f"{r.finn.frames_per_s:.1f}" if r.finn else "",
    "its DSP, and BRAM18 of the chip's 280": lambda r: f"{r.finn.dsp}, {r.finn.bram18}" if r.finn else "",
}


def write_results(results: list[Result]) -> str:
    port, figures = MemoryPort(), FIGURES | (FINN_FIGURES if is_installed() else {})
    lines = [
        f"One frame at {CLOCK_HZ // 1_000_000} MHz, simulated: a 64-bit port at {port.efficiency:.0%}, "
        f"{port.latency_cycles} cycles of latency, image in and map out. Every map equals its integers. "
        "wide ones are of the shape of host/learning/network.py, with random weights.",
        "",
        f"| | {' | '.join(result.candidate.name for result in results)} |",
        f"|---|{'---:|' * len(results)}",
        *(f"| {name} | {' | '.join(map(write, results))} |" for name, write in figures.items()),
        *([] if is_installed() else ["", f"FINN+ estimate: not installed: {INSTALL}"]),
    ]
    return "\n".join(lines)


def find_missed(result: Result) -> list[str]:
    """A line for each goal that the network misses."""
    least_hz, utilisation = LEAST_HZ[result.candidate.net.input_px], dense_utilisation(result.rows)
    goals = {
        f"{result.frames_per_s:.1f} frames/s, wanted {least_hz}": result.frames_per_s >= least_hz,
        f"{utilisation:.1%} of the array, wanted {LEAST_UTILISATION:.0%}": utilisation >= LEAST_UTILISATION,
        f"prediction {result.error:+.2%} off, wanted {MOST_ERROR:.0%}": abs(result.error) <= MOST_ERROR,
    }
    return [f"MISSED by {result.candidate.name}: {line}" for line, met in goals.items() if not met]


if __name__ == "__main__":
    sys.exit(run_main(main))
