from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from board.overlay import isa
from board.overlay.hardware.fetch import Fetch
from board.overlay.isa import Compute, End, Instruction, LoadImage, LoadTile, LoadWeights, Segment, StoreTile, Unit
from tests.board.overlay.clocked import simulate

FIRST_BEAT = 1234
QUEUE = 8


def words_of(program: Sequence[Instruction]) -> list[int]:
    return [int.from_bytes(isa.encode(item), "little") for item in program]


class Bench:
    """Feeds the beats of `words` after the access, with pauses, and takes from the queues of `served`."""

    def __init__(self, words: list[int], count: int | None = None) -> None:
        self.part = Fetch()
        self.count = len(words) if count is None else count
        self.beats = [word >> 64 * i & (1 << 64) - 1 for word in words for i in range(4)]
        self.accesses: list[tuple[int, int, int]] = []
        self.got: dict[Unit, list[int]] = {unit: [] for unit in Unit}
        self.rng = np.random.default_rng(1)

    async def run(self, ctx: Any, cycles: int, served: Sequence[Unit] = tuple(Unit)) -> None:
        part = self.part
        ctx.set(part.program, FIRST_BEAT)
        ctx.set(part.instructions, self.count)
        ctx.set(part.start, 1)
        for _ in range(cycles):
            ctx.set(part.access.ready, int(self.rng.random() < 0.5))
            offered = bool(self.accesses) and bool(self.beats) and self.rng.random() < 0.8
            ctx.set(part.beats.valid, int(offered))
            ctx.set(part.beats.payload, self.beats[0] if offered else 0)
            for unit in Unit:
                ctx.set(part.queues[unit].ready, int(unit in served and self.rng.random() < 0.3))
            if ctx.get(part.access.valid) and ctx.get(part.access.ready):
                access = ctx.get(part.access.payload)
                self.accesses.append((access.segment, access.offset, access.beats))
            if offered and ctx.get(part.beats.ready):
                assert ctx.get(part.moved)
                self.beats.pop(0)
            for unit in Unit:
                if ctx.get(part.queues[unit].valid) and ctx.get(part.queues[unit].ready):
                    self.got[unit].append(ctx.get(part.queues[unit].payload))
            await ctx.tick()
            ctx.set(part.start, 0)


def test_instructions_go_to_their_units_in_order_up_to_the_end() -> None:
    kinds = [LoadTile, Compute, LoadImage, StoreTile, LoadWeights, Compute, StoreTile]
    program = [kind(signal=0, wait=0) for kind in kinds * 4]
    words = words_of(program)
    words = [word | n << 200 for n, word in enumerate(words)]  # to tell them apart
    bench = Bench([*words, *words_of([End()]), words[0]])

    async def test(ctx: Any) -> None:
        await bench.run(ctx, 700)
        assert ctx.get(bench.part.ended)
        assert ctx.get(bench.part.empty)
        assert ctx.get(bench.part.count) == len(program)
        assert not ctx.get(bench.part.bad_opcode)
        assert not ctx.get(bench.part.no_end)

    simulate(bench.part, test)
    assert bench.accesses == [(Segment.MODEL, FIRST_BEAT, 4 * (len(words) + 2))]
    for unit in Unit:
        assert bench.got[unit] == [w for w, item in zip(words, program, strict=True) if unit == item.UNIT]


def test_a_unit_that_is_busy_has_eight_instructions_waiting() -> None:
    bench = Bench(words_of([*[Compute()] * 10, LoadTile(), End()]))

    async def test(ctx: Any) -> None:
        await bench.run(ctx, 300, served=[Unit.LOAD, Unit.STORE])
        assert ctx.get(bench.part.count) == QUEUE
        assert not ctx.get(bench.part.empty)
        assert bench.got[Unit.LOAD] == []
        await bench.run(ctx, 300)
        assert ctx.get(bench.part.ended)
        assert ctx.get(bench.part.empty)
        assert len(bench.got[Unit.COMPUTE]) == 10

    simulate(bench.part, test)


@pytest.mark.parametrize("opcode", sorted(set(range(16)) - {kind.OPCODE for kind in isa.INSTRUCTIONS}))
def test_an_unknown_opcode_stops_the_fetch(opcode: int) -> None:
    bench = Bench([*words_of([LoadTile()]), opcode, *words_of([LoadTile(), End()])])

    async def test(ctx: Any) -> None:
        await bench.run(ctx, 100)
        assert ctx.get(bench.part.bad_opcode)
        assert ctx.get(bench.part.count) == 1
        assert not ctx.get(bench.part.ended)

    simulate(bench.part, test)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_program_without_end_stops_the_fetch(count: int) -> None:
    bench = Bench(words_of([*[StoreTile()] * count, End()]), count)

    async def test(ctx: Any) -> None:
        await bench.run(ctx, 100)
        assert ctx.get(bench.part.no_end)
        assert ctx.get(bench.part.count) == count
        assert not ctx.get(bench.part.ended)

    simulate(bench.part, test)
    assert len(bench.accesses) == (count > 0)
    assert len(bench.got[Unit.STORE]) == count
