"""The load unit beside a memory that takes its time, against the golden model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from board.overlay import isa
from board.overlay.golden import Machine
from board.overlay.hardware.load import LoadUnit
from board.overlay.isa import LoadImage, LoadTile, LoadWeights, Segment, WeightFormat
from tests.board.overlay.clocked import simulate

Load = LoadTile | LoadImage | LoadWeights
SEGMENT_BYTES = 4096
MOST_CYCLES = 4000


class Memory:
    """Four segments; serves one row's access after the other, its beats in order and with pauses."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.segments = [rng.integers(0, 256, SEGMENT_BYTES, dtype=np.uint8) for _ in Segment]
        self.accesses: list[tuple[int, int, int]] = []
        self.waiting: list[int] = []
        self.rng = rng

    def offer(self, ctx: Any, part: LoadUnit) -> None:
        ctx.set(part.rows.access.ready, int(self.rng.random() < 0.5))
        offered = bool(self.waiting) and self.rng.random() < 0.7
        ctx.set(part.beats.valid, int(offered))
        ctx.set(part.beats.payload, self.waiting[0] if offered else int(self.rng.integers(1 << 62)))

    def sample(self, ctx: Any, part: LoadUnit) -> None:
        if ctx.get(part.beats.valid) and ctx.get(part.beats.ready):
            assert ctx.get(part.moved)
            self.waiting.pop(0)
        access = part.rows.access
        if ctx.get(access.valid) and ctx.get(access.ready):
            now = ctx.get(access.payload)
            self.accesses.append((now.segment, now.offset, now.beats))
            beats = self.segments[now.segment].view("<u8")
            self.waiting += beats[now.offset : now.offset + now.beats].tolist()


class Written:
    """Words that the unit writes."""

    def __init__(self) -> None:
        self.activations: dict[int, bytes] = {}
        self.weights: dict[tuple[int, int], bytes] = {}

    def sample(self, ctx: Any, part: LoadUnit) -> bool:
        if ctx.get(part.write):
            self.activations[ctx.get(part.write_address)] = ctx.get(part.write_data).to_bytes(16, "little")
        if ctx.get(part.weight_write):
            place = (ctx.get(part.weight_word), ctx.get(part.weight_row))
            self.weights[place] = ctx.get(part.weight_data).to_bytes(16, "little")
        return bool(ctx.get(part.write) or ctx.get(part.weight_write))


async def execute(ctx: Any, part: LoadUnit, load: Load, memory: Memory) -> Written:
    """One instruction: it is taken at once, and finished after the last write."""
    written = Written()
    assert ctx.get(part.idle)
    ctx.set(part.instruction.payload, int.from_bytes(isa.encode(load), "little"))
    ctx.set(part.instruction.valid, 1)
    assert ctx.get(part.instruction.ready)
    await ctx.tick()
    ctx.set(part.instruction.payload, (1 << 256) - 1)  # the unit has its own copy
    ctx.set(part.instruction.valid, 0)
    for _ in range(MOST_CYCLES):
        assert not ctx.get(part.idle)
        memory.offer(ctx, part)
        memory.sample(ctx, part)
        wrote, finished = written.sample(ctx, part), ctx.get(part.finished)
        await ctx.tick()
        if finished:
            assert not wrote
            assert not memory.waiting
            return written
    raise AssertionError("the load does not end")


def check(written: Written, load: Load, memory: Memory) -> None:
    """Exactly the words that the golden model writes, with its bytes."""
    golden = [Machine(memory.segments, garbage=seed) for seed in (1, 2)]
    for machine in golden:
        machine.execute(load)
    # what two machines with other garbage agree on was written (a word of garbage is equal once in 2^128)
    same = (golden[0].activations == golden[1].activations).all(axis=1)
    words = {int(i): golden[0].activations[i].tobytes() for i in np.flatnonzero(same)}
    assert written.activations == words
    rows = [machine.weights.reshape(isa.WEIGHT_WORDS, isa.CHANNELS_OUT, isa.WORD_BYTES) for machine in golden]
    places = np.argwhere((rows[0] == rows[1]).all(axis=2))
    assert written.weights == {(int(word), int(row)): rows[0][word, row].tobytes() for word, row in places}


def accesses_of(load: Load) -> list[tuple[int, int, int]]:
    """(segment, first beat, beats), one a row."""
    if isinstance(load, LoadWeights):
        beats = load.words * (24 if load.format == WeightFormat.INT8 else 12)
        return [(load.segment, load.address, beats)]
    beats = 2 * load.cols * load.words if isinstance(load, LoadTile) else -(-3 * load.cols // 8)
    return [(load.segment, load.address + row * load.pitch, beats) for row in range(load.rows)]


LOADS: list[Load] = [
    LoadTile(segment=Segment.SCRATCH, base=5),
    LoadTile(segment=Segment.INPUT, address=3, pitch=40, rows=3, cols=4, words=3, base=16_370, base_row=37, base_col=7),
    LoadTile(segment=Segment.OUTPUT, address=10, pitch=0, rows=2, cols=2, words=2, base=100, base_row=4, base_col=2),
    LoadImage(
        segment=Segment.INPUT, pitch=9, rows=3, cols=21, words=10, stride=2, lead=2, base=9, base_row=12, base_col=1
    ),
    LoadImage(segment=Segment.INPUT, address=7, cols=1, words=3, lead=2, base=16_383, base_col=5),
    # pixels of the row behind the last word
    LoadImage(segment=Segment.INPUT, pitch=8, rows=2, cols=21, words=1, lead=-2, base=40, base_row=1, base_col=1),
    LoadWeights(address=2, words=3, base=1022),
    LoadWeights(segment=Segment.SCRATCH, address=1, words=5, base=7, format=WeightFormat.INT4),
]


@pytest.mark.parametrize("load", LOADS)
def test_a_load_writes_what_the_golden_model_writes(load: Load) -> None:
    part, memory = LoadUnit(), Memory(1)

    async def bench(ctx: Any) -> None:
        check(await execute(ctx, part, load, memory), load, memory)

    simulate(part, bench)
    assert memory.accesses == accesses_of(load)


def test_loads_leave_nothing_for_the_next() -> None:
    part, memory = LoadUnit(), Memory(2)
    order = np.random.default_rng(3).permutation(2 * len(LOADS)) % len(LOADS)

    async def bench(ctx: Any) -> None:
        for number in order:
            check(await execute(ctx, part, LOADS[number], memory), LOADS[number], memory)

    simulate(part, bench)
    assert memory.accesses == [access for number in order for access in accesses_of(LOADS[number])]


def test_an_image_takes_a_cycle_a_pixel() -> None:
    part, memory = LoadUnit(), Memory(4)
    load = LoadImage(segment=Segment.INPUT, pitch=24, rows=8, cols=64, words=32, stride=2, base_row=32, base_col=1)
    cycles = 0

    async def bench(ctx: Any) -> None:
        nonlocal cycles
        ctx.set(part.instruction.payload, int.from_bytes(isa.encode(load), "little"))
        ctx.set(part.instruction.valid, 1)
        ctx.set(part.beats.valid, 1)
        ctx.set(part.rows.access.ready, 1)
        await ctx.tick()
        while not ctx.get(part.finished):
            cycles += 1
            await ctx.tick()

    simulate(part, bench)
    assert cycles <= load.rows * (load.cols + 3) + 30, memory.accesses
