"""A witness of the golden model that refuses programs whose result depends on how fast the units are.

Two accesses to one place, of which one writes, must be ordered: by their unit, or by a chain of tokens. Knowledge is a
vector clock: what each unit knows to be over.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from board.overlay.isa import Instruction, Unit

Clock = NDArray[np.int64]  # instructions of each unit that are known to be over
QUEUE_DEPTH = 8


class RaceError(AssertionError):
    """The tokens allow another order."""


class Ordering:
    def __init__(self) -> None:
        self.clocks = {unit: np.zeros(len(Unit), np.int64) for unit in Unit}
        self.tokens: dict[tuple[Unit, Unit], deque[Clock]] = defaultdict(deque)
        self.reads: dict[str, NDArray[np.int64]] = {}
        self.writes: dict[str, NDArray[np.int64]] = {}
        self.current: Instruction | None = None

    def begin(self, instruction: Instruction) -> None:
        self._finish()
        unit = instruction.UNIT
        assert unit is not None
        for giver in Unit:
            if instruction.wait >> giver & 1:
                self.clocks[unit] = np.maximum(self.clocks[unit], self.tokens[giver, unit].popleft())
        self.current = instruction

    def access(self, memory: str, addresses: NDArray[np.int64], *, write: bool) -> None:
        assert self.current is not None
        unit = self.current.UNIT
        assert unit is not None
        if addresses.size == 0:  # padding alone
            return
        reads, writes = self._table(self.reads, memory, addresses), self._table(self.writes, memory, addresses)
        for other in Unit:
            last = writes[other, addresses].max()
            if write:
                last = max(last, reads[other, addresses].max())
            if other != unit and last > self.clocks[unit][other]:
                raise RaceError(f"{self.current} meets {other.name} number {last} in {memory} without a token")
        (writes if write else reads)[unit, addresses] = self.clocks[unit][unit] + 1

    def _finish(self) -> None:
        if self.current is None or self.current.UNIT is None:
            return
        unit = self.current.UNIT
        self.clocks[unit] = self.clocks[unit].copy()
        self.clocks[unit][unit] += 1
        for taker in Unit:
            if self.current.signal >> taker & 1:
                self.tokens[unit, taker].append(self.clocks[unit])

    @staticmethod
    def _table(tables: dict[str, NDArray[np.int64]], memory: str, addresses: NDArray[np.int64]) -> NDArray[np.int64]:
        size = int(addresses.max()) + 1
        table = tables.get(memory, np.zeros((len(Unit), 0), np.int64))
        if table.shape[1] < size:
            table = np.pad(table, ((0, 0), (0, max(size, 2 * table.shape[1]) - table.shape[1])))
        tables[memory] = table
        return table


def most_tokens(instructions: Sequence[Instruction]) -> int:
    """The most tokens that can be under way between two units, however slow one of them is.

    While a unit has not begun its instruction j, fetch stops at the latest where its instruction j + 9 stands (one at
    work, eight in the queue).
    """
    most = 0
    for giver in Unit:
        for taker in Unit:
            given = np.cumsum([giver == item.UNIT and item.signal >> taker & 1 for item in instructions])
            mine = [position for position, item in enumerate(instructions) if taker == item.UNIT]
            taken = np.cumsum([0] + [instructions[position].wait >> giver & 1 for position in mine])
            for number in range(len(mine)):
                ahead = number + QUEUE_DEPTH + 1
                reached = given[mine[ahead]] if ahead < len(mine) else given[-1]
                most = max(most, int(reached - taken[number]))
    return most
