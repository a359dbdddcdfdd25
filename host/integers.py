"""The quantized network as a list of integer layers: what the ONNX graphs and the overlay's program are written from.

Every tensor is int8 and stands for `integer * 2^exponent`. A layer computes an exact int32 sum and requantizes it: a
shift with round-half-to-even, then saturation to [-128, 127], then ReLU where asked.
`run` executes the list in NumPy and is the reference that every other executor is compared with, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BeltsightError

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

IMAGE = "image"  # name of the network's input
MAP = "map"  # name of the last layer: the anomaly map
IMAGE_EXPONENT = -7  # an image's integer (pixel - 128) stands for -1..1
INT8_MIN, INT8_MAX = -128, 127
# float32 holds every integer up to here: an executor that carries sums in float32 is exact below it.
EXACT_FLOAT32 = 1 << 24
MAX_SHIFT = 31


class NotExactError(BeltsightError):
    """The network has a layer whose integers not every engine can compute exactly."""


@dataclass(frozen=True)
class Conv:
    """Convolution with zero padding k // 2; `weights` int8 (out, in, k, k) within ±127, `bias` int32 (out,)."""

    name: str
    source: str
    weights: Int8
    weight_exponents: Int32  # (out,): one power-of-two scale for each output channel
    bias: Int32  # in units of the sum: 2^(source exponent + weight exponent)
    exponent: int
    stride: int
    relu: bool


@dataclass(frozen=True)
class Add:
    """Sum of two tensors of equal shape, each first brought to the finer of their two scales (a left shift)."""

    name: str
    left: str
    right: str
    exponent: int


@dataclass(frozen=True)
class Upsample:
    """Each pixel repeated 2 × 2."""

    name: str
    source: str


Layer = Conv | Add | Upsample


@dataclass(frozen=True)
class IntegerNet:
    """Layers in execution order; the last one is named `MAP`. Input int8 (3, height, width) named `IMAGE`."""

    input_px: tuple[int, int]
    layers: tuple[Layer, ...]

    def exponents(self) -> dict[str, int]:
        """Exponent of every tensor by its layer's name."""
        exponents = {IMAGE: IMAGE_EXPONENT}
        for layer in self.layers:
            exponents[layer.name] = exponents[layer.source] if isinstance(layer, Upsample) else layer.exponent
        return exponents

    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """(channels, height, width) of every tensor by its layer's name."""
        shapes: dict[str, tuple[int, int, int]] = {IMAGE: (3, *self.input_px)}
        for layer in self.layers:
            shapes[layer.name] = _output_shape(layer, shapes)
        return shapes


@dataclass(frozen=True)
class Cost:
    layer: str
    macs: int
    weight_bytes: int  # weights int8 and bias int32
    output: tuple[int, int, int]


def conv_shifts(conv: Conv, source_exponent: int) -> Int64:
    """Right shift of each output channel's sum, int64 (out,)."""
    return conv.exponent - source_exponent - conv.weight_exponents.astype(np.int64)


def add_shifts(add: Add, left_exponent: int, right_exponent: int) -> tuple[int, int, int]:
    """(left shift of the left tensor, left shift of the right tensor, right shift of their sum)."""
    finer = min(left_exponent, right_exponent)
    return left_exponent - finer, right_exponent - finer, add.exponent - finer


def requantize(total: Int64, shift: Int64) -> Int64:
    """total / 2^shift, rounded half to even, saturated to int8.

    >>> requantize(np.array([3, 5, -3, 2000]), np.array([1, 1, 1, 1]))
    array([  2,   2,  -2, 127])
    """
    floor = total >> shift
    rest = total - (floor << shift)
    half = (np.int64(1) << shift) >> 1  # 0 where the shift is 0, and then the rest is 0 too
    up = (rest > half) | ((rest == half) & (half > 0) & (floor & 1 == 1))
    result: Int64 = np.clip(floor + up, INT8_MIN, INT8_MAX)
    return result


def run(net: IntegerNet, image: Int8) -> Int8:
    """Anomaly map int8 (h', w') of one image int8 (3, h, w)."""
    exponents = net.exponents()
    tensors: dict[str, Int64] = {IMAGE: image.astype(np.int64)}
    for layer in net.layers:
        tensors[layer.name] = _execute(layer, tensors, exponents)
    anomaly: Int8 = tensors[MAP][0].astype(np.int8)
    return anomaly


