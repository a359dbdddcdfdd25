"""Cycles of a program, predicted: the three units, their queues, their tokens and what they share, without any data.

Work that happens side by side slows each other down a little: loads and stores take ports of the activation memory
from computations, loads take them from stores, and fetch takes beats of the memory port from loads. How much depends on
what runs when, so the program is walked through a few times, each time with the delays that the last one showed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from board.overlay.isa import Compute, Instruction, LoadTile, LoadWeights, StoreTile, Unit
from board.overlay.simulation.simulator import MemoryPort
from host.compiler.durations import BURST_BEATS, Work, measure
from host.compiler.footprints import moved_beats

CLOCK_HZ = 100_000_000
QUEUE_DEPTH = 8
START_CYCLES = 8  # from the start to the request of the first instructions
END_CYCLES = 2
DISPATCH_CYCLES = 7  # least from instruction to instruction
INSTRUCTION_BEATS = isa.INSTRUCTION_BYTES // isa.BEAT_BYTES
BURST_INSTRUCTIONS = BURST_BEATS // INSTRUCTION_BEATS
WALKS = 5  # the total does not move any more

Cycles = NDArray[np.float64]


@dataclass(frozen=True)
class Timing:
    """Cycles from the start at which each instruction begins and is over, and at which fetch asks for its bursts."""

    starts: Cycles
    ends: Cycles
    bursts: Cycles

    @property
    def total(self) -> int:
        """Of the frame."""
        return round(float(self.ends.max())) + END_CYCLES


def predict(instructions: Sequence[Instruction], port: MemoryPort | None = None) -> Timing:
    """Of a program that ends with End, whose program begins at a multiple of 128 bytes."""
    port = port or MemoryPort()
    working = [item for item in instructions if item.UNIT is not None]
    works = [measure(item, port) for item in working]
    alone = np.array([work.cycles for work in works])
    timing = _Walk(port).through(working, alone)
    for _ in range(WALKS - 1):
        timing = _Walk(port).through(working, alone + _find_delays(working, works, timing, port))
    return timing


def ddr_bytes(instructions: Sequence[Instruction]) -> int:
    """Read and written in a frame, instructions included."""
    moved = sum(moved_beats(item) for item in instructions) * isa.BEAT_BYTES
    return moved + len(instructions) * isa.INSTRUCTION_BYTES


@dataclass
class _Walk:
    """Fetch fills the queues in program order and stops at a full one; each unit works its queue in order."""

    port: MemoryPort
    free: dict[Unit, float] = field(default_factory=lambda: dict.fromkeys(Unit, 0.0))
    started: dict[Unit, deque[float]] = field(
        default_factory=lambda: {unit: deque([0.0] * QUEUE_DEPTH, QUEUE_DEPTH) for unit in Unit}
    )
    tokens: dict[tuple[Unit, Unit], deque[float]] = field(default_factory=lambda: defaultdict(deque))
    bursts: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)  # when each instruction left the buffer of fetch
    handed_out: float = 0.0

    def through(self, working: Sequence[Instruction], cycles: Cycles) -> Timing:
        starts, ends = [], []
        for instruction, length in zip(working, cycles.tolist(), strict=True):
            unit = Unit(instruction.UNIT or 0)
            self._fetch(unit)
            waits = [self.tokens[giver, unit].popleft() for giver in Unit if instruction.wait >> giver & 1]
            start = max(self.handed_out, self.free[unit], *waits)
            self.free[unit] = start + length
            self.started[unit].append(start)
            for taker in Unit:
                if instruction.signal >> taker & 1:
                    self.tokens[unit, taker].append(self.free[unit])
            starts.append(start)
            ends.append(self.free[unit])
        return Timing(np.array(starts), np.array(ends), np.array(self.bursts))

    def _fetch(self, unit: Unit) -> None:
        """The next instruction, to the queue of its unit; the buffer holds two bursts."""
        number, place = len(self.taken), len(self.taken) % BURST_INSTRUCTIONS
        if place == 0:
            before = number - BURST_INSTRUCTIONS - 1  # the last instruction of the burst before the last
            self.bursts.append(self.taken[before] if before >= 0 else START_CYCLES)
        beats = (place + 1) * INSTRUCTION_BEATS
        there = self.bursts[-1] + self.port.latency_cycles + beats / self.port.efficiency
        self.taken.append(max(there, self.handed_out + DISPATCH_CYCLES - 1))
        self.handed_out = max(self.taken[-1] + 1, self.started[unit][0])


def _find_delays(working: Sequence[Instruction], works: list[Work], timing: Timing, port: MemoryPort) -> Cycles:
    shares = np.stack([work.port_b for work in works])
    units = np.array([item.UNIT for item in working])
    loads = np.where(units == Unit.LOAD, shares.sum(axis=1), 0)
    delays = np.zeros(len(works))
    for number, instruction in enumerate(working):
        start, end = timing.starts[number], timing.ends[number]
        together = np.clip(np.minimum(end, timing.ends) - np.maximum(start, timing.starts), 0, None)
        if isinstance(instruction, Compute):  # a step waits for the port of its second pixel
            lost = (shares / (1 - shares)) @ shares[number]  # cycles that a step waits, a cycle of its own
            delays[number] = (together * (units != Unit.COMPUTE)) @ (lost / (1 + lost))
        elif isinstance(instruction, StoreTile):  # it reads when no load writes
            needed = shares[number].sum()
            delays[number] = together @ np.clip(loads + needed - 1, 0, None) / needed
        elif isinstance(instruction, LoadTile | LoadWeights):  # an image is limited by its pixels, not by the port
            bursts = np.count_nonzero((timing.bursts >= start) & (timing.bursts < end))
            delays[number] = bursts * BURST_BEATS / port.efficiency
    return delays
