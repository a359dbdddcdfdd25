"""Cycles of a program, predicted: the three units, their queues, their tokens and the memory port, without any data.

The constants are those of ARCHITECTURE.md; simulation of the hardware is what confirms or corrects them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from board.overlay import isa
from board.overlay.isa import Compute, Instruction, LoadImage, LoadTile, LoadWeights, Mode, StoreTile, Unit
from host.compiler.compilation import Compiled
from host.compiler.footprints import DDR, find_accesses, steps_of
from host.compiler.operations import Operation

CLOCK_HZ = 100_000_000
PORT_BYTES_PER_CYCLE = 6.4  # 80 % of 64 bits
PORT_LATENCY = 30  # from a burst's request to its first beat, or from its last beat to the answer
COMPUTE_OVERHEAD = 30  # to fill and drain the pipeline
LOAD_OVERHEAD = 10
STORE_OVERHEAD = 10
PIXELS_PER_CYCLE = 1  # of LoadImage
LEAST_STEPS = 2  # a pair of pixels has two results to write
QUEUE_DEPTH = 8
FETCH_CYCLES = isa.INSTRUCTION_BYTES / PORT_BYTES_PER_CYCLE


@dataclass(frozen=True)
class Timing:
    """`ends` are the cycles at which each instruction is over."""

    total: int
    ends: tuple[float, ...]
    port_bytes: int


@dataclass(frozen=True)
class Row:
    """An operation's share of the frame: the time from its predecessor's last result to its own."""

    operation: Operation
    instructions: int
    cycles: int
    computing: int  # of them, in which the array is busy
    port_bytes: int  # read and written

    @property
    def utilisation(self) -> float:
        """Share of the 384 products a cycle."""
        return self.operation.macs / (isa.WEIGHT_WORD_BYTES * isa.PIXELS * max(1, self.cycles))


def predict(instructions: Sequence[Instruction]) -> Timing:
    """Each unit works its queue in order; fetch fills the queues in program order and stops at a full one."""
    free = dict.fromkeys(Unit, 0.0)
    started: dict[Unit, deque[float]] = {unit: deque([0.0] * QUEUE_DEPTH, QUEUE_DEPTH) for unit in Unit}
    tokens: dict[tuple[Unit, Unit], deque[float]] = defaultdict(deque)
    fetched, ends, port_bytes = float(PORT_LATENCY), [], 0
    for instruction in instructions:
        unit = instruction.UNIT
        if unit is None:
            break
        fetched = max(fetched + FETCH_CYCLES, started[unit][0])
        waits = [tokens[giver, unit].popleft() for giver in Unit if instruction.wait >> giver & 1]
        start = max(fetched, free[unit], *waits) if waits else max(fetched, free[unit])
        free[unit] = start + duration(instruction)
        started[unit].append(start)
        for taker in Unit:
            if instruction.signal >> taker & 1:
                tokens[unit, taker].append(free[unit])
        ends.append(free[unit])
        port_bytes += moved_bytes(instruction)
    return Timing(round(max(ends)) + PORT_LATENCY, tuple(ends), port_bytes)


def duration(instruction: Instruction) -> float:
    """Cycles of the instruction alone."""
    if isinstance(instruction, Compute):
        return compute_steps(instruction) + conflicts(instruction) + COMPUTE_OVERHEAD
    if isinstance(instruction, StoreTile):
        return moved_bytes(instruction) / PORT_BYTES_PER_CYCLE + PORT_LATENCY + STORE_OVERHEAD
    cycles = moved_bytes(instruction) / PORT_BYTES_PER_CYCLE
    if isinstance(instruction, LoadImage):
        cycles = max(cycles, instruction.rows * instruction.cols / PIXELS_PER_CYCLE)
    return cycles + PORT_LATENCY + LOAD_OVERHEAD


def compute_steps(compute: Compute) -> int:
    pairs = compute.rows * -(-compute.cols // isa.PIXELS)
    return pairs * max(steps_of(compute), LEAST_STEPS)


def conflicts(compute: Compute) -> float:
    """A result written into the bank that is read costs the step its cycle."""
    read = [access.places for access in find_accesses(compute) if access.memory == "activations" and not access.write]
    written = [access.places for access in find_accesses(compute) if access.write]
    banks_read = np.bincount(np.concatenate(read) // isa.BANK_WORDS, minlength=isa.BANKS) > 0
    banks_written = np.bincount(np.concatenate(written) // isa.BANK_WORDS, minlength=isa.BANKS)
    share = banks_written[banks_read].sum() / banks_written.sum()
    if compute.mode == Mode.LANES and steps_of(compute) < LEAST_STEPS:
        return 0.0
    return float(share) * compute.rows * compute.cols / sum(banks_read)


def moved_bytes(instruction: Instruction) -> int:
    """Over the memory port, without the instruction itself."""
    if not isinstance(instruction, LoadTile | LoadImage | LoadWeights | StoreTile):
        return 0
    beats = next(access for access in find_accesses(instruction) if access.memory.startswith(DDR)).places.size
    return int(beats) * isa.BEAT_BYTES


def make_table(compiled: Compiled) -> list[Row]:
    """One row an operation; their cycles sum up to the frame, but for the last store and the interrupt."""
    timing = predict(compiled.instructions)
    rows, before = [], 0.0
    for operation in dict.fromkeys(compiled.owners):
        mine = [number for number, owner in enumerate(compiled.owners) if owner is operation]
        computes = [number for number in mine if isinstance(compiled.instructions[number], Compute)]
        over = timing.ends[computes[-1]]
        busy = sum(compute_steps(item) for n in computes if isinstance(item := compiled.instructions[n], Compute))
        moved = sum(moved_bytes(compiled.instructions[number]) for number in mine)
        rows.append(Row(operation, len(mine), round(over - before), busy, moved))
        before = over
    return rows


def dense_utilisation(rows: list[Row]) -> float:
    """Of the convolutions with at least 16 inputs, all together."""
    dense = [row for row in rows if row.operation.inputs >= isa.CHANNELS_IN]
    cycles = sum(row.cycles for row in dense)
    macs = sum(row.operation.macs for row in dense)
    return macs / (isa.WEIGHT_WORD_BYTES * isa.PIXELS * max(1, cycles))
