"""A detector that nothing trains: good patches are remembered, and the map says how far a patch lies from all of them.

Features are whitened by the product's own pictures; the squared distance to the nearest patch b of the bank is then

    |f - b|² / 2 = |f|² / 2 - (f · b - |b|² / 2)

a convolution 1 × 1 with the bank as weights, and a maximum over its channels. |f|² / 2 is no convolution: it is put
together from straight lines, as layers with ReLU, and goes into the sums of the bank as two more digits. So every
engine runs the detector as it runs any other network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from host.integers.arithmetic import (
    INT8_MAX,
    INT8_MIN,
    MAP,
    ChannelMax,
    Concat,
    Conv,
    DepthwiseConv,
    Int8,
    Int64,
    IntegerNet,
    Layer,
    check_exact,
    requantize,
)
from host.teaching.backbone import quantize

FEATURES, WHITE = "features", "white"
WHITE_EXPONENT = -4  # a deviation of the product's good patches is 16 steps: what lies beyond 8 of them saturates
RIDGE = 0.1  # of the mean variance is added to each: directions in which few pictures hardly vary are not trusted
# x² / 2 for |x| of 0, 16, 32, 64: between them straight lines, whose slopes rise by 8 times these.
KNOTS, RISES, RISE_UNIT = (0, 16, 32, 64), (1, 2, 3, 6), 8
DIGIT_SHIFT = 6  # the sum of the lines is 64 · high + low
HIGH_WEIGHTS = (127, 127, 127, 127, 4)  # 8 · 64 as weights of int8: the digit is there so often
MAP_EXPONENT = -4
FARTHEST = 0.998  # quantile of the good patches' distances at which the map is 0
MAP_STEPS = 120  # of the map, from a patch of the bank to the farthest good one
BANK_PATCHES = 1000
SKETCH = 24  # random directions by which the bank is chosen
FIRST_CHOICE = 20_000  # patches among which it is chosen: more would only take longer

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Taught:
    """`bank` int8 (patches, channels); `white` is the layer that makes such vectors of features."""

    white: Conv
    bank: Int8
    farthest: float  # half the squared distance that a good patch may have: the map's 0


def teach(features: Int8, feature_exponent: int, rng: np.random.Generator) -> tuple[Taught, Int8]:
    """From features int8 (pictures, channels, h, w) of good pictures; also each picture's map judged by the others.

    Maps are int8 (pictures, h, w), as the detector gives them, but without the picture's own patches in the bank.
    """
    count, channels, height, width = features.shape
    patches = features.transpose(0, 2, 3, 1).reshape(-1, channels)
    white = make_whitening(patches, feature_exponent)
    vectors = whiten(patches, white, feature_exponent)
    chosen = choose_bank(vectors, BANK_PATCHES, rng)
    bank = np.maximum(vectors[chosen], -INT8_MAX)  # weights reach from -127 to 127
    owners = np.repeat(np.arange(count), height * width)
    far = np.concatenate(
        [half_distances(vectors[owners == number], bank[owners[chosen] != number]) for number in range(count)]
    )
    taught = Taught(white, bank, max(1.0, float(np.quantile(far, FARTHEST))))
    maps = to_map(far, taught).reshape(count, height, width)
    return taught, maps


def make_whitening(patches: Int8, feature_exponent: int) -> Conv:
    """A convolution 1 × 1 after which good patches have mean 0 and equal spread in all directions."""
    values = patches * 2.0**feature_exponent
    mean = values.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(values, rowvar=False))
    ridge = (RIDGE + values.shape[1] / len(values)) * variances.mean() + 1e-9  # few patches span few directions
    matrix = (directions / np.sqrt(np.maximum(variances, 0) + ridge)).T
    bias = -matrix @ mean
    weights, exponents, sums = quantize(matrix[:, :, np.newaxis, np.newaxis], bias, feature_exponent, WHITE_EXPONENT)
    return Conv(WHITE, FEATURES, weights, exponents, sums, WHITE_EXPONENT, 1, relu=False)


def whiten(patches: Int8, white: Conv, feature_exponent: int) -> Int8:
    """What the layer `white` gives, int8 (n, channels)."""
    total = patches.astype(np.int64) @ white.weights[:, :, 0, 0].astype(np.int64).T + white.bias
    shifts = white.exponent - feature_exponent - white.weight_exponents.astype(np.int64)
    vectors: Int8 = requantize(total, shifts).astype(np.int8)
    return vectors


def choose_bank(vectors: Int8, most: int, rng: np.random.Generator) -> Int64:
    """Indices of so many vectors that no other lies far from all of them: each next one is the farthest.

    The greedy coreset of PatchCore (Roth et al. 2022, section 3.2), among random projections as there.
    """
    among = np.arange(len(vectors))
    if len(among) > FIRST_CHOICE:
        among = np.sort(rng.choice(among, FIRST_CHOICE, replace=False))
    if len(among) <= most:
        return among
    sketch = (vectors[among] @ rng.normal(size=(vectors.shape[1], SKETCH))).astype(np.float32)
    squares = (sketch**2).sum(axis=1)
    nearest, chosen = np.full(len(sketch), np.inf, np.float32), [int(rng.integers(len(sketch)))]
    while len(chosen) < most:
        last = chosen[-1]
        nearest = np.minimum(nearest, squares + squares[last] - 2 * (sketch @ sketch[last]))
        chosen.append(int(nearest.argmax()))
    bank: Int64 = among[np.sort(np.array(chosen))]
    return bank


def half_distances(vectors: Int8, bank: Int8) -> Int64:
    """Half the squared distance to the nearest of the bank, int64 (n,), as the layers compute it."""
    # subtle: products of float32 are exact here, sums of 80 products below 2^24, and far faster than int64
    products = vectors.astype(np.float32) @ bank.astype(np.float32).T
    likeness = products - half_squares(bank).astype(np.float32)
    nearest: Int64 = estimate_half_squares(vectors) - likeness.max(axis=1).astype(np.int64)
    return nearest


def half_squares(vectors: Int8) -> Int64:
    squares: Int64 = (vectors.astype(np.int64) ** 2).sum(axis=1) // 2
    return squares


def estimate_half_squares(vectors: Int8) -> Int64:
    """By straight lines and in two digits, as the layers "lines", "high" and "low" have it."""
    magnitudes = np.abs(vectors.astype(np.int64))
    lines = (rise * (magnitudes - knot).clip(0, INT8_MAX) for knot, rise in zip(KNOTS, RISES, strict=True))
    total = np.asarray(sum(lines, np.int64(0))).sum(axis=1)
    high = requantize(total, np.asarray(DIGIT_SHIFT, np.int64))
    low = requantize(total - (high << DIGIT_SHIFT), np.asarray(0, np.int64))
    return RISE_UNIT * ((high << DIGIT_SHIFT) + low)


def to_map(distances: Int64, taught: Taught) -> Int8:
    """What the detector's map says where a patch lies so far."""
    shift = map_shift(taught)
    likeness = requantize(map_offset(taught) - distances, np.asarray(shift, np.int64))
    anomaly: Int8 = np.clip(-likeness, INT8_MIN, INT8_MAX).astype(np.int8)
    return anomaly


