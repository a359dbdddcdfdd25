"""The program order: that in which the units would begin, had their queues no end.

Fetch hands instructions out in program order and stops at a full queue, so that a unit is at most eight instructions
ahead of another one in that order. Layers whose weights take longer to load than to use need more: their loads are
handed out while the layers before are computed, as early as the weight memory has room.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from board.overlay.isa import Instruction, Unit
from board.overlay.simulation.simulator import MemoryPort
from host.compiler.durations import measure
from host.compiler.footprints import find_accesses


def find_order(instructions: Sequence[Instruction], sizes: dict[str, int]) -> list[int]:
    """Positions in the new order. Two that touch the same place keep theirs, if one of them writes.

    `sizes`: places of each memory.
    """
    read, written = ({name: np.zeros(size) for name, size in sizes.items()} for _ in range(2))
    free = dict.fromkeys(Unit, 0.0)
    starts = []
    for instruction in instructions:
        unit, accesses = Unit(instruction.UNIT or 0), list(find_accesses(instruction))
        start = free[unit]
        for access in accesses:
            start = max(start, _latest(written[access.memory], access.places))
            if access.write:
                start = max(start, _latest(read[access.memory], access.places))
        free[unit] = start + measure(instruction, MemoryPort()).cycles
        for access in accesses:
            over = (written if access.write else read)[access.memory]
            over[access.places] = np.maximum(over[access.places], free[unit])
        starts.append(start)
    return [int(position) for position in np.argsort(starts, kind="stable")]


def _latest(cycles: NDArray[np.float64], places: NDArray[np.int64]) -> float:
    return float(cycles[places].max()) if places.size else 0.0
