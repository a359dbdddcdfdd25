from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from amaranth.hdl import Const

from board.overlay.hardware.results import Results
from tests.board.overlay.clocked import simulate


@pytest.mark.parametrize("first", [0, 1, 2, 3, 65_535])
@pytest.mark.parametrize("quads", [1, 3, 4])
def test_every_quad_finds_its_place(first: int, quads: int) -> None:
    rows, cols, out_row, out_col = 2, 3, 11, 2
    fields = SimpleNamespace(
        out=Const(first, 16),
        out_row=Const(out_row, 12),
        out_col=Const(out_col, 7),
        out_quads=Const(quads - 1, 2),
        rows=Const(rows - 1, 10),
        cols=Const(cols - 1, 10),
    )
    part = Results(fields)
    written: dict[int, bytes] = {}

    async def bench(ctx: Any) -> None:
        ctx.set(part.start, 1)
        await ctx.tick()
        ctx.set(part.start, 0)
        for pixel in range(rows * (cols + cols % 2)):
            ctx.set(part.valid, 1)
            ctx.set(part.result, int.from_bytes(bytes(16 * pixel + i for i in range(16)), "little"))
            await ctx.tick()
            ctx.set(part.valid, 0)
            data = ctx.get(part.write_data).to_bytes(16, "little")
            for lane in range(4):
                if ctx.get(part.write) >> lane & 1:
                    quad = 4 * ctx.get(part.write_address[lane]) + lane
                    assert quad not in written
                    written[quad] = data[4 * lane : 4 * lane + 4]
        assert not ctx.get(part.finished)
        await ctx.tick()
        assert ctx.get(part.finished)

    simulate(part, bench)
    want = {}
    for y in range(rows):
        for x in range(cols):
            pixel = y * (cols + cols % 2) + x
            for q in range(quads):
                place = (first + 4 * (y * out_row + x * out_col) + q) % 65_536
                want[place] = bytes(16 * pixel + 4 * q + i for i in range(4))
    assert written == want
