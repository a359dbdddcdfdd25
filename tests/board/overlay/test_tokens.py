from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from board.overlay import isa
from board.overlay.hardware.tokens import Tokens
from board.overlay.isa import Unit
from tests.board.overlay.clocked import simulate

KINDS = {Unit.LOAD: isa.LoadTile, Unit.COMPUTE: isa.Compute, Unit.STORE: isa.StoreTile}
TOKENS_HIGH = 63


def header(unit: Unit, wait: int = 0, signal: int = 0) -> int:
    return int.from_bytes(isa.encode(KINDS[unit](wait=wait, signal=signal)), "little")


def random_program(rng: np.random.Generator, unit: Unit) -> list[tuple[int, int]]:
    """(wait, signal), never the unit's own bit; at first nobody waits, and more is given than taken."""
    others = 7 & ~(1 << unit)
    waits = [0] * 3 + [int(rng.integers(8)) & others if rng.random() < 0.4 else 0 for _ in range(50)]
    return [(wait, int(rng.integers(8)) & others) for wait in waits]


class Units:
    """Three units that take their instructions when they may, by the rules of the document alone."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.programs = {unit: random_program(self.rng, unit) for unit in Unit}
        self.counts = dict.fromkeys(permutations(Unit, 2), 0)
        self.promised = dict.fromkeys(Unit, 0)
        self.left = dict.fromkeys(Unit, 0)  # cycles of work
        self.started = dict.fromkeys(Unit, 0)

    def waiting(self) -> list[Unit]:
        return [unit for unit in Unit if self.started[unit] < len(self.programs[unit])]

    def next(self, unit: Unit) -> tuple[int, int]:
        return self.programs[unit][self.started[unit]]

    def may_start(self, unit: Unit) -> bool:
        wait, _ = self.next(unit)
        return all(self.counts[giver, unit] for giver in Unit if wait >> giver & 1)

    def clock(self) -> None:
        starting = [unit for unit in self.waiting() if self.left[unit] == 0 and self.may_start(unit)]
        for giver, taker in self.counts:
            self.counts[giver, taker] += self.left[giver] == 1 and self.promised[giver] >> taker & 1
            self.counts[giver, taker] -= taker in starting and self.next(taker)[0] >> giver & 1
        for unit in Unit:
            self.left[unit] = max(0, self.left[unit] - 1)
        for unit in starting:
            self.promised[unit] = self.next(unit)[1]
            self.started[unit] += 1
            self.left[unit] = int(self.rng.integers(1, 6))


@pytest.mark.parametrize("seed", range(4))
def test_an_instruction_starts_when_its_tokens_are_there_and_not_before(seed: int) -> None:
    part, units = Tokens(), Units(seed)

    async def bench(ctx: Any) -> None:
        for _ in range(500):
            waiting = units.waiting()
            for unit in Unit:
                ctx.set(part.queued[unit].valid, int(unit in waiting))
                ctx.set(part.queued[unit].payload, header(unit, *units.next(unit)) if unit in waiting else 0)
                ctx.set(part.issued[unit].ready, int(units.left[unit] == 0))
                ctx.set(part.finished[unit], int(units.left[unit] == 1))
            for unit in waiting:
                assert ctx.get(part.issued[unit].valid) == units.may_start(unit)
                assert ctx.get(part.issued[unit].payload) == ctx.get(part.queued[unit].payload)
                assert ctx.get(part.queued[unit].ready) == (units.left[unit] == 0 and units.may_start(unit))
            await ctx.tick()
            units.clock()
            assert not ctx.get(part.overflow)

    simulate(part, bench)
    assert sum(units.started.values()) > 100, "the units stood still: the test shows nothing"


@pytest.mark.parametrize(("giver", "taker"), list(permutations(Unit, 2)))
def test_a_counter_holds_63_tokens(giver: Unit, taker: Unit) -> None:
    part = Tokens()

    async def bench(ctx: Any) -> None:
        ctx.set(part.queued[giver].payload, header(giver, signal=1 << taker))
        ctx.set(part.queued[giver].valid, 1)
        ctx.set(part.issued[giver].ready, 1)
        await ctx.tick()
        ctx.set(part.queued[giver].valid, 0)
        ctx.set(part.finished[giver], 1)
        await ctx.tick().repeat(TOKENS_HIGH)
        assert not ctx.get(part.overflow)
        await ctx.tick()
        assert ctx.get(part.overflow)
        ctx.set(part.finished[giver], 0)
        await ctx.tick().repeat(3)
        assert ctx.get(part.overflow)

    simulate(part, bench)
