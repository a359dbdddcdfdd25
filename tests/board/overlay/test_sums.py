from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest

from board.overlay.hardware.sums import Sums
from board.overlay.isa import CHANNELS_IN, CHANNELS_OUT, Mode
from tests.board.overlay.clocked import simulate

PAIRS, MOST_STEPS = 12, 6


def wrapped(total: int) -> int:
    """Modulo 2^32, signed."""
    return (total + (1 << 31)) % (1 << 32) - (1 << 31)


class Step:
    """What the array gives for one step: dense (2, 12), lanes (2, 16), and the borrows that dense[1] still lacks."""

    def __init__(self, rng: np.random.Generator) -> None:
        dense, lanes = 16 * 128 * 127, 2 * 128 * 127
        self.dense = rng.integers(-dense, dense, (2, CHANNELS_OUT), endpoint=True)
        self.lanes = rng.integers(-lanes, lanes, (2, CHANNELS_IN), endpoint=True)
        self.borrow = rng.integers(0, 2, CHANNELS_OUT)

    def drive(self, ctx: Any, part: Sums) -> None:
        """AHEAD cycles after its `valid`."""
        for p in range(2):
            for j in range(CHANNELS_OUT):
                ctx.set(part.dense[p][j], int(self.dense[p, j]) - (int(self.borrow[j]) if p == 1 else 0))
            for c in range(CHANNELS_IN):
                ctx.set(part.lanes[p][c], int(self.lanes[p, c]))
        for j in range(CHANNELS_OUT):
            ctx.set(part.borrow[j], int(self.borrow[j]))


def wanted(mode: Mode, bias: list[int], steps: list[Step]) -> list[list[int]]:
    """Totals of both pixels; a dense instruction has 12 lanes."""
    if mode == Mode.MAX:
        return [list(row) for row in np.max([step.lanes for step in steps], axis=0)]
    values = sum(step.dense if mode == Mode.DENSE else step.lanes for step in steps)
    assert isinstance(values, np.ndarray)
    return [[wrapped(bias[lane] + int(value)) for lane, value in enumerate(row)] for row in values]


@pytest.mark.parametrize("mode", Mode)
def test_totals_leave_after_the_last_step_one_pixel_a_cycle(mode: Mode) -> None:
    """Pairs of steps with and without pauses; each starts anew from the bias, a maximum from its first value."""
    part = Sums()
    rng = np.random.default_rng(mode)
    bias = [int(rng.integers(-(1 << 31), 1 << 31)) for _ in range(CHANNELS_IN)]
    bias[:4] = (1 << 31) - 1, -(1 << 31), (1 << 31) - 5, 5 - (1 << 31)
    lanes = CHANNELS_OUT if mode == Mode.DENSE else CHANNELS_IN
    got: list[list[int]] = []

    def look(ctx: Any) -> None:
        if ctx.get(part.total_valid):
            got.append([ctx.get(total) for total in part.total[:lanes]])

    async def bench(ctx: Any) -> None:
        ctx.set(part.lane_mode, mode != Mode.DENSE)
        ctx.set(part.max_mode, mode == Mode.MAX)
        for lane, value in enumerate(bias):
            ctx.set(part.bias[lane], value)
        await ctx.tick().repeat(part.SETTLE)
        want: list[list[int]] = []
        told: deque[Step | None] = deque([None] * part.AHEAD)  # whose sums have not come yet

        async def tick(step: Step | None, *, first: bool = False, last: bool = False) -> None:
            ctx.set(part.valid, int(step is not None))
            ctx.set(part.first, int(first))
            ctx.set(part.last, int(last))
            told.append(step)
            (told.popleft() or Step(rng)).drive(ctx, part)
            look(ctx)
            await ctx.tick()

        for _ in range(PAIRS):
            steps = [Step(rng) for _ in range(int(rng.integers(1, MOST_STEPS)))]
            want += wanted(mode, bias, steps)
            for number, step in enumerate(steps):
                first, last = number == 0, number == len(steps) - 1
                for _ in range(int(rng.integers(0, 2))):
                    await tick(None, first=first, last=last)
                await tick(step, first=first, last=last)
            await tick(None)  # between the last steps of two pairs there are at least two cycles
        for _ in range(part.AHEAD + 4):
            await tick(None)
        assert not ctx.get(part.total_valid)
        assert got == want

    simulate(part, bench)
