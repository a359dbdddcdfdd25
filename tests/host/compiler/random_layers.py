"""Random networks around one layer under test, and their comparison with the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from board.overlay import isa
from board.overlay.golden import run_program
from board.preprocess import as_input
from host.compiler.compilation import Compiled, compile_net
from host.integers.arithmetic import (
    EXACT_FLOAT32,
    IMAGE,
    IMAGE_EXPONENT,
    MAP,
    Conv,
    DepthwiseConv,
    IntegerNet,
    Layer,
    run_all,
)
from tests.host.compiler.ordering import Ordering

EXPONENT = -5


def random_image(rng: np.random.Generator, input_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Noise, or black and white alone: the corners of int8."""
    noise = rng.integers(0, 256, (*input_px, 3)).astype(np.uint8)
    return np.where(noise < 128, np.uint8(0), np.uint8(255)) if rng.integers(3) == 0 else noise


def random_conv(rng: np.random.Generator, name: str, source: str, shape: tuple[int, int, int], stride: int = 1) -> Conv:
    """`shape` (in, out, kernel); weights int4 or int8 or at their ends, results spread over int8 and beyond."""
    channels_in, channels_out, kernel_px = shape
    weights = _random_weights(rng, (channels_out, channels_in, kernel_px, kernel_px))
    exponents, bias = _scales(rng, weights, source)
    relu = bool(rng.integers(2))
    return Conv(name, source, weights, exponents, bias, EXPONENT, stride, relu)


def random_depthwise(
    rng: np.random.Generator, name: str, source: str, shape: tuple[int, int], stride: int
) -> DepthwiseConv:
    channels, kernel_px = shape
    weights = _random_weights(rng, (channels, kernel_px, kernel_px))
    exponents, bias = _scales(rng, weights, source)
    return DepthwiseConv(name, source, weights, exponents, bias, EXPONENT, stride, bool(rng.integers(2)))


def check_net(
    input_px: tuple[int, int],
    layers: list[Layer],
    rng: np.random.Generator,
    garbage: int = 0,
    activation_words: int = isa.ACTIVATION_WORDS,
    *,
    ordinary: bool = True,
) -> Compiled:
    """Compile, execute, and compare the last layer's channels; its name must be MAP.

    Not `ordinary` is a result that may have few different values, such as a maximum.
    """
    net = IntegerNet(input_px, tuple(layers))
    compiled = compile_net(net, activation_words)
    image = random_image(rng, input_px)
    answer = run_program(compiled.program, image, Ordering(), garbage)
    expected = run_all(net, as_input(image)[0])[MAP]
    assert not ordinary or answer.size < 1000 or np.unique(expected).size > 9, "a result without variety shows nothing"
    wrong = np.argwhere(answer != expected)
    assert wrong.size == 0, f"{len(wrong)} wrong, first (channel, row, column) {wrong[0]}: {net}"
    return compiled


def _random_weights(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int8]:
    largest = min(127, EXACT_FLOAT32 // 2 // 128 // int(np.prod(shape[1:])))
    choice = rng.integers(3)
    if choice == 0:
        return rng.integers(-8, 8, shape).astype(np.int8)
    if choice == 1:
        return rng.choice(np.array([-largest, largest], np.int8), shape)
    return rng.integers(-largest, largest + 1, shape).astype(np.int8)


def _scales(
    rng: np.random.Generator, weights: NDArray[np.int8], source: str
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(weight exponents, bias)."""
    spread = np.sqrt((weights.astype(np.float64) ** 2).reshape(len(weights), -1).sum(axis=1)) * 70
    shifts = np.clip(
        np.ceil(np.log2(np.maximum(spread, 1) / 60)).astype(int) - rng.integers(-1, 4, len(weights)), 0, 31
    )
    source_exponent = IMAGE_EXPONENT if source == IMAGE else EXPONENT
    limit = int(spread.max()) + 1
    bias = rng.integers(-limit, limit, len(weights)).astype(np.int32)
    return (EXPONENT - source_exponent - shifts).astype(np.int32), bias
