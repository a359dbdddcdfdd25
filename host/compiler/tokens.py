"""Tokens between the units, wherever two instructions of different units meet in a memory.

The program is right when executed in program order. Units run side by side, so an instruction waits for the last one
of each other unit that touched what it touches, if one of the two writes, and if nothing it knows of waited for that
already. Along program order the signals and the waits of a pair of units both rise, so the n-th wait takes the n-th
signal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from board.overlay.isa import Instruction, Unit
from host.compiler.footprints import Access, find_accesses

NEVER = -1
# An instruction this far back among those of its unit is over when fetch gets here, since a queue holds 8. Waiting for
# it instead of for an older one costs nothing and keeps few tokens under way: the counters end at 63.
FAR_BACK = 10

Clock = dict[Unit, int]  # position of the last instruction of each unit that is known to be over


@dataclass
class _Touched:
    """Position of the last instruction of each unit that read or wrote a place, int64 (units, places)."""

    read: NDArray[np.int64]
    written: NDArray[np.int64]


class _Synchronizer:
    def __init__(self, instructions: list[Instruction], sizes: dict[str, int]) -> None:
        self.instructions = list(instructions)
        self.touched = {name: _Touched(*np.full((2, len(Unit), size), NEVER)) for name, size in sizes.items()}
        self.known: dict[Unit, Clock] = {unit: dict.fromkeys(Unit, NEVER) for unit in Unit}
        self.known_after: dict[int, Clock] = {}
        self.order: dict[Unit, list[int]] = {unit: [] for unit in Unit}  # positions of each unit's instructions

    def run(self) -> list[Instruction]:
        for position, instruction in enumerate(self.instructions):
            if instruction.UNIT is not None:
                self._synchronize(position, instruction.UNIT, list(find_accesses(instruction)))
        return self.instructions

    def _synchronize(self, position: int, unit: Unit, accesses: list[Access]) -> None:
        needed = self._find_needed(accesses)
        known = self.known[unit]
        for giver in sorted((other for other in Unit if other != unit), key=lambda other: -needed[other]):
            if needed[giver] > known[giver]:
                signal = max(needed[giver], *self.order[giver][-FAR_BACK:][:1])
                self._add(giver, signal, unit, position)
                for other, over in self.known_after[signal].items():
                    known[other] = max(known[other], over)
        known[unit] = position
        self.order[unit].append(position)
        self.known_after[position] = dict(known)
        for access in accesses:
            touched = self.touched[access.memory]
            (touched.written if access.write else touched.read)[unit, access.places] = position

    def _find_needed(self, accesses: list[Access]) -> Clock:
        needed = dict.fromkeys(Unit, NEVER)
        for access in accesses:
            touched = self.touched[access.memory]
            for unit in Unit:
                last = touched.written[unit, access.places].max()
                if access.write:
                    last = max(last, touched.read[unit, access.places].max())
                needed[unit] = max(needed[unit], int(last))
        return needed

    def _add(self, giver: Unit, signal: int, taker: Unit, wait: int) -> None:
        given, taken = self.instructions[signal], self.instructions[wait]
        self.instructions[signal] = replace(given, signal=given.signal | 1 << taker)
        self.instructions[wait] = replace(taken, wait=taken.wait | 1 << giver)


def add_tokens(instructions: list[Instruction], sizes: dict[str, int]) -> list[Instruction]:
    """The same instructions with `wait` and `signal` set. `sizes`: places of each memory."""
    return _Synchronizer(instructions, sizes).run()
