"""Queues lose nothing, change no order, and hold neither side up longer than they must."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest

from board.overlay.hardware.component import Skid
from board.overlay.hardware.fifo import SLICE_BITS, Fifo
from tests.board.overlay.clocked import simulate

WIDTH = SLICE_BITS + 6  # two slices
DEPTH = 8
CYCLES = 600
RATES = [(1.0, 1.0), (0.9, 0.3), (0.3, 0.9), (0.5, 0.5)]


def word(number: int, width: int = WIDTH) -> int:
    """That shows in every slice."""
    return (number << width - 16 | number) & (1 << width) - 1


@pytest.mark.parametrize(("write_rate", "read_rate"), RATES)
def test_a_queue_gives_what_it_got(write_rate: float, read_rate: float) -> None:
    part = Fifo(WIDTH, DEPTH)
    rng = np.random.default_rng(5)

    async def bench(ctx: Any) -> None:
        inside: deque[tuple[int, int]] = deque()  # word, cycle
        written = read = 0
        for cycle in range(CYCLES):
            ctx.set(part.w_en, int(rng.random() < write_rate))
            ctx.set(part.r_en, int(rng.random() < read_rate))
            ctx.set(part.w_data, word(written))
            assert ctx.get(part.level) == len(inside) <= DEPTH
            assert ctx.get(part.w_rdy) or len(inside) >= DEPTH - 1
            if inside and cycle - inside[0][1] >= 2:
                assert ctx.get(part.r_rdy)
            leaves, enters = (
                bool(ctx.get(e) and ctx.get(r)) for e, r in ((part.r_en, part.r_rdy), (part.w_en, part.w_rdy))
            )
            if leaves:
                assert ctx.get(part.r_data) == inside.popleft()[0]
                read += 1
            if enters:
                inside.append((word(written), cycle))
                written += 1
            await ctx.tick()
        assert read > CYCLES * min(write_rate, read_rate) * 0.7

    simulate(part, bench)


def test_a_queue_that_nobody_reads_fills() -> None:
    part = Fifo(WIDTH, DEPTH)

    async def bench(ctx: Any) -> None:
        ctx.set(part.w_en, 1)
        await ctx.tick().repeat(3 * DEPTH)
        assert (ctx.get(part.level), ctx.get(part.w_rdy)) == (DEPTH, 0)

    simulate(part, bench)


@pytest.mark.parametrize(("write_rate", "read_rate"), RATES)
def test_a_stream_passes_registers_in_both_directions(write_rate: float, read_rate: float) -> None:
    width = 40  # two parts
    part = Skid(width)
    source, sink = part.source, part.sink
    rng = np.random.default_rng(6)

    async def bench(ctx: Any) -> None:
        given, got = 0, 0
        offers = False
        for _ in range(CYCLES):
            offers = offers or bool(rng.random() < write_rate)  # holds until it is taken
            ctx.set(source.payload, word(given, width) if offers else word(77, width))
            ready = []
            for takes in (0, 1):  # what it says to the source does not hang on the sink
                ctx.set(sink.ready, takes)
                ready.append(ctx.get(source.ready))
            assert ready[0] == ready[1]
            ctx.set(source.valid, int(offers))
            ctx.set(sink.ready, int(rng.random() < read_rate))
            if ctx.get(sink.valid) and ctx.get(sink.ready):
                assert ctx.get(sink.payload) == word(got, width)
                got += 1
            if offers and ready[0]:
                given += 1
                offers = False
            await ctx.tick()
        assert 0 <= given - got <= 2
        assert got > CYCLES * min(write_rate, read_rate) * 0.7

    simulate(part, bench)