def map_shift(taught: Taught) -> int:
    return max(0, int(np.ceil(np.log2(taught.farthest / MAP_STEPS))))


def map_offset(taught: Taught) -> int:
    return round(taught.farthest)


def make_detector(backbone: IntegerNet, taught: Taught) -> IntegerNet:
    """Raises: NotExactError."""
    features = backbone.layers[-1]
    if not isinstance(features, Conv | DepthwiseConv):
        raise TypeError("a backbone ends in a convolution")
    layers = (
        *backbone.layers[:-1],
        replace(features, name=FEATURES),
        taught.white,
        *_half_square_layers(taught.white.weights.shape[0]),
        Concat("compared", (WHITE, "high", "low")),
        _compare(taught),
        ChannelMax("likest", "likeness"),
        _plain(MAP, "likest", -np.ones((1, 1), np.int8)),
    )
    net = IntegerNet(backbone.input_px, layers)
    check_exact(net)
    return net


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


def _compare(taught: Taught) -> Conv:
    """Likeness of each patch of the bank: minus half the squared distance, plus the map's 0."""
    bank = taught.bank
    digits = np.repeat(-np.array((*HIGH_WEIGHTS, RISE_UNIT), np.int8)[np.newaxis], len(bank), axis=0)
    bias = map_offset(taught) - half_squares(bank)
    conv = _plain("likeness", "compared", np.concatenate([bank, digits], axis=1), map_shift(taught))
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
