"""LEDs, buttons, time stamps of the light barrier and the gate's timer, by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from board.overlay.hardware.line import PULSES, STAMPS, LineIO
from tests.overlay.clocked import simulate

FILTER_CYCLES = 5
PIN_CYCLES = 3  # the most that a pin's change takes to be seen


async def interrupt(ctx: Any, part: LineIO, cycles: int, *, level: int = 1) -> int:
    """The light barrier is interrupted for so many cycles, then free for long; the time when it began."""
    began = int(ctx.get(part.time))
    ctx.set(part.barrier_pin, level)
    await ctx.tick().repeat(cycles)
    ctx.set(part.barrier_pin, 1 - level)
    await ctx.tick().repeat(2 * FILTER_CYCLES + PIN_CYCLES)
    return began


async def queue_pulse(ctx: Any, part: LineIO, start: int, cycles: int) -> None:
    ctx.set(part.gate_time, start)
    ctx.set(part.gate_cycles, cycles)
    ctx.set(part.gate_add, 1)
    await ctx.tick()
    ctx.set(part.gate_add, 0)


async def watch_gate(ctx: Any, part: LineIO, until: int) -> list[int]:
    """Times at which the gate is open."""
    opened = []
    while ctx.get(part.time) < until:
        if ctx.get(part.gate_pin):
            opened.append(ctx.get(part.time))
        await ctx.tick()
    return opened


def test_time_counts_every_cycle() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        for cycle in range(5):
            assert ctx.get(part.time) == cycle
            await ctx.tick()

    simulate(part, bench)


def test_buttons_are_seen() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        for buttons in (5, 10, 0):
            ctx.set(part.buttons_pin, buttons)
            await ctx.tick().repeat(PIN_CYCLES)
            assert ctx.get(part.buttons) == buttons

    simulate(part, bench)


@pytest.mark.parametrize("invert", [0, 1])
def test_an_interruption_is_stamped_with_the_time_of_its_edge(invert: int) -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        ctx.set(part.filter_cycles, FILTER_CYCLES)
        ctx.set(part.invert, invert)
        ctx.set(part.barrier_pin, invert)
        await ctx.tick().repeat(3 * FILTER_CYCLES)
        assert ctx.get(part.count) <= 1  # an inverted pin looks interrupted until it is driven
        while ctx.get(part.stamps):
            ctx.set(part.drop, 1)
            await ctx.tick()
        ctx.set(part.drop, 0)
        before = ctx.get(part.count)
        began = await interrupt(ctx, part, FILTER_CYCLES + 20, level=1 - invert)
        assert ctx.get(part.count) == before + 1
        assert ctx.get(part.stamps) == 1
        assert 0 <= ctx.get(part.stamp) - began <= PIN_CYCLES
        assert not ctx.get(part.barrier)

    simulate(part, bench)


def test_the_filter_lets_nothing_pass_that_is_shorter() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        ctx.set(part.filter_cycles, FILTER_CYCLES)
        for cycles in range(1, FILTER_CYCLES):
            await interrupt(ctx, part, cycles)
        assert ctx.get(part.count) == 0
        for cycles in range(FILTER_CYCLES + 1, FILTER_CYCLES + 4):
            await interrupt(ctx, part, cycles)
        assert ctx.get(part.count) == 3
        assert ctx.get(part.stamps) == 3

    simulate(part, bench)


def test_a_gap_shorter_than_the_filter_does_not_end_an_interruption() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        ctx.set(part.filter_cycles, FILTER_CYCLES)
        for _ in range(4):
            ctx.set(part.barrier_pin, 1)
            await ctx.tick().repeat(2 * FILTER_CYCLES)
            ctx.set(part.barrier_pin, 0)
            await ctx.tick().repeat(FILTER_CYCLES - 1)
        assert ctx.get(part.count) == 1
        assert ctx.get(part.barrier)

    simulate(part, bench)


def test_sixteen_stamps_wait_and_what_comes_then_is_counted_as_lost() -> None:
    part = LineIO()
    began: list[int] = []

    async def bench(ctx: Any) -> None:
        ctx.set(part.filter_cycles, FILTER_CYCLES)
        began.extend([await interrupt(ctx, part, FILTER_CYCLES + 2) for _ in range(STAMPS + 3)])
        assert ctx.get(part.stamps) == STAMPS
        assert ctx.get(part.count) == STAMPS + 3
        assert ctx.get(part.lost) == 3
        for left in range(STAMPS, 0, -1):
            assert ctx.get(part.stamps) == left
            assert 0 <= ctx.get(part.stamp) - began[STAMPS - left] <= PIN_CYCLES
            ctx.set(part.drop, 1)
            await ctx.tick()
            ctx.set(part.drop, 0)
        ctx.set(part.drop, 1)  # nothing is there to drop
        await ctx.tick()
        ctx.set(part.drop, 0)
        assert ctx.get(part.stamps) == 0
        last = await interrupt(ctx, part, FILTER_CYCLES + 2)
        assert ctx.get(part.stamps) == 1
        assert 0 <= ctx.get(part.stamp) - last <= PIN_CYCLES
        assert ctx.get(part.lost) == 3

    simulate(part, bench)


def test_the_gate_opens_at_its_time_for_its_cycles() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        pulses = [(40, 7), (60, 1), (70, 20)]
        for start, cycles in pulses:
            await queue_pulse(ctx, part, start, cycles)
        await ctx.tick().repeat(3)
        assert ctx.get(part.gate_queued) == len(pulses)
        opened = await watch_gate(ctx, part, 120)
        # a register drives the pin: it changes with the cycle after
        assert opened == [time + 1 for start, cycles in pulses for time in range(start, start + cycles)]
        assert ctx.get(part.gate_queued) == 0
        assert ctx.get(part.gate_missed) == 0

    simulate(part, bench)


def test_a_pulse_whose_time_has_passed_is_counted_and_not_given() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        await ctx.tick().repeat(50)
        await queue_pulse(ctx, part, 49, 10)
        await queue_pulse(ctx, part, 90, 5)
        await queue_pulse(ctx, part, 80, 5)  # behind one that comes later
        assert await watch_gate(ctx, part, 150) == list(range(91, 96))
        assert ctx.get(part.gate_missed) == 2

    simulate(part, bench)


def test_a_time_beyond_32_bits_is_not_taken_for_a_near_one() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        await queue_pulse(ctx, part, (1 << 32) + 20, 5)
        assert await watch_gate(ctx, part, 60) == []
        assert ctx.get(part.gate_queued) == 1
        assert ctx.get(part.gate_missed) == 0

    simulate(part, bench)


def test_pulses_beyond_the_queue_are_counted() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        for number in range(PULSES + 3):
            await queue_pulse(ctx, part, 50 + 4 * number, 2)
            await ctx.tick()
        assert ctx.get(part.gate_queued) == PULSES
        assert ctx.get(part.gate_missed) == 3
        opened = await watch_gate(ctx, part, 150)
        assert opened == [51 + 4 * number + cycle for number in range(PULSES) for cycle in range(2)]

    simulate(part, bench)
