from __future__ import annotations

from typing import Any

import numpy as np

from board.overlay.hardware.array import MacArray
from board.overlay.isa import CHANNELS_IN, CHANNELS_OUT
from tests.board.overlay.clocked import simulate

STEPS = 24


def operands() -> tuple[Any, Any]:
    """Pixels (steps, 2, 16) and weights (steps, 12, 16), the extremes first."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(-128, 128, (STEPS, 2, CHANNELS_IN))
    weights = rng.integers(-127, 128, (STEPS, CHANNELS_OUT, CHANNELS_IN))
    for step, (a0, a1, w) in enumerate([(-128, -128, -127), (-128, -128, 127), (127, -128, 127), (-128, 127, -127)]):
        pixels[step, 0], pixels[step, 1], weights[step] = a0, a1, w
    return pixels, weights


def test_384_products_a_step() -> None:
    array = MacArray()
    pixels, weights = operands()

    async def bench(ctx: Any) -> None:
        for step in range(STEPS + array.CYCLES):
            if step < STEPS:
                drive(ctx, array, pixels[step], weights[step])
            if step >= array.CYCLES:
                then = step - array.CYCLES
                want = pixels[then] @ weights[then].T
                assert [ctx.get(signal) for signal in array.dense[0]] == want[0].tolist()
                upper = [ctx.get(total) + ctx.get(b) for total, b in zip(array.dense[1], array.borrow, strict=True)]
                assert upper == want[1].tolist()
            await ctx.tick()

    simulate(array, bench)


def test_lanes_weigh_each_channel_alone() -> None:
    array = MacArray()
    pixels, weights = operands()
    channel = np.arange(CHANNELS_IN)
    weights[:, :6][:, channel % 2 != np.arange(6)[:, np.newaxis] % 2] = 0

    async def bench(ctx: Any) -> None:
        for step in range(STEPS + array.CYCLES):
            if step < STEPS:
                drive(ctx, array, pixels[step], weights[step])
            if step >= array.CYCLES:
                a0, a1 = pixels[step - array.CYCLES]
                u, v, t = (weights[step - array.CYCLES, 2 * i + channel % 2, channel] for i in range(3))
                assert [ctx.get(signal) for signal in array.lanes[0]] == (a0 * u + a1 * v).tolist()
                assert [ctx.get(signal) for signal in array.lanes[1]] == (a1 * u + a0 * t).tolist()
            await ctx.tick()

    simulate(array, bench)


def drive(ctx: Any, array: MacArray, pixels: Any, weights: Any) -> None:
    for i in range(CHANNELS_IN):
        ctx.set(array.a[i], int(pixels[1, i]) * 65536 + int(pixels[0, i]))
        for j in range(CHANNELS_OUT):
            ctx.set(array.w[j][i], int(weights[j, i]))
