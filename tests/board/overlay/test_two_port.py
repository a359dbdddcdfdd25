from __future__ import annotations

from typing import Any

import numpy as np

from board.overlay.hardware.two_port import TwoPort
from tests.board.overlay.clocked import simulate

DEPTH, WIDTH, CYCLES = 16, 9, 300


def test_each_port_writes_and_reads_and_its_word_comes_two_cycles_later() -> None:
    part = TwoPort(WIDTH, DEPTH)
    rng = np.random.default_rng(2)

    async def bench(ctx: Any) -> None:
        content: dict[int, int] = {}
        due: list[list[int | None]] = [[None, None], [None, None]]  # of each port, what it read in the last two cycles
        for _ in range(CYCLES):
            places = rng.choice(DEPTH, 2, replace=False)  # nobody reads where another writes
            written = {}
            for port, place, reads in zip(part.ports, map(int, places), due, strict=True):
                writes, value = int(rng.random() < 0.4), int(rng.integers(1 << WIDTH))
                for signal, to in zip(port, (place, writes, value), strict=False):
                    ctx.set(signal, to)
                if reads[0] is not None:
                    assert ctx.get(port.word) == reads[0]
                reads[:] = [reads[1], None if writes else content.get(place)]
                written.update({place: value} if writes else {})
            content.update(written)
            await ctx.tick()

    simulate(part, bench)
