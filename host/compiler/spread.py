"""Weights of a layer in the order in which Compute's steps read them, int8 (outputs or 1, steps, 16 · blocks)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from host.compiler.operations import Group
from host.compiler.tiles import Int8, Ints, dense_tile, lanes_tile

Positions = NDArray[np.int64]
APART_WORDS = 4


def words_of(channels: int) -> int:
    return -(-channels // isa.WORD_BYTES)


def spread_conv(weights: Int8, positions: Positions, words: int) -> Int8:
    """int8 (out, steps, 16) of `weights` (out, in, k, k); input channel c lies at byte positions[c] of `words`."""
    outputs, _, kernel_px, _ = weights.shape
    spread = np.zeros((outputs, kernel_px, kernel_px, words * isa.WORD_BYTES), np.int8)
    spread[..., positions] = weights.transpose(0, 2, 3, 1)
    return spread.reshape(outputs, -1, isa.CHANNELS_IN)


def spread_image_conv(weights: Int8) -> Int8:
    """For words of five pixels, as LoadImage makes them: a kernel row is one step, or two for a kernel of 7."""
    outputs, colours, kernel_px, _ = weights.shape
    words = -(-kernel_px // isa.IMAGE_TAPS)
    taps = np.zeros((outputs, kernel_px, words * isa.IMAGE_TAPS, colours), np.int8)
    taps[:, :, :kernel_px] = weights.transpose(0, 2, 3, 1)
    spread = np.zeros((outputs, kernel_px * words, isa.CHANNELS_IN), np.int8)
    spread[:, :, : 3 * isa.IMAGE_TAPS] = taps.reshape(outputs, kernel_px * words, -1)
    return spread


def dense_groups(weights: Int8, bias: Ints, shift: Ints) -> tuple[Group, ...]:
    """One for 12 outputs of `weights` int8 (outputs, steps, 16)."""
    groups = []
    for start in range(0, len(weights), isa.CHANNELS_OUT):
        some = slice(start, start + isa.CHANNELS_OUT)
        tile = dense_tile(weights[some], bias[some], shift[some])
        groups.append(
            Group(tile, block=0, quad=start // isa.QUAD_BYTES, quads=-(-len(weights[some]) // isa.QUAD_BYTES))
        )
    return tuple(groups)


def apart_groups(positions: Positions, words: int, lanes: int) -> tuple[Group, ...]:
    """Channels moved, `lanes` of them at the beginning of each of four words: a maximum over words then compares them.

    Channel c lies at byte positions[c] of `words`; where there are fewer than 4 · lanes, the last one is repeated.
    """
    groups = []
    for word in range(APART_WORDS):
        chosen = positions[np.minimum(np.arange(word * lanes, (word + 1) * lanes), len(positions) - 1)]
        weights = np.zeros((lanes, words * isa.WORD_BYTES), np.int8)
        weights[np.arange(lanes), chosen] = 1
        none = np.zeros(lanes, np.int64)
        tile = dense_tile(weights.reshape(lanes, -1, isa.CHANNELS_IN), none, none)
        groups.append(Group(tile, block=0, quad=4 * word, quads=1))
    return tuple(groups)


def depthwise_groups(weights: Int8, bias: Ints, shift: Ints, *, paired: bool) -> tuple[Group, ...]:
    """One for a word of `weights` int8 (bytes of the pixel, k, k).

    `paired`, for stride 1: a step serves two taps of both pixels (table "How layers are written" of ARCHITECTURE.md).
    """
    size, kernel_px, _ = weights.shape
    taps = np.zeros((kernel_px, kernel_px + 3, size), np.int8)
    taps[:, 1 : 1 + kernel_px] = weights.transpose(1, 2, 0)  # column 0 lies left of the kernel
    u = taps[:, 1 : 1 + kernel_px]
    v = t = np.zeros_like(u)
    if paired:
        steps = kernel_px // 2 + 1
        u, v, t = (taps[:, first::2][:, :steps] for first in (1, 2, 0))
    groups = []
    for block in range(size // isa.WORD_BYTES):
        lanes = slice(block * isa.WORD_BYTES, (block + 1) * isa.WORD_BYTES)
        some_u, some_v, some_t = (part[:, :, lanes].reshape(-1, isa.WORD_BYTES) for part in (u, v, t))
        tile = lanes_tile(some_u, some_v, some_t, bias[lanes], shift[lanes])
        groups.append(Group(tile, block, 4 * block, 4))
    return tuple(groups)
