"""The store unit between an activation memory that others use too and a writer that takes its time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from board.overlay import isa
from board.overlay.golden import Machine
from board.overlay.hardware.activation import ActivationMemory
from board.overlay.hardware.store import StoreUnit
from board.overlay.isa import Segment, StoreTile
from tests.board.overlay.clocked import simulate

SEGMENT_BYTES = 4096
MOST_CYCLES = 4000
ANSWER_CYCLES = 9  # from the last beat to the memory's answer
STORES = [
    StoreTile(segment=Segment.OUTPUT, base=16_383),
    StoreTile(
        segment=Segment.OUTPUT, address=3, pitch=40, rows=3, cols=4, words=3, base=16_370, base_row=37, base_col=7
    ),
    StoreTile(segment=Segment.SCRATCH, pitch=16, rows=5, cols=8, base=77, base_row=9, base_col=1),
    StoreTile(segment=Segment.SCRATCH, address=9, words=30, base=4090, base_row=9, base_col=1),
]


class Surroundings:
    """The activations behind a port that is sometimes refused, and the memory of the segments."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.machine = Machine([np.zeros(SEGMENT_BYTES, np.uint8) for _ in Segment], garbage=seed)
        self.read: list[int] = [0] * ActivationMemory.PORT_CYCLES  # words on their way
        self.targets: list[tuple[int, int]] = []  # (segment, beat) asked for and not yet written
        self.segments = [np.zeros(SEGMENT_BYTES, np.uint8) for _ in Segment]
        self.quiet = 0  # cycles since the last beat

    def drive(self, ctx: Any, part: StoreUnit) -> None:
        ctx.set(part.read_grant, int(self.rng.random() < 0.6))
        ctx.set(part.read_data, self.read[0])
        ctx.set(part.rows.access.ready, int(self.rng.random() < 0.5))
        ctx.set(part.beats.ready, int(bool(self.targets) and self.rng.random() < 0.6))
        ctx.set(part.written, int(not self.targets and self.quiet >= ANSWER_CYCLES))

    def sample(self, ctx: Any, part: StoreUnit) -> None:
        word = int(self.rng.integers(1 << 62))  # what others read
        if ctx.get(part.read) and ctx.get(part.read_grant):
            word = int.from_bytes(self.machine.activations[ctx.get(part.read_address)].tobytes(), "little")
        self.read = [*self.read[1:], word]
        self.quiet += 1
        access = part.rows.access
        if ctx.get(access.valid) and ctx.get(access.ready):
            now = ctx.get(access.payload)
            self.targets += [(now.segment, now.offset + beat) for beat in range(now.beats)]
            self.quiet = 0
        if ctx.get(part.beats.valid) and ctx.get(part.beats.ready):
            segment, beat = self.targets.pop(0)
            self.segments[segment].view("<u8")[beat] = ctx.get(part.beats.payload)
            self.quiet = 0


async def execute(ctx: Any, part: StoreUnit, store: StoreTile, around: Surroundings) -> None:
    assert ctx.get(part.idle)
    ctx.set(part.instruction.payload, int.from_bytes(isa.encode(store), "little"))
    ctx.set(part.instruction.valid, 1)
    for _ in range(MOST_CYCLES):
        around.drive(ctx, part)
        finished = ctx.get(part.finished)
        # the instruction is over when the memory has answered its last burst
        assert not finished or around.quiet >= ANSWER_CYCLES
        around.sample(ctx, part)
        await ctx.tick()
        ctx.set(part.instruction.valid, 0)
        ctx.set(part.instruction.payload, (1 << 256) - 1)
        if finished:
            return
    raise AssertionError("the store does not end")


@pytest.mark.parametrize("first", range(len(STORES)))
def test_a_store_writes_what_the_golden_model_writes(first: int) -> None:
    part, around = StoreUnit(), Surroundings(first)

    async def bench(ctx: Any) -> None:
        for store in (*STORES[first:], *STORES[:first]):
            await execute(ctx, part, store, around)
            around.machine.execute(store)
            for got, want in zip(around.segments, around.machine.segments, strict=True):
                assert (got == want).all()

    simulate(part, bench)
