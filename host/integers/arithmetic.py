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
    """Convolution with zero padding k // 2; `weights` int8 (out, in, k, k) within ±127, `bias` int32 (out,).

    A `late` window starts one pixel later: TensorFlow's padding at stride 2, for k = 3 below and right alone.
    """

    name: str
    source: str
    weights: Int8
    weight_exponents: Int32  # (out,): one power-of-two scale for each output channel
    bias: Int32  # in units of the sum: 2^(source exponent + weight exponent)
    exponent: int
    stride: int
    relu: bool
    late: bool = False


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


@dataclass(frozen=True)
class DepthwiseConv:
    """Each channel with a kernel of its own; `weights` int8 (channels, k, k), the rest as in `Conv`."""

    name: str
    source: str
    weights: Int8
    weight_exponents: Int32
    bias: Int32
    exponent: int
    stride: int
    relu: bool
    late: bool = False


@dataclass(frozen=True)
class MaxPool:
    """Largest of k × k pixels; windows start (k - 1) // 2 before the picture, and what lies outside does not count."""

    name: str
    source: str
    kernel_px: int
    stride: int


@dataclass(frozen=True)
class MeanPool:
    """Mean of k × k pixels, k a power of two; windows as of `MaxPool`, and what lies outside counts as zero."""

    name: str
    source: str
    kernel_px: int
    stride: int
    exponent: int


@dataclass(frozen=True)
class ChannelMax:
    """Largest of all channels of a pixel: one channel."""

    name: str
    source: str


@dataclass(frozen=True)
class Concat:
    """Channels of several tensors of equal exponent, height and width, one tensor after the other."""

    name: str
    sources: tuple[str, ...]


Layer = Conv | Add | Upsample | DepthwiseConv | MaxPool | MeanPool | ChannelMax | Concat


@dataclass(frozen=True)
class IntegerNet:
    """Layers in execution order; the last one is named `MAP`. Input int8 (3, height, width) named `IMAGE`."""

    input_px: tuple[int, int]
    layers: tuple[Layer, ...]

    def exponents(self) -> dict[str, int]:
        """Exponent of every tensor by its layer's name."""
        exponents = {IMAGE: IMAGE_EXPONENT}
        for layer in self.layers:
            if isinstance(layer, Upsample | MaxPool | ChannelMax | Concat):  # these only move integers
                exponents[layer.name] = exponents[layer_sources(layer)[0]]
            else:
                exponents[layer.name] = layer.exponent
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


def layer_sources(layer: Layer) -> tuple[str, ...]:
    """Names of the tensors that a layer reads."""
    if isinstance(layer, Add):
        return layer.left, layer.right
    return layer.sources if isinstance(layer, Concat) else (layer.source,)


def rows_before(layer: Conv | DepthwiseConv | MaxPool | MeanPool) -> int:
    """Rows, and columns, by which the first window begins outside the picture; behind the last are kernel // 2."""
    if isinstance(layer, MaxPool | MeanPool):
        return (layer.kernel_px - 1) // 2
    return int(layer.weights.shape[-1]) // 2 - layer.late


def conv_shifts(conv: Conv | DepthwiseConv, source_exponent: int) -> Int64:
    """Right shift of each output channel's sum, int64 (out,)."""
    return conv.exponent - source_exponent - conv.weight_exponents.astype(np.int64)


def add_shifts(add: Add, left_exponent: int, right_exponent: int) -> tuple[int, int, int]:
    """(left shift of the left tensor, left shift of the right tensor, right shift of their sum)."""
    finer = min(left_exponent, right_exponent)
    return left_exponent - finer, right_exponent - finer, add.exponent - finer


def mean_shift(pool: MeanPool, source_exponent: int) -> int:
    """Right shift of the sum of a window."""
    return pool.exponent - source_exponent + (pool.kernel_px**2).bit_length() - 1


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
    anomaly: Int8 = run_all(net, image)[MAP][0]
    return anomaly


def run_all(net: IntegerNet, image: Int8) -> dict[str, Int8]:
    """Every tensor int8 (channels, height, width) by its layer's name."""
    exponents = net.exponents()
    tensors: dict[str, Int64] = {IMAGE: image.astype(np.int64)}
    for layer in net.layers:
        tensors[layer.name] = _execute(layer, tensors, exponents)
    return {name: tensor.astype(np.int8) for name, tensor in tensors.items()}


def check_exact(net: IntegerNet) -> None:
    """Raises: NotExactError if a sum may leave float32's exact integers, or a shift is not a right shift below 32."""
    exponents, shapes = net.exponents(), net.shapes()
    for layer in net.layers:
        if isinstance(layer, Conv | DepthwiseConv):
            _check_late(layer, shapes[layer.source])
            _check_conv(layer, exponents[layer.source])
        elif isinstance(layer, MeanPool):
            _check_mean(layer, exponents[layer.source])
        elif isinstance(layer, Concat):
            _check_concat(layer, exponents)
        elif isinstance(layer, Add):
            _check_add(layer, exponents)


def costs(net: IntegerNet) -> list[Cost]:
    """What each layer costs for one image."""
    shapes = net.shapes()
    return [_cost(layer, shapes[layer.name]) for layer in net.layers]


