"""The reader and the writer beside a memory that takes its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from board.overlay.hardware.reader import Reader
from board.overlay.hardware.writer import Writer
from tests.board.overlay.clocked import simulate, tick_until

REQUESTS = [(3, 5), (16, 16), (15, 1), (15, 40), (100, 33)]  # first beat, beats


def split(first: int, beats: int) -> list[tuple[int, int]]:
    """(first beat, beats) of the bursts: they end where 16 divides."""
    bursts = []
    while beats:
        size = min(beats, 16 - first % 16)
        bursts.append((first, size))
        first, beats = first + size, beats - size
    return bursts


def ask(request: Any) -> Callable[[Any], Any]:
    async def bench(ctx: Any) -> None:
        for first, beats in REQUESTS:
            ctx.set(request.valid, 1)
            ctx.set(request.payload.address, first)
            ctx.set(request.payload.beats, beats)
            await tick_until(ctx, request.ready)
            ctx.set(request.valid, 0)

    return bench


def test_each_client_reads_its_own_beats_in_order_though_the_other_sleeps() -> None:
    reader = Reader((32, 64))
    port = reader.port
    bursts: list[tuple[int, int]] = []
    got: list[int] = []

    async def memory(ctx: Any) -> None:
        rng = np.random.default_rng(0)
        waiting: list[int] = []
        ends: list[bool] = []
        while True:
            ctx.set(port.arready, int(rng.random() < 0.5))
            offered = bool(waiting) and rng.random() < 0.7
            ctx.set(port.rvalid, int(offered))
            ctx.set(port.rdata, waiting[0] if offered else 0)
            ctx.set(port.rlast, int(offered and ends[0]))
            if ctx.get(port.arvalid) and ctx.get(port.arready):
                first, beats = ctx.get(port.araddr) // 8, ctx.get(port.arlen) + 1
                bursts.append((first, beats))
                waiting += range(first, first + beats)
                ends += [False] * (beats - 1) + [True]
            if offered and ctx.get(port.rready):
                waiting.pop(0)
                ends.pop(0)
            await ctx.tick()

    async def take(ctx: Any) -> None:
        want = sum(beats for _, beats in REQUESTS)
        stream = reader.beats[1]
        ctx.set(stream.ready, 1)
        while len(got) < want:
            if ctx.get(stream.valid):
                got.append(ctx.get(stream.payload))
            await ctx.tick()
        await ctx.tick().repeat(50)

    # client 0 takes nothing: its buffer of 32 fills, and client 1 must not notice
    simulate(reader, take, memory, ask(reader.requests[0]), ask(reader.requests[1]))
    assert got == [beat for first, beats in REQUESTS for beat in range(first, first + beats)]
    all_bursts = [burst for request in REQUESTS for burst in split(*request)]
    assert sorted(bursts) == sorted(all_bursts + split(3, 5) + split(16, 16) + split(15, 1) + split(15, 1))


@pytest.mark.parametrize("waits_for_data", [False, True])
def test_a_write_burst_is_asked_for_when_its_data_is_here(waits_for_data: bool) -> None:
    """Also by a memory that takes an address only when its data is offered, as AXI4 allows it."""
    writer = Writer()
    port = writer.port
    written: dict[int, int] = {}
    bursts: list[tuple[int, int]] = []

    async def memory(ctx: Any) -> None:
        rng = np.random.default_rng(1)
        open_bursts: list[tuple[int, int]] = []
        answers, held = 0, 0
        while True:
            ctx.set(port.awready, int(rng.random() < 0.5 and (not waits_for_data or ctx.get(port.wvalid))))
            ctx.set(port.wready, int(bool(open_bursts) and rng.random() < 0.6))
            ctx.set(port.bvalid, int(answers > 0))
            answers -= answers > 0
            held = held + 1 if open_bursts else 0
            if ctx.get(port.awvalid) and ctx.get(port.awready):
                open_bursts.append((ctx.get(port.awaddr) // 8, ctx.get(port.awlen) + 1))
                bursts.append(open_bursts[-1])
            if ctx.get(port.wready):
                # subtle: the data of a burst that was asked for never keeps the port waiting
                assert ctx.get(port.wvalid)
                (beat, left), *rest = open_bursts
                written[beat] = ctx.get(port.wdata)
                assert ctx.get(port.wlast) == (left == 1)
                open_bursts = [(beat + 1, left - 1), *rest] if left > 1 else rest
                answers += left == 1
            await ctx.tick()

    async def give(ctx: Any) -> None:
        rng = np.random.default_rng(2)
        beats = [beat for first, count in REQUESTS for beat in range(first, first + count)]
        for beat in beats:
            await ctx.tick().repeat(int(rng.integers(1, 4)))
            ctx.set(writer.beats.valid, 1)
            ctx.set(writer.beats.payload, 1000 + beat)
            await tick_until(ctx, writer.beats.ready)
            ctx.set(writer.beats.valid, 0)
        await tick_until(ctx, writer.idle)

    simulate(writer, give, memory, ask(writer.request))
    assert written == {beat: 1000 + beat for first, count in REQUESTS for beat in range(first, first + count)}
    assert bursts == [burst for request in REQUESTS for burst in split(*request)]
