"""Random integer networks with every kind of layer: they saturate, tie and shift as trained ones seldom do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from host.integers.arithmetic import (
    IMAGE,
    IMAGE_EXPONENT,
    MAP,
    Add,
    ChannelMax,
    Concat,
    Conv,
    DepthwiseConv,
    Int8,
    IntegerNet,
    Layer,
    MaxPool,
    MeanPool,
    Upsample,
)


def random_net(seed: int, input_px: tuple[int, int] = (24, 20)) -> IntegerNet:
    """Odd widths and channel counts, weights at both ends of their range, shifts from 0 on."""
    rng = np.random.default_rng(seed)
    first, second = (int(count) for count in rng.integers(1, 36, 2))
    stem = _conv(rng, "stem", (IMAGE, IMAGE_EXPONENT), (3, first), int(rng.choice([1, 3, 5])), stride=1)
    layers: list[Layer] = [
        stem,
        _depthwise(rng, "each", ("stem", stem.exponent), first, stride=int(rng.integers(1, 3))),
        MaxPool("largest", "each", int(rng.integers(2, 4)), 2),
        MeanPool("mean", "each", int(rng.choice([2, 4])), 2, -5),
        _conv(rng, "wide", ("largest", -5), (first, second), 3, stride=1),
        _conv(rng, "narrow", ("mean", -5), (first, second), 1, stride=1),
        Add("joined", "wide", "narrow", -5),
        _conv(rng, "small", ("joined", -5), (second, second), 3, stride=2),
        Upsample("large", "small"),
        _conv(rng, "same", ("joined", -5), (second, first), 1, stride=1),
    ]
    if _is_even(input_px, layers):
        layers.append(Concat("both", ("large", "same")))
        layers.append(_last(rng, "both", first + second, 1))
    else:
        layers.append(_last(rng, "same", first, 3))
    return IntegerNet(input_px, tuple(layers))


def random_late_net(seed: int) -> IntegerNet:
    """Windows that start late, as TensorFlow's at stride 2, and the largest of all channels."""
    rng = np.random.default_rng([seed, 1])
    height, width = (4 * int(quarter) for quarter in rng.integers(1, 8, 2))
    channels, kernel_px = int(rng.integers(1, 40)), int(rng.choice([3, 5, 7]))
    stem = _conv(rng, "stem", (IMAGE, IMAGE_EXPONENT), (3, channels), kernel_px, stride=2)
    each = _depthwise(rng, "each", ("stem", stem.exponent), channels, stride=2)
    narrow = _conv(rng, "narrow", ("stem", stem.exponent), (channels, channels), 3, stride=2)
    layers: list[Layer] = [replace(layer, late=True) for layer in (stem, each, narrow)]
    layers += [ChannelMax("largest", "each"), Concat("both", ("narrow", "largest"))]
    return IntegerNet((height, width), (*layers, _last(rng, "both", channels + 1, 3)))


def _is_even(input_px: tuple[int, int], layers: list[Layer]) -> bool:
    """Whether a picture that was halved and doubled again has its size back."""
    shapes = IntegerNet(input_px, tuple(layers)).shapes()
    return shapes["large"][1:] == shapes["same"][1:]


def _last(rng: np.random.Generator, source: str, channels: int, kernel_px: int) -> Conv:
    """As many positive as negative weights and no ReLU, so that the map shows what came before."""
    weights = _weights(rng, (1, channels, kernel_px, kernel_px))
    weights.reshape(-1)[::2] = np.abs(weights.reshape(-1)[::2])
    weights.reshape(-1)[1::2] = -np.abs(weights.reshape(-1)[1::2])
    exponents, _ = _scales(rng, weights, -5)
    return Conv(MAP, source, weights, exponents - 3, np.zeros(1, np.int32), -5, 1, relu=False)


def _conv(
    rng: np.random.Generator,
    name: str,
    source: tuple[str, int],
    channels: tuple[int, int],
    kernel_px: int,
    *,
    stride: int,
) -> Conv:
    weights = _weights(rng, (channels[1], channels[0], kernel_px, kernel_px))
    exponents, bias = _scales(rng, weights, source[1])
    return Conv(name, source[0], weights, exponents, bias, -5, stride, bool(rng.integers(2)))


def _depthwise(
    rng: np.random.Generator, name: str, source: tuple[str, int], channels: int, *, stride: int
) -> DepthwiseConv:
    weights = _weights(rng, (channels, 3, 3))
    exponents, bias = _scales(rng, weights, source[1])
    return DepthwiseConv(name, source[0], weights, exponents, bias, -5, stride, bool(rng.integers(2)))


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Int8:
    if rng.integers(3) == 0:
        return rng.choice(np.array([-127, 127], np.int8), shape)
    return rng.integers(-127, 128, shape).astype(np.int8)


def _scales(rng: np.random.Generator, weights: Int8, source_exponent: int) -> tuple[np.ndarray, np.ndarray]:
    """(weight exponents, bias), such that results spread over int8 and beyond it."""
    spread = np.sqrt((weights.astype(np.float64) ** 2).reshape(len(weights), -1).sum(axis=1)) * 60
    shifts = np.maximum(np.ceil(np.log2(np.maximum(spread, 1) / 60)).astype(int) - rng.integers(0, 3, len(weights)), 0)
    if len(weights) >= 8:
        shifts[0] = 0  # sums that leave int16 as well, and are saturated from there
    bias = rng.integers(-20_000, 20_000, len(weights)).astype(np.int32)
    return (-5 - source_exponent - shifts).astype(np.int32), bias
