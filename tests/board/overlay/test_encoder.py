"""The belt's encoder by itself: what it counts, and when it says that its count is not to be believed."""

from __future__ import annotations

from typing import Any

import numpy as np

from board.overlay.hardware.encoder import Encoder
from board.overlay.registers import MOTION_BACK, MOTION_SILENT, MOTION_SKIPPED
from tests.board.overlay.clocked import simulate

FILTER_CYCLES = 3
SILENCE = 60
SETTLED = 8  # cycles from an edge to its count, the filter included
TURN = ((0, 0), (1, 0), (1, 1), (0, 1))  # A leads


class Belt:
    """Turns an encoder's wheel, a count after the other."""

    def __init__(self, ctx: Any, part: Encoder, *, quadrature: int = 1) -> None:
        self.ctx, self.part, self.turn = ctx, part, 0
        ctx.set(part.filter_cycles, FILTER_CYCLES)
        ctx.set(part.silence, SILENCE)
        ctx.set(part.quadrature, quadrature)

    async def move(self, counts: int) -> None:
        for _ in range(abs(counts)):
            self.turn = (self.turn + (1 if counts > 0 else -1)) % 4
            await self.set(*TURN[self.turn])

    async def set(self, a: int, b: int, cycles: int = SETTLED) -> None:
        self.ctx.set(self.part.a, a)
        self.ctx.set(self.part.b, b)
        await self.ctx.tick().repeat(cycles)

    @property
    def position(self) -> int:
        return int(self.ctx.get(self.part.position))

    @property
    def raised(self) -> int:
        return int(self.ctx.get(self.part.raised))


def test_every_edge_is_counted_forward_and_back() -> None:
    part, rng = Encoder(), np.random.default_rng(1)

    async def bench(ctx: Any) -> None:
        belt, position = Belt(ctx, part), 0
        for counts in (5, -9, *rng.integers(-12, 13, 20).tolist()):
            await belt.move(counts)
            position += counts
            assert belt.position == position
        ctx.set(part.turned, 1)
        await belt.move(7)
        assert belt.position == position - 7

    simulate(part, bench)


def test_one_channel_counts_its_rising_edges_and_b_may_turn_them() -> None:
    part = Encoder()

    async def bench(ctx: Any) -> None:
        belt = Belt(ctx, part, quadrature=0)
        for directs, b, steps in ((0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, -1)):
            ctx.set(part.directs, directs)
            before = belt.position
            await belt.set(0, b)
            for _ in range(5):
                await belt.set(1, b)
                await belt.set(0, b)
            assert belt.position == before + 5 * steps

    simulate(part, bench)


def test_what_is_shorter_than_the_filter_is_no_edge() -> None:
    part = Encoder()

    async def bench(ctx: Any) -> None:
        belt = Belt(ctx, part)
        for cycles in range(1, FILTER_CYCLES + 1):
            await belt.set(1, 0, cycles)
            await belt.set(0, 0)
        assert belt.position == 0
        await belt.set(1, 0, FILTER_CYCLES + 1)
        await belt.set(1, 0)
        assert belt.position == 1

    simulate(part, bench)


def test_a_belt_that_stands_or_trembles_is_silent() -> None:
    part = Encoder()

    async def bench(ctx: Any) -> None:
        belt = Belt(ctx, part)
        ctx.set(part.most_back, 2)
        for _ in range(4):
            await belt.move(5)
            assert not belt.raised & MOTION_SILENT
        for _ in range(SILENCE // SETTLED // 2 + 1):
            await belt.move(-1)
            await belt.move(1)
        assert belt.raised == MOTION_SILENT
        await belt.move(1)
        assert belt.raised == 0
        await ctx.tick().repeat(SILENCE - SETTLED)
        assert belt.raised == 0
        await ctx.tick().repeat(SETTLED)
        assert belt.raised == MOTION_SILENT

    simulate(part, bench)


def test_until_a_silence_is_set_the_encoder_is_silent() -> None:
    part = Encoder()

    async def bench(ctx: Any) -> None:
        belt = Belt(ctx, part)
        ctx.set(part.silence, 0)
        for _ in range(20):
            assert belt.raised & MOTION_SILENT
            await belt.move(1)

    simulate(part, bench)


def test_a_belt_that_goes_back_further_than_it_may_is_told() -> None:
    part = Encoder()

    async def bench(ctx: Any) -> None:
        belt = Belt(ctx, part)
        ctx.set(part.most_back, 3)
        ctx.set(part.silence, 1 << 20)
        await belt.move(10)
        for _ in range(3):  # it may come and go for as long as it likes
            await belt.move(-3)
            await belt.move(3)
        assert belt.raised == 0
        await belt.move(-4)
        assert belt.raised == MOTION_BACK
        await belt.move(1)
        assert belt.raised == 0

    simulate(part, bench)


def test_both_levels_at_once_are_a_count_that_is_missing() -> None:
    part, seen = Encoder(), []

    async def bench(ctx: Any) -> None:
        belt = Belt(ctx, part)
        ctx.set(part.silence, 1 << 20)
        await belt.set(1, 1, 1)
        for _ in range(SETTLED):
            seen.append(belt.raised)
            await ctx.tick()
        assert belt.position == 0

    simulate(part, bench)
    assert seen.count(MOTION_SKIPPED) == 1
