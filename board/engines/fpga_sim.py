"""The overlay's own hardware, simulated: exact to the bit and to the cycle, a thousand times slower than the board."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from board.engines.fpga import FpgaEngine, Logic
from board.overlay.errors import OverlayError
from board.overlay.fabric import Buffer
from board.overlay.program import Program
from board.overlay.simulation.design import find_verilog
from board.overlay.simulation.simulator import BASE, Simulator, build_library
from protocol.errors import EngineError
from protocol.strict import require

BUILD = Path(__file__).resolve().parents[2] / "build" / "overlay"
MEMORY_BYTES = 1 << 28
ALIGNMENT_BYTES = 4096
CYCLES_PER_WAIT = 2000  # about 20 ms of simulation


@dataclass(frozen=True)
class FpgaSimSettings:
    deadline_s: float = 60.0  # of a frame; 150 million products take about 3

    def __post_init__(self) -> None:
        require(0 < self.deadline_s <= 3600, "deadline_s", "must be above 0 and at most 3600")


def open_fpga_sim(program: Program, settings: FpgaSimSettings) -> FpgaEngine:
    """Compiles the simulation when the design is new, which takes minutes. Raises: EngineError."""
    return FpgaEngine(Logic(lambda: SimulatedFabric(find_library())), "fpga-sim", program, settings.deadline_s)


class SimulatedFabric:
    """Time passes in it only while somebody waits or reaches for a register."""

    clock_hz = 100e6  # of simulated time

    def __init__(self, library: Path) -> None:
        self._simulator = Simulator(library, MEMORY_BYTES)
        self._used_bytes = 0

    def read(self, register: str) -> int:
        return self._simulator.read(register)

    def write(self, register: str, value: int) -> None:
        self._simulator.write(register, value)

    def allocate(self, size_bytes: int) -> Buffer:
        start = self._used_bytes
        self._used_bytes += -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if self._used_bytes > MEMORY_BYTES:
            raise EngineError(
                f"the model needs more than the {MEMORY_BYTES} bytes of simulated memory: use a smaller one"
            )
        return Buffer(self._simulator.memory[start : start + size_bytes], BASE + start)

    def free(self, buffer: Buffer) -> None:
        """With the simulator."""

    def flush(self, buffer: Buffer) -> None:
        """Simulated memory has no cache."""

    def invalidate(self, buffer: Buffer) -> None:
        """Simulated memory has no cache."""

    def wait(self, timeout_s: float) -> None:  # noqa: ARG002 - the seam's; simulated time passes in cycles
        try:
            self._simulator.wait(CYCLES_PER_WAIT)
            self._simulator.check()
        except OverlayError as error:
            raise EngineError(str(error)) from None

    def reload(self) -> None:
        self._simulator.power_up()

    def close(self) -> None:
        self._simulator.close()


def find_library(folder: Path = BUILD) -> Path:
    """The compiled simulation of the design as it is. Raises: EngineError naming what is not installed."""
    try:
        return build_library(find_verilog(folder), folder)
    except OverlayError as error:
        raise EngineError(str(error)) from None
