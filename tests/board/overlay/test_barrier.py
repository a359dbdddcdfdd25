"""The light barrier's filter, numbers and time stamps, by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from board.overlay.hardware.barrier import STAMPS, Barrier
from tests.board.overlay.clocked import simulate

FILTER_CYCLES = 5


async def tick(ctx: Any, part: Barrier, cycles: int = 1) -> None:
    for _ in range(cycles):
        ctx.set(part.time, ctx.get(part.time) + 1)
        await ctx.tick()


async def interrupt(ctx: Any, part: Barrier, cycles: int) -> int:
    """The beam is broken for so many cycles, then free for long; the time when it began."""
    began = int(ctx.get(part.time))
    ctx.set(part.level, 1)
    await tick(ctx, part, cycles)
    ctx.set(part.level, 0)
    await tick(ctx, part, 2 * FILTER_CYCLES)
    return began


async def take(ctx: Any, part: Barrier) -> tuple[int, int]:
    """(time stamp, number) of the oldest one, which is then dropped."""
    taken = int(ctx.get(part.stamp)), int(ctx.get(part.sequence))
    ctx.set(part.drop, 1)
    await tick(ctx, part)
    ctx.set(part.drop, 0)
    return taken


def test_an_interruption_is_stamped_with_the_time_of_its_edge() -> None:
    part = Barrier()

    async def bench(ctx: Any) -> None:
        ctx.set(part.filter_cycles, FILTER_CYCLES)
        ctx.set(part.time, (1 << 33) + 7)
        await tick(ctx, part)
        for number in range(3):
            began = await interrupt(ctx, part, FILTER_CYCLES + 20)
            stamp, sequence = await take(ctx, part)
            assert 0 <= began - stamp <= 1
            assert sequence == number
            assert not ctx.get(part.broken)

    simulate(part, bench)


def test_an_interruption_has_the_position_of_its_edge() -> None:
    part = Barrier()

    async def bench(ctx: Any) -> None:
        ctx.set(part.filter_cycles, FILTER_CYCLES)
        for position in (7, -3, 1 << 40):
            ctx.set(part.position, position)
            await tick(ctx, part)
            ctx.set(part.level, 1)
            await tick(ctx, part)
            ctx.set(part.position, position + 1)
            await tick(ctx, part, 2 * FILTER_CYCLES)
            ctx.set(part.level, 0)
            await tick(ctx, part, 2 * FILTER_CYCLES)
            assert ctx.get(part.place) == position
            await take(ctx, part)

    simulate(part, bench)


def test_the_filter_lets_nothing_pass_that_is_shorter() -> None:
    part = Barrier()

    async def bench(ctx: Any) -> None:
        ctx.set(part.filter_cycles, FILTER_CYCLES)
        for cycles in range(1, FILTER_CYCLES + 1):
            await interrupt(ctx, part, cycles)
        assert ctx.get(part.count) == 0
        for cycles in range(FILTER_CYCLES + 1, FILTER_CYCLES + 4):
            await interrupt(ctx, part, cycles)
        assert (ctx.get(part.count), ctx.get(part.stamps)) == (3, 3)

    simulate(part, bench)


def test_a_gap_shorter_than_the_filter_does_not_end_an_interruption() -> None:
    part = Barrier()

    async def bench(ctx: Any) -> None:
        ctx.set(part.filter_cycles, FILTER_CYCLES)
        for _ in range(4):
            ctx.set(part.level, 1)
            await tick(ctx, part, 2 * FILTER_CYCLES)
            ctx.set(part.level, 0)
            await tick(ctx, part, FILTER_CYCLES - 1)
        assert ctx.get(part.count) == 1
        assert ctx.get(part.broken)

    simulate(part, bench)


def test_sixteen_stamps_wait_and_what_is_lost_is_a_gap_in_the_numbers() -> None:
    part = Barrier()
    began: list[int] = []

    async def bench(ctx: Any) -> None:
        ctx.set(part.filter_cycles, FILTER_CYCLES)
        began.extend([await interrupt(ctx, part, FILTER_CYCLES + 2) for _ in range(STAMPS + 3)])
        assert (ctx.get(part.stamps), ctx.get(part.count), ctx.get(part.lost)) == (STAMPS, STAMPS + 3, 3)
        for number in range(STAMPS):
            stamp, sequence = await take(ctx, part)
            assert 0 <= began[number] - stamp <= 1
            assert sequence == number
        ctx.set(part.drop, 1)  # nothing is there to drop
        await tick(ctx, part)
        ctx.set(part.drop, 0)
        assert ctx.get(part.stamps) == 0
        await interrupt(ctx, part, FILTER_CYCLES + 2)
        assert (await take(ctx, part))[1] == STAMPS + 3
        assert ctx.get(part.lost) == 3

    simulate(part, bench)


def filtered(levels: list[int], filter_cycles: int) -> list[int]:
    """Cycles before the edges of interruptions, each steady for longer than the filter, as one would write it down."""
    edges, state, since = [], 0, 0
    for cycle, level in enumerate(levels):
        if level == state:
            since = cycle
        elif cycle - since > filter_cycles:
            state = level
            if level:
                edges.append(since)
            since = cycle
    return edges


@pytest.mark.parametrize("seed", range(3))
def test_random_levels_give_the_edges_of_the_model(seed: int) -> None:
    rng = np.random.default_rng(seed)
    filter_cycles = int(rng.integers(0, 8))
    levels: list[int] = []
    while len(levels) < 600:
        levels += [int(rng.integers(2))] * int(rng.integers(1, 3 * filter_cycles + 3))
    part, found = Barrier(), []

    async def bench(ctx: Any) -> None:
        ctx.set(part.filter_cycles, filter_cycles)
        ctx.set(part.drop, 1)
        for cycle, level in enumerate(levels):
            ctx.set(part.level, level)
            ctx.set(part.time, cycle)
            if ctx.get(part.stamps):
                found.append((ctx.get(part.stamp), ctx.get(part.sequence)))
            await ctx.tick()

    simulate(part, bench)
    edges = filtered(levels, filter_cycles)
    assert len(edges) > 5
    assert found == [(edge, number) for number, edge in enumerate(edges)][: len(found)]
    assert len(found) >= len(edges) - 1
