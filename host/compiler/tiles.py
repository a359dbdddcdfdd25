"""The bytes of one Compute instruction's weights: its parameter word and the words of its steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from board.overlay.isa import WeightFormat

Int8 = NDArray[np.int8]
Ints = NDArray[np.generic]

INT4_MIN, INT4_MAX = -8, 7


@dataclass(frozen=True)
class Tile:
    parameters: bytes
    weights: bytes  # of the steps, as INT8
    steps: int
    format: WeightFormat = WeightFormat.INT8

    @property
    def words(self) -> int:
        """In the weight memory."""
        return 1 + self.steps

    def stored_weights(self) -> bytes:
        """The steps' words as they lie in DDR."""
        if self.format == WeightFormat.INT8:
            return self.weights
        nibbles = np.frombuffer(self.weights, np.uint8) & 15
        return (nibbles[0::2] | nibbles[1::2] << 4).tobytes()


def dense_tile(weights: Int8, bias: Ints, shift: Ints) -> Tile:
    """`weights` int8 (up to 12 outputs, steps, 16 inputs); int4 in DDR where all fit."""
    outputs, steps, _ = weights.shape
    words = np.zeros((steps, isa.CHANNELS_OUT, isa.CHANNELS_IN), np.int8)
    words[:, :outputs] = weights.transpose(1, 0, 2)
    small = weights.min() >= INT4_MIN and weights.max() <= INT4_MAX
    packed = WeightFormat.INT4 if small else WeightFormat.INT8
    return Tile(_parameters(bias, shift), words.tobytes(), steps, packed)


def lanes_tile(u: Int8, v: Int8, t: Int8, bias: Ints, shift: Ints) -> Tile:
    """`u`, `v`, `t` int8 (steps, 16)."""
    words = np.zeros((len(u), isa.CHANNELS_OUT, isa.CHANNELS_IN), np.int8)
    channel = np.arange(isa.CHANNELS_IN)
    for first, values in ((0, u), (2, v), (4, t)):
        words[:, first + channel % 2, channel] = values
    return Tile(_parameters(bias, shift), words.tobytes(), len(u))


def uniform_tile(factors: list[int], shift: int) -> Tile:
    """Each step adds its pixel times a factor, in all 16 lanes."""
    u = np.repeat(np.array(factors, np.int8)[:, np.newaxis], isa.CHANNELS_IN, axis=1)
    none = np.zeros_like(u)
    return lanes_tile(u, none, none, np.zeros(isa.CHANNELS_IN), np.full(isa.CHANNELS_IN, shift))


def bare_tile() -> Tile:
    """For a maximum: no weights, no bias, no shift."""
    none = np.zeros(isa.CHANNELS_IN)
    return Tile(_parameters(none, none), b"", 0)


def _parameters(bias: Ints, shift: Ints) -> bytes:
    """A parameter word; lanes beyond those given have bias and shift 0."""
    lane = np.dtype([("bias", "<i4"), ("shift", "u1"), ("unused", "u1", 7)])
    word = np.zeros(isa.CHANNELS_IN, lane)
    word["bias"][: len(bias)] = bias
    word["shift"][: len(shift)] = shift
    return word.tobytes()