def _execute(layer: Layer, tensors: dict[str, Int64], exponents: dict[str, int]) -> Int64:
    if isinstance(layer, Upsample):
        return tensors[layer.source].repeat(2, axis=1).repeat(2, axis=2)
    if isinstance(layer, Concat):
        return np.concatenate([tensors[source] for source in layer.sources])
    if isinstance(layer, MaxPool | ChannelMax):
        return _largest(tensors[layer.source], layer)
    if isinstance(layer, MeanPool):
        total = sum(_taps(tensors[layer.source], layer, layer.kernel_px).values(), np.int64(0))
        return requantize(total, np.asarray(mean_shift(layer, exponents[layer.source]), np.int64))
    if isinstance(layer, Add):
        left, right, shift = add_shifts(layer, exponents[layer.left], exponents[layer.right])
        total = (tensors[layer.left] << left) + (tensors[layer.right] << right)
        return requantize(total, np.asarray(shift, np.int64))
    total = _convolve(tensors[layer.source], layer) + layer.bias[:, np.newaxis, np.newaxis]
    result = requantize(total, conv_shifts(layer, exponents[layer.source])[:, np.newaxis, np.newaxis])
    return np.maximum(result, 0) if layer.relu else result


def _convolve(source: Int64, conv: Conv | DepthwiseConv) -> Int64:
    """Sum over the kernel and, if dense, the input channels; one tap of the kernel at a time."""
    total = np.int64(0)
    for (y, x), tap in _taps(source, conv, conv.weights.shape[-1]).items():
        weights = conv.weights[..., y, x].astype(np.float64)
        # subtle: float64 is exact here (sums stay below 2^53) and multiplies matrices far faster than int64
        pixels = tap.reshape(tap.shape[0], -1).astype(np.float64)
        product = weights @ pixels if isinstance(conv, Conv) else weights[:, np.newaxis] * pixels
        total = total + product.astype(np.int64).reshape(-1, *tap.shape[1:])
    return np.asarray(total)


def _largest(source: Int64, layer: MaxPool | ChannelMax) -> Int64:
    if isinstance(layer, ChannelMax):
        return np.asarray(source.max(axis=0, keepdims=True))
    largest: Int64 = np.max(list(_taps(source, layer, layer.kernel_px, INT8_MIN).values()), axis=0)
    return largest


def _taps(
    source: Int64, layer: Conv | DepthwiseConv | MaxPool | MeanPool, kernel_px: int, outside: int = 0
) -> dict[tuple[int, int], Int64]:
    """For each (row, column) of the kernel, the pixels under it (channels, h', w'); `outside` surrounds the picture."""
    before, after, stride = rows_before(layer), kernel_px // 2, layer.stride
    padded = np.pad(source, ((0, 0), (before, after), (before, after)), constant_values=outside)
    height, width = source.shape[1:]
    places = ((y, x) for y in range(kernel_px) for x in range(kernel_px))
    return {(y, x): padded[:, y : y + height : stride, x : x + width : stride] for y, x in places}


def _output_shape(layer: Layer, shapes: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    if isinstance(layer, Concat):
        channels = sum(shapes[source][0] for source in layer.sources)
        return channels, *shapes[layer.sources[0]][1:]
    channels, height, width = shapes[layer_sources(layer)[0]]
    if isinstance(layer, Add):
        return channels, height, width
    if isinstance(layer, ChannelMax):
        return 1, height, width
    if isinstance(layer, Upsample):
        return channels, height * 2, width * 2
    if isinstance(layer, Conv):
        channels = layer.weights.shape[0]
    return channels, -(-height // layer.stride), -(-width // layer.stride)


def _check_late(conv: Conv | DepthwiseConv, source: tuple[int, int, int]) -> None:
    """Elsewhere the last window would begin behind what lies around the picture."""
    _, height, width = source
    fits = conv.stride == 2 and height % 2 == width % 2 == 0 and conv.weights.shape[-1] > 1
    if conv.late and not fits:
        raise NotExactError(
            f"layer {conv.name}: a window that starts late takes stride 2, a kernel of 3 or more and even sides, not "
            f"stride {conv.stride} on {width} × {height} pixels: choose an input size that can be halved so often"
        )


def _check_conv(conv: Conv | DepthwiseConv, source_exponent: int) -> None:
    magnitudes = np.abs(conv.weights.astype(np.int64)).reshape(len(conv.weights), -1).sum(axis=1)
    largest = magnitudes * -INT8_MIN + np.abs(conv.bias.astype(np.int64))
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


def _check_mean(pool: MeanPool, source_exponent: int) -> None:
    if pool.kernel_px & (pool.kernel_px - 1):
        raise NotExactError(f"layer {pool.name}: a mean over {pool.kernel_px}² pixels is no shift: use 2, 4 or 8")
    _check_shift(pool.name, np.array([mean_shift(pool, source_exponent)]))


def _check_concat(concat: Concat, exponents: dict[str, int]) -> None:
    if len({exponents[source] for source in concat.sources}) != 1:
        raise NotExactError(f"layer {concat.name}: its tensors have unequal scales: give them one quantizer")


def _check_shift(name: str, shift: Int64) -> None:
    if shift.min() < 0 or shift.max() > MAX_SHIFT:
        raise NotExactError(f"layer {name}: shift {shift.min()}..{shift.max()} is outside 0..{MAX_SHIFT}: train again")


def _cost(layer: Layer, output: tuple[int, int, int]) -> Cost:
    if not isinstance(layer, Conv | DepthwiseConv):
        return Cost(layer.name, 0, 0, output)
    weights = layer.weights.size
    return Cost(layer.name, weights * output[1] * output[2], weights + 4 * len(layer.bias), output)
