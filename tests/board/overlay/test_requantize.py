from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from board.overlay.hardware.requantize import Requantizer
from board.overlay.isa import CHANNELS_IN
from host.integers.arithmetic import requantize
from tests.board.overlay.clocked import simulate


def totals_and_shifts() -> tuple[Any, Any]:
    """Halves and their neighbours at every shift, the ends of int8 and int32, and anything."""
    rng = np.random.default_rng(0)
    near = [
        (n * (1 << s) + (1 << s >> 1) + d, s)
        for s in range(32)
        for n in (-129, -128, -3, -2, 0, 1, 126, 127)
        for d in (-1, 0, 1)
    ]
    ends = [(total, s) for s in range(32) for total in (-(1 << 31), (1 << 31) - 1, 0, -1)]
    some = [
        (int(rng.integers(-(1 << 31), 1 << 31)) >> int(rng.integers(24)), int(rng.integers(32))) for _ in range(160)
    ]
    cases = [(t, s) for t, s in near + ends + some if -(1 << 31) <= t < 1 << 31]
    cases += [(0, 0)] * (-len(cases) % CHANNELS_IN)
    totals, shifts = zip(*cases, strict=True)
    return np.array(totals).reshape(-1, CHANNELS_IN), np.array(shifts).reshape(-1, CHANNELS_IN)


@pytest.mark.parametrize("relu", [0, 1])
def test_requantize_is_that_of_the_integer_network(relu: int) -> None:
    part = Requantizer()
    totals, shifts = totals_and_shifts()
    want = requantize(totals, shifts)
    want = np.maximum(want, 0) if relu else want
    results: list[list[int]] = []

    async def bench(ctx: Any) -> None:
        ctx.set(part.relu, relu)
        for total, shift in zip(totals, shifts, strict=True):
            for lane in range(CHANNELS_IN):
                ctx.set(part.total[lane], int(total[lane]))
                ctx.set(part.shift[lane], int(shift[lane]))
            await ctx.tick().repeat(part.SETTLE)
            ctx.set(part.valid, 1)
            # the shift is a constant of an instruction: let each pixel through before it changes
            await ctx.tick()
            ctx.set(part.valid, 0)
            await ctx.tick().repeat(part.CYCLES - 1)
            assert ctx.get(part.result_valid)
            word = ctx.get(part.result)
            results.append([word >> 8 * lane & 255 for lane in range(CHANNELS_IN)])

    simulate(part, bench)
    assert (np.array(results, np.uint8).view(np.int8) == want).all()