def check_exact(net: IntegerNet) -> None:
    """Raises: NotExactError if a sum may leave float32's exact integers, or a shift is not a right shift below 32."""
    exponents = net.exponents()
    for layer in net.layers:
        if isinstance(layer, Conv):
            _check_conv(layer, exponents[layer.source])
        elif isinstance(layer, Add):
            _check_add(layer, exponents)


def costs(net: IntegerNet) -> list[Cost]:
    """What each layer costs for one image."""
    shapes = net.shapes()
    return [_cost(layer, shapes[layer.name]) for layer in net.layers]


def _execute(layer: Layer, tensors: dict[str, Int64], exponents: dict[str, int]) -> Int64:
    if isinstance(layer, Upsample):
        return tensors[layer.source].repeat(2, axis=1).repeat(2, axis=2)
    if isinstance(layer, Add):
        left, right, shift = add_shifts(layer, exponents[layer.left], exponents[layer.right])
        total = (tensors[layer.left] << left) + (tensors[layer.right] << right)
        return requantize(total, np.asarray(shift, np.int64))
    total = _convolve(tensors[layer.source], layer) + layer.bias[:, np.newaxis, np.newaxis]
    result = requantize(total, conv_shifts(layer, exponents[layer.source])[:, np.newaxis, np.newaxis])
    return np.maximum(result, 0) if layer.relu else result


def _convolve(source: Int64, conv: Conv) -> Int64:
    """Sum over input channels and kernel, one tap of the kernel at a time."""
    kernel_px = conv.weights.shape[2]
    pad = kernel_px // 2
    padded = np.pad(source, ((0, 0), (pad, pad), (pad, pad)))
    height, width = (-(-side // conv.stride) for side in source.shape[1:])
    total = np.zeros((conv.weights.shape[0], height, width), np.int64)
    for y in range(kernel_px):
        for x in range(kernel_px):
            rows = padded[:, y : y + source.shape[1] : conv.stride, x : x + source.shape[2] : conv.stride]
            # subtle: float64 is exact here (sums stay below 2^53) and multiplies matrices far faster than int64
            tap = conv.weights[:, :, y, x].astype(np.float64) @ rows.reshape(rows.shape[0], -1).astype(np.float64)
            total += tap.astype(np.int64).reshape(total.shape)
    return total


def _output_shape(layer: Layer, shapes: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    if isinstance(layer, Add):
        return shapes[layer.left]
    channels, height, width = shapes[layer.source]
    if isinstance(layer, Upsample):
        return channels, height * 2, width * 2
    return layer.weights.shape[0], -(-height // layer.stride), -(-width // layer.stride)


def _check_conv(conv: Conv, source_exponent: int) -> None:
    largest = np.abs(conv.weights.astype(np.int64)).sum(axis=(1, 2, 3)) * -INT8_MIN + np.abs(conv.bias.astype(np.int64))
    if largest.max() >= EXACT_FLOAT32:
        channel = int(largest.argmax())
        raise NotExactError(
            f"layer {conv.name}, channel {channel}: a sum may reach {largest.max()}, more than the {EXACT_FLOAT32} "
            "that float32 holds exactly: train again with another seed or fewer channels"
        )
    if np.abs(conv.weights.astype(np.int16)).max() > INT8_MAX:
        raise NotExactError(f"layer {conv.name}: a weight is -128, the overlay takes -127..127: train again")
    _check_shift(conv.name, conv_shifts(conv, source_exponent))


def _check_add(add: Add, exponents: dict[str, int]) -> None:
    left, right, shift = add_shifts(add, exponents[add.left], exponents[add.right])
    if max(left, right) > 16:  # 128 · 2^16 · 2 reaches 2^24
        raise NotExactError(f"layer {add.name}: its two scales lie 2^{max(left, right)} apart: train again")
    _check_shift(add.name, np.array([shift]))


def _check_shift(name: str, shift: Int64) -> None:
    if shift.min() < 0 or shift.max() > MAX_SHIFT:
        raise NotExactError(f"layer {name}: shift {shift.min()}..{shift.max()} is outside 0..{MAX_SHIFT}: train again")


def _cost(layer: Layer, output: tuple[int, int, int]) -> Cost:
    if not isinstance(layer, Conv):
        return Cost(layer.name, 0, 0, output)
    weights = layer.weights.size
    return Cost(layer.name, weights * output[1] * output[2], weights + 4 * len(layer.bias), output)
