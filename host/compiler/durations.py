"""Cycles of one instruction alone, and how much it uses the ports of the activation memory.

The constants are the lengths of the hardware's pipelines; the simulation of the hardware confirms them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from board.overlay.compute import Addresses, find_addresses
from board.overlay.errors import ProgramError
from board.overlay.isa import Compute, Instruction, LoadImage, StoreTile
from board.overlay.simulation.simulator import MemoryPort
from host.compiler.footprints import ACTIVATIONS, Transfer, find_accesses, moved_beats, row_beats, steps_of

COMPUTE_OVERHEAD = 26  # to fill and drain the pipeline
LOAD_OVERHEAD = 16  # beside the latency of the memory port
STORE_OVERHEAD = 15
LEAST_STEPS = 2  # a pair of pixels has two results to write
RESULT_DELAY = 19  # from a pair's last step to the write of its first result
ROW_CYCLES = 5  # least from one row's request to the next
BURST_BEATS = 16
BURSTS = 4  # under way at once


@dataclass(frozen=True)
class Work:
    """`port_b` float64 (banks,): share of the cycles in which port B of each bank is used or wanted."""

    cycles: float  # from taking the instruction to taking the next
    port_b: NDArray[np.float64]


def measure(instruction: Instruction, port: MemoryPort) -> Work:
    if isinstance(instruction, Compute):
        addresses = find_addresses(instruction)
        busy = compute_steps(instruction) + count_conflicts(instruction, addresses) + COMPUTE_OVERHEAD
        second = addresses.read[:, 1 :: isa.PIXELS][addresses.exists[:, 1 :: isa.PIXELS]]
        return Work(busy, _count_banks(second) / busy)
    if not isinstance(instruction, Transfer):
        raise ProgramError(f"{type(instruction).__name__} belongs to no unit: compile again")
    cycles = _duration(instruction, port)
    used = [access.places for access in find_accesses(instruction) if access.memory == ACTIVATIONS]
    return Work(cycles, sum((_count_banks(words) for words in used), np.zeros(isa.BANKS)) / cycles)


def _duration(transfer: Transfer, port: MemoryPort) -> float:
    if isinstance(transfer, StoreTile):
        first_burst = min(BURST_BEATS, row_beats(transfer))  # it begins when all its beats are there
        return _move(transfer, port) + first_burst + STORE_OVERHEAD
    if isinstance(transfer, LoadImage):
        fold = transfer.rows * _fold_row(transfer) - max(0, transfer.lead) + port.latency_cycles
        return max(fold, _move(transfer, port)) + LOAD_OVERHEAD
    return _move(transfer, port) + LOAD_OVERHEAD


def compute_steps(compute: Compute) -> int:
    """Cycles in which the array takes a step, or waits for the writing of a pair's two results."""
    pairs = compute.rows * -(-compute.cols // isa.PIXELS)
    return pairs * max(steps_of(compute), LEAST_STEPS)


def count_conflicts(compute: Compute, addresses: Addresses) -> int:
    """Steps that wait because a result is written into the bank from which they read their first pixel."""
    read = _banks_of_steps(addresses)
    written = _banks_of_results(compute, addresses)
    if not np.isin(written, read).any():
        return 0
    steps, banks = read.shape[1], read.ravel().tolist()
    waited: list[int] = []  # the steps, in order
    before = 0  # waits before the pair's last step
    for pair, results in enumerate(written.tolist()):
        last = (pair + 1) * steps - 1
        while before < len(waited) and waited[before] <= last:
            before += 1
        for pixel, bank in enumerate(results):
            meets = last + before + RESULT_DELAY + pixel - len(waited)
            if meets < len(banks) and banks[meets] == bank:
                waited.append(meets)
    return len(waited)


def _banks_of_steps(addresses: Addresses) -> NDArray[np.int64]:
    """Bank (pairs, cycles) of each step's first pixel, -1 where it reads none."""
    banks = np.where(addresses.exists, addresses.read // isa.BANK_WORDS, -1)[:, 0 :: isa.PIXELS]
    pairs = banks.reshape(-1, addresses.steps)
    return np.pad(pairs, ((0, 0), (0, max(0, LEAST_STEPS - addresses.steps))), constant_values=-1)


def _banks_of_results(compute: Compute, addresses: Addresses) -> NDArray[np.int64]:
    """Bank (pairs, 2) of each result, -2 where none is written."""
    banks = addresses.written[:, :, 0] // (isa.WORD_BYTES // isa.QUAD_BYTES) // isa.BANK_WORDS
    odd = compute.cols % isa.PIXELS
    return np.pad(banks, ((0, 0), (0, odd)), constant_values=-2).reshape(-1, isa.PIXELS)


def _count_banks(words: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(words.ravel() // isa.BANK_WORDS, minlength=isa.BANKS)


def _fold_row(load: LoadImage) -> int:
    """A pixel a cycle, from the padding before the row to the later of its end and the last word's."""
    last = (load.words - 1) * load.stride - load.lead + isa.IMAGE_TAPS
    return max(load.cols, last) + max(0, load.lead) + 1


def _move(transfer: Transfer, port: MemoryPort) -> float:
    """Over the memory port: as many beats a cycle as it has, or as many rows and bursts as may be under way."""
    beats, row = moved_beats(transfer), row_beats(transfer)
    rows = beats // row
    bursts = rows * -(-row // BURST_BEATS)
    burst_cycles = beats / bursts / port.efficiency
    rounds = -(-bursts // BURSTS) - 1
    waiting = rounds * (port.latency_cycles + burst_cycles + 1) + (bursts - rounds * BURSTS) * burst_cycles
    return max(beats / port.efficiency, waiting, rows * ROW_CYCLES) + port.latency_cycles
