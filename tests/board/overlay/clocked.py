"""Runs one part of the design in Amaranth's simulator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from amaranth.hdl import Elaboratable
from amaranth.sim import Simulator

PERIOD_S = 1e-8


def simulate(part: Elaboratable, *testbenches: Callable[[Any], Awaitable[None]]) -> None:
    """Run to the end of the first testbench; the others serve it."""
    simulator = Simulator(part)
    simulator.add_clock(PERIOD_S)
    first, *others = testbenches
    simulator.add_testbench(first)
    for other in others:
        simulator.add_testbench(other, background=True)
    simulator.run()


async def tick_until(ctx: Any, signal: Any, cycles: int = 10_000) -> None:
    """Clock up to and including the first cycle in which the signal is 1."""
    for _ in range(cycles):
        reached = ctx.get(signal)
        await ctx.tick()
        if reached:
            return
    raise AssertionError(f"{signal.name} stayed 0 for {cycles} cycles")
