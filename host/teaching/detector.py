"""A detector that nothing trains, as a network: the backbone's layers, and those that compare patches with a bank.

`board/teaching/bank.py` says what is computed, and computes the same integers. So every engine runs the detector as it
runs any other network.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from board.teaching.bank import DIGIT_SHIFT, KNOTS, MAP_EXPONENT, RISE_UNIT, RISES, Detector, half_squares
from board.teaching.whitening import WHITE_EXPONENT, Whitening
from host.integers.arithmetic import (
    MAP,
    ChannelMax,
    Concat,
    Conv,
    DepthwiseConv,
    Int8,
    IntegerNet,
    Layer,
    check_exact,
)

FEATURES, WHITE = "features", "white"
HIGH_WEIGHTS = (127, 127, 127, 127, 4)  # 8 · 64 as weights of int8: the digit is there so often


def make_detector(backbone: IntegerNet, detector: Detector) -> IntegerNet:
    """Raises: NotExactError."""
    features = backbone.layers[-1]
    if not isinstance(features, Conv | DepthwiseConv):
        raise TypeError("a backbone ends in a convolution")
    layers = (
        *backbone.layers[:-1],
        replace(features, name=FEATURES),
        _whiten(detector.bank.white),
        *_half_square_layers(len(detector.bank.white.weights)),
        Concat("compared", (WHITE, "high", "low")),
        _compare(detector),
        ChannelMax("likest", "likeness"),
        _plain(MAP, "likest", -np.ones((1, 1), np.int8)),
    )
    net = IntegerNet(backbone.input_px, layers)
    check_exact(net)
    return net


def _whiten(white: Whitening) -> Conv:
    weights = white.weights[:, :, np.newaxis, np.newaxis]
    return Conv(WHITE, FEATURES, weights, white.weight_exponents, white.bias, WHITE_EXPONENT, 1, relu=False)


def _half_square_layers(channels: int) -> list[Layer]:
    both = np.concatenate([np.eye(channels, dtype=np.int8), -np.eye(channels, dtype=np.int8)])
    lines = np.concatenate([both] * len(KNOTS))
    bias = -np.repeat(np.array(KNOTS, np.int32), 2 * channels)
    rises = np.repeat(np.array(RISES, np.int8), 2 * channels)[np.newaxis]
    taken = np.zeros((1, len(HIGH_WEIGHTS)), np.int8)
    taken[0, 0] = -(1 << DIGIT_SHIFT)
    return [
        replace(_plain("lines", WHITE, lines), bias=bias, relu=True),
        _plain("high", "lines", np.repeat(rises, len(HIGH_WEIGHTS), axis=0), DIGIT_SHIFT),
        Concat("digits", ("lines", "high")),
        _plain("low", "digits", np.concatenate([rises, taken], axis=1)),
    ]


def _compare(detector: Detector) -> Conv:
    """Likeness of each patch of the bank: minus half the squared distance, plus the map's 0."""
    bank = detector.bank.patches
    digits = np.repeat(-np.array((*HIGH_WEIGHTS, RISE_UNIT), np.int8)[np.newaxis], len(bank), axis=0)
    bias = detector.offset - half_squares(bank)
    conv = _plain("likeness", "compared", np.concatenate([bank, digits], axis=1), detector.shift)
    return replace(conv, bias=bias.astype(np.int32))


def _plain(name: str, source: str, weights: Int8, shift: int = 0) -> Conv:
    """A convolution 1 × 1 of integers (out, in), whatever they stand for, with a shift to the right."""
    outputs = len(weights)
    exponents = np.full(outputs, -shift, np.int32)
    return Conv(
        name,
        source,
        weights[:, :, np.newaxis, np.newaxis],
        exponents,
        np.zeros(outputs, np.int32),
        MAP_EXPONENT,
        1,
        relu=False,
    )
