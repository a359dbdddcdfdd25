from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from board.overlay.hardware.fold import Fold
from board.overlay.hardware.tile import TileWords
from tests.board.overlay.clocked import simulate


@pytest.mark.parametrize(
    ("cols", "words", "stride", "lead"),
    [
        (16, 8, 2, 2),
        (8, 8, 1, 1),
        (7, 3, 2, 3),
        (13, 2, 1, -3),
        (1, 4, 1, 2),
        (5, 1, 2, 30),
        (40, 1, 1, -31),
        (3, 9, 2, 0),
    ],
)
def test_fold_makes_words_of_five_pixels(cols: int, words: int, stride: int, lead: int) -> None:
    rows = 3
    part = Fold()
    rng = np.random.default_rng(cols)
    picture = rng.integers(0, 256, (rows, cols, 3), dtype=np.uint8)
    beats_a_row = -(-3 * cols // 8)
    padded = np.zeros((rows, 8 * beats_a_row), np.uint8)
    padded[:, : 3 * cols] = picture.reshape(rows, -1)
    beats = padded.reshape(-1).view("<u8").tolist()
    got: list[bytes] = []

    async def bench(ctx: Any) -> None:
        for signal, value in (
            (part.rows_last, rows - 1),
            (part.cols_last, cols - 1),
            (part.words_last, words - 1),
            (part.stride_last, stride - 1),
            (part.lead, lead),
            (part.start, 1),
        ):
            ctx.set(signal, value)
        await ctx.tick()
        ctx.set(part.start, 0)
        sent = 0
        while ctx.get(part.running):
            offered = sent < len(beats) and rng.random() < 0.8
            ctx.set(part.beats.valid, int(offered))
            ctx.set(part.beats.payload, beats[sent] if offered else 0)
            if ctx.get(part.word_valid):
                got.append(ctx.get(part.word).to_bytes(16, "little"))
            sent += offered and ctx.get(part.beats.ready)
            await ctx.tick()
        assert sent == len(beats)

    simulate(part, bench)
    want = []
    for row in picture:
        for x in range(words):
            taken = [x * stride - lead + tap for tap in range(5)]
            pixels = [bytes(row[i] ^ 0x80) if 0 <= i < cols else bytes(3) for i in taken]
            want.append(b"".join(pixels) + b"\0")
    assert got == want


def test_tile_words_go_row_by_row() -> None:
    part = TileWords()
    rows, cols, words, base, base_row, base_col = 3, 2, 4, 16_380, 29, 5
    got = []

    async def bench(ctx: Any) -> None:
        for signal, value in (
            (part.base, base),
            (part.base_row, base_row),
            (part.base_col, base_col),
            (part.rows_last, rows - 1),
            (part.cols_last, cols - 1),
            (part.words_last, words - 1),
            (part.start, 1),
        ):
            ctx.set(signal, value)
        await ctx.tick()
        ctx.set(part.start, 0)
        ctx.set(part.next, 1)
        while ctx.get(part.valid):
            got.append(ctx.get(part.address))
            await ctx.tick()

    simulate(part, bench)
    want = [base + y * base_row + x * base_col + i for y in range(rows) for x in range(cols) for i in range(words)]
    assert got == [word % 16_384 for word in want]
