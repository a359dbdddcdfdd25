from __future__ import annotations

from typing import Any

import pytest

from board.overlay.hardware.segments import SegmentTable, Translator
from board.overlay.isa import Segment
from tests.board.overlay.clocked import simulate

BASES = (0x1000, 0x2_0000, 0x1F00_0000, 0x3000)
SIZES = (100, 1, 0x0010_0000, 0)
TRANSLATION_CYCLES = 3


async def ask(ctx: Any, part: Translator, segment: int, offset: int, beats: int) -> tuple[int, int] | None:
    """(bus address, beats) of the request, or None when there is none."""
    for segment_number, (base, size) in enumerate(zip(BASES, SIZES, strict=True)):
        ctx.set(part.table.base[segment_number], base)
        ctx.set(part.table.size[segment_number], size)
    ctx.set(part.access.valid, 1)
    ctx.set(part.access.payload, {"segment": segment, "offset": offset, "beats": beats})
    await ctx.tick()
    ctx.set(part.access.valid, 0)
    for _ in range(TRANSLATION_CYCLES - 1):
        assert not ctx.get(part.request.valid)
        await ctx.tick()
    if not ctx.get(part.request.valid):
        return None
    await ctx.tick().repeat(3)  # the request waits to be taken
    request = ctx.get(part.request.payload)
    ctx.set(part.request.ready, 1)
    assert ctx.get(part.request.valid)
    assert not ctx.get(part.access.ready)
    await ctx.tick()
    ctx.set(part.request.ready, 0)
    assert not ctx.get(part.request.valid)
    return request.address, request.beats


def test_an_offset_becomes_a_bus_address() -> None:
    part = Translator(SegmentTable())

    async def bench(ctx: Any) -> None:
        for segment, offset, beats in ((0, 0, 100), (0, 99, 1), (1, 0, 1), (2, 0x000F_FFF0, 16), (2, 5, 3)):
            assert ctx.get(part.access.ready)
            assert await ask(ctx, part, segment, offset, beats) == (BASES[segment] + offset, beats)
            assert not ctx.get(part.fault)

    simulate(part, bench)


@pytest.mark.parametrize(
    ("segment", "offset", "beats"),
    [
        (Segment.MODEL, 0, 101),
        (Segment.MODEL, 100, 1),
        (Segment.SCRATCH, 1, 1),
        (Segment.INPUT, (1 << 29) - 1, 1),
        (Segment.INPUT, (1 << 29) - 4, 1 << 21),  # the sum does not come round to the start
        (Segment.OUTPUT, 0, 1),
    ],
)
def test_what_leaves_its_segment_is_a_fault_and_the_last_access(segment: Segment, offset: int, beats: int) -> None:
    part = Translator(SegmentTable())

    async def bench(ctx: Any) -> None:
        assert await ask(ctx, part, segment, offset, beats) is None
        assert ctx.get(part.fault)
        assert not ctx.get(part.access.ready)
        assert await ask(ctx, part, Segment.MODEL, 0, 1) is None
        assert ctx.get(part.fault)

    simulate(part, bench)
