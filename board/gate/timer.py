"""The overlay's timer: one clock for light barrier and gate, which no delay of Linux reaches.

It shares the overlay with the engine (`Logic`), which may load it anew at any time: its clock then begins at 0, its
gate is closed, and what was programmed or waited is gone. `look` tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from board.engines.fpga import REBUILD, Logic
from board.overlay.registers import (
    ID_VALUE,
    REFUSED_FULL,
    REFUSED_LONG,
    REFUSED_MOTION,
    REFUSED_OVERLAP,
    REFUSED_PAST,
    timer_version,
)
from protocol.errors import EngineError
from protocol.units import NS_PER_S

MARK = 0x4C49_4E45  # "LINE": still there as long as the overlay is the one that we know
TRIES = 5  # to read both clocks at once: Linux may do something else in between
GOOD_NS = 20_000
MEASURED_S = 0.03  # for how long the two clocks are compared at the start
MOST_DIFFERENCE = 0.01  # between the clock's rate as told and as measured; crystals differ by 0.0001
REASONS = {
    REFUSED_PAST: "too late",
    REFUSED_OVERLAP: "it reaches into the window of the part before",
    REFUSED_LONG: "longer than its limit",
    REFUSED_FULL: "too many parts on the way",
    REFUSED_MOTION: "the encoder's count is not to be believed",
}


@dataclass(frozen=True)
class Moment:
    """The same moment on both clocks."""

    cycles: int
    t_ns: int
    uncertain_ns: int


class LineTimer:
    def __init__(
        self,
        logic: Logic,
        now_ns: Callable[[], int] = time.monotonic_ns,
        wait_s: Callable[[float], None] = time.sleep,
    ) -> None:
        """Loads the overlay where that has not been done. Raises: EngineError."""
        self._logic, self._now_ns, self._wait_s = logic, now_ns, wait_s
        self.lock = logic.bus  # held by whoever needs several accesses on one and the same overlay
        self._fabric = logic.join()
        self.generation = 0
        try:
            self._check_version()
            self._check_clock()
        except EngineError:
            self.close()
            raise

    @property
    def clock_hz(self) -> float:
        return self._fabric.clock_hz

    def read(self, *registers: str) -> tuple[int, ...]:
        """The registers one after another, with nobody in between. Raises: EngineError."""
        with self.lock:
            return tuple(self._fabric.read(register) for register in registers)

    def write(self, **values: int) -> None:
        """Registers and their values, in this order. Raises: EngineError."""
        with self.lock:
            for register, value in values.items():
                self._fabric.write(register, value)

    def look(self) -> int:
        """The generation: another one than before when the overlay was loaded anew. Raises: EngineError."""
        with self.lock:
            if self._fabric.read("TIMER_MARK") != MARK:
                self._fabric.write("TIMER_MARK", MARK)
                self.generation += 1
            return self.generation

    def now(self) -> Moment:
        """Both clocks, read anew each time: how far they drift apart does not matter then. Raises: EngineError."""
        best = self._read_clocks()
        for _ in range(TRIES - 1):
            if best.uncertain_ns <= GOOD_NS:
                break
            best = min(best, self._read_clocks(), key=lambda moment: moment.uncertain_ns)
        return best

    def cycles_at(self, t_ns: int) -> int:
        """The timer's time at a time of our monotonic clock. Raises: EngineError."""
        now = self.now()
        return now.cycles + round((t_ns - now.t_ns) * self.clock_hz / NS_PER_S)

    def ns_at(self, cycles: int) -> int:
        """Our monotonic time at a time of the timer, in the past. Raises: EngineError."""
        now = self.now()
        return now.t_ns - round((now.cycles - cycles) * NS_PER_S / self.clock_hz)

    def counts(self) -> int:
        """The belt's position, in counts of its encoder. Raises: EngineError."""
        return self.place()[0]

    def place(self) -> tuple[int, int]:
        """The same, and when it was there, on our monotonic clock. Raises: EngineError."""
        with self.lock:
            before_ns = self._now_ns()
            self._fabric.read("TIME_LOW")
            after_ns = self._now_ns()
            low, high = self._fabric.read("POSITION_LOW"), self._fabric.read("POSITION_HIGH")
        return signed(high << 32 | low), (before_ns + after_ns) // 2

    def queue_window(self, start: int, cycles: int) -> str:
        """Open from `start` on for so many cycles or counts; with 0, closed from there on. Why not, or nothing.

        Raises: EngineError.
        """
        with self.lock:
            low, high = start & 0xFFFF_FFFF, start >> 32 & 0xFFFF_FFFF
            self.write(GATE_REFUSED=0x1F, GATE_LOW=low, GATE_HIGH=high, GATE_CYCLES=cycles)
            (refused,) = self.read("GATE_REFUSED")
        return ", ".join(text for bit, text in REASONS.items() if refused & bit)

    def close(self) -> None:
        self._logic.leave()

    def _read_clocks(self) -> Moment:
        with self.lock:
            before_ns = self._now_ns()
            low = self._fabric.read("TIME_LOW")
            after_ns = self._now_ns()
            high = self._fabric.read("TIME_HIGH")
        return Moment(high << 32 | low, (before_ns + after_ns) // 2, after_ns - before_ns)

    def _check_version(self) -> None:
        identity, version = self.read("ID", "TIMER_VERSION")
        if identity != ID_VALUE:
            raise EngineError(f"no overlay of Beltsight answers, but {identity:08x}: {REBUILD}")
        if version != timer_version():
            raise EngineError(f"the overlay's timer is {version:08x}, not {timer_version():08x}: {REBUILD}")

    def _check_clock(self) -> None:
        """Raises: EngineError if the clock stands, or runs at another rate than the logic is said to have."""
        first = self.now()
        self._wait_s(MEASURED_S)
        last = self.now()
        doubt_ns = first.uncertain_ns + last.uncertain_ns
        expected = (last.t_ns - first.t_ns) * self.clock_hz / NS_PER_S
        allowed = expected * MOST_DIFFERENCE + doubt_ns * self.clock_hz / NS_PER_S + 2
        if abs(last.cycles - first.cycles - expected) > allowed:
            measured_mhz = (last.cycles - first.cycles) * 1e3 / (last.t_ns - first.t_ns)
            raise EngineError(
                f"the logic's clock has {measured_mhz:.2f} MHz, not {self.clock_hz / 1e6:g}: correct "
                "[engines.fpga] clock_mhz, or load the overlay with its .hwh beside it"
            )


def signed(value: int) -> int:
    """Of 64 bits."""
    return value - (1 << 64) if value >> 63 else value
