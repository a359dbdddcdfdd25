"""The integer network out of `model.onnx`: from the QDQ graph's nodes back to layers of whole numbers.

The graph says DequantizeLinear, operator, QuantizeLinear; scales are powers of two, so that a layer is a sum of
integers, a shift and a saturation. What is not of that form is refused, not approximated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from board.engines.kernels.onnx_file import Array, Graph, Node
from protocol.errors import EngineError

Kind = Literal["Conv", "Add", "Concat", "MaxPool", "AveragePool", "ReduceMax", "Resize"]
IMAGE_EXPONENT = -7  # an image's integer stands for -1..1
INT8_MAX = 127
MAX_SHIFT = 31
MAX_LEFT_SHIFT = 16  # of a sum's finer tensor: 128 · 2^16 · 2 stays within 2^24
EXACT = 1 << 24  # every sum is below it in magnitude: `host.integers.arithmetic.check_exact`


@dataclass(frozen=True)
class Layer:
    """`weights` int8 (out, in, k, k), in = 1 where `depthwise`; `bias` int32 (out,); `shift` int32 (out,) or (1,)."""

    kind: Kind
    name: str
    sources: tuple[str, ...]
    kernel_px: int = 1
    stride: int = 1
    before: int = 0  # rows and columns by which the first window begins outside the picture
    relu: bool = False
    depthwise: bool = False
    weights: NDArray[np.int8] | None = None
    bias: NDArray[np.int32] | None = None
    shift: NDArray[np.int32] | None = None
    left: tuple[int, int] = (0, 0)  # shifts of an Add's two tensors


@dataclass(frozen=True)
class _Value:
    """What a DequantizeLinear gives: a tensor's name or a constant, with exponents of two."""

    tensor: str
    constant: Array | None
    exponents: NDArray[np.int64]


def read_network(graph: Graph) -> list[Layer]:
    """Layers in execution order, the last one named 'map'. Raises: EngineError for a graph that is not of our form."""
    try:
        return _Reader(graph).read()
    except (ValueError, IndexError, KeyError) as error:
        raise _refuse(f"{type(error).__name__} {error}") from None


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._values: dict[str, _Value] = {}
        self._sums: dict[str, Node] = {}  # operators whose QuantizeLinear is still to come
        self._names: dict[str, str] = {}  # where a Clip gives a tensor its last name
        self._exponents: dict[str, int] = {"image": IMAGE_EXPONENT}
        self._layers: list[Layer] = []

    def read(self) -> list[Layer]:
        self._names = {node.inputs[0]: node.output for node in self._graph.nodes if node.operator == "Clip"}
        for node in self._graph.nodes:
            if node.operator == "DequantizeLinear":
                self._values[node.output] = self._dequantize(node)
            elif node.operator == "QuantizeLinear":
                self._quantize(node)
            elif node.operator == "Resize":
                self._upsample(node)
            elif node.operator == "Clip":
                self._check_clip(node)
            else:
                self._sums[node.output] = node
        if not self._layers or self._layers[-1].name != "map":
            raise _refuse("its last layer is not 'map'")
        return self._layers

    def _dequantize(self, node: Node) -> _Value:
        tensor, scale, zero = node.inputs
        if np.any(self._graph.constants[zero]):
            raise _refuse(f"{node.output} has a zero point")
        return _Value(tensor, self._graph.constants.get(tensor), _exponents(self._graph.constants[scale]))

    def _quantize(self, node: Node) -> None:
        total, scale, zero = node.inputs
        name = self._names.get(node.output, node.output)
        (exponent,) = _exponents(self._graph.constants[scale]).reshape(-1).tolist()
        is_unsigned = self._graph.constants[zero].dtype == np.uint8
        if is_unsigned != (name != node.output) or np.any(self._graph.constants[zero]):
            raise _refuse(f"{name} is unsigned without a Clip at {INT8_MAX}, or has a zero point")
        operator = self._sums.pop(total)
        self._exponents[name] = exponent
        self._layers.append(self._layer(operator, name, exponent, relu=is_unsigned))

    def _layer(self, node: Node, name: str, exponent: int, *, relu: bool) -> Layer:
        if node.operator == "Conv":
            return self._conv(node, name, exponent, relu=relu)
        values = [self._values[source] for source in node.inputs]
        sources = tuple(value.tensor for value in values)
        given = [self._exponent(value) for value in values]
        if node.operator == "Add":
            return _add(name, sources, given, exponent, relu=relu)
        if node.operator == "AveragePool":
            return _mean_pool(node, name, sources, given[0], exponent)
        if node.operator not in ("Concat", "MaxPool", "ReduceMax") or set(given) != {exponent}:
            raise _refuse(f"{name} is a {node.operator} with scales of its own")
        if node.operator == "ReduceMax":
            return _channel_max(node, name, sources)
        if node.operator == "Concat":
            return Layer("Concat", name, sources)
        return Layer("MaxPool", name, sources, *_pool_window(node))

    def _conv(self, node: Node, name: str, exponent: int, *, relu: bool) -> Layer:
        source, weights, bias = (self._values[value] for value in node.inputs)
        if weights.constant is None or bias.constant is None:
            raise _refuse(f"{name} has weights that are computed")
        sum_exponents = self._exponent(source) + weights.exponents
        if not np.array_equal(bias.exponents, sum_exponents):
            raise _refuse(f"{name} has a bias in other units than its sum")
        groups = node.integers.get("group", (1,))[0]
        if groups != 1 and weights.constant.shape[:2] != (groups, 1):
            raise _refuse(f"{name} is grouped and not depthwise")
        kernel_px, stride, before = _window(node)
        if before not in (kernel_px // 2, kernel_px // 2 - 1):
            raise _refuse(f"{name} is padded by {before}")
        shape = weights.constant.shape
        if weights.constant.dtype != np.int8 or shape[2:] != (kernel_px, kernel_px) or kernel_px % 2 == 0:
            raise _refuse(f"{name} has weights {weights.constant.dtype} {shape}")
        kept = weights.constant.astype(np.int8)
        if np.abs(kept.astype(np.int16)).max() > INT8_MAX:  # two products of it would leave int16
            raise _refuse(f"{name} has a weight of -128")
        sums = bias.constant.astype(np.int32)
        magnitude = np.abs(kept.astype(np.int64)).reshape(len(kept), -1).sum(axis=1) * 128 + np.abs(
            sums.astype(np.int64)
        )
        if sums.shape != shape[:1] or magnitude.max() >= EXACT:
            raise _refuse(f"{name} has sums of 2^24 or more")
        return Layer(
            "Conv",
            name,
            (source.tensor,),
            kernel_px,
            stride,
            before,
            relu,
            groups != 1,
            kept,
            sums,
            _shift(name, exponent - np.broadcast_to(sum_exponents, sums.shape)),
        )

    def _exponent(self, value: _Value) -> int:
        (exponent,) = value.exponents.reshape(-1).tolist()
        if exponent != self._exponents[value.tensor]:
            raise _refuse(f"{value.tensor} is read with another scale than it was written with")
        return int(exponent)

    def _upsample(self, node: Node) -> None:
        factors = self._graph.constants[node.inputs[-1]]
        is_nearest = node.words.get("mode") == "nearest" and node.words.get("nearest_mode") == "floor"
        if not is_nearest or factors.tolist() != [1, 1, 2, 2]:
            raise _refuse(f"{node.output} is enlarged in another way than by repeating pixels 2 × 2")
        self._exponents[node.output] = self._exponents[node.inputs[0]]
        self._layers.append(Layer("Resize", node.output, (node.inputs[0],)))

    def _check_clip(self, node: Node) -> None:
        if node.inputs[1] or self._graph.constants[node.inputs[2]].tolist() != INT8_MAX:
            raise _refuse(f"{node.output} is not limited to {INT8_MAX}")


def _add(name: str, sources: tuple[str, ...], given: list[int], exponent: int, *, relu: bool) -> Layer:
    finer = min(given)
    left = (given[0] - finer, given[1] - finer)
    if max(left) > MAX_LEFT_SHIFT:
        raise _refuse(f"{name} adds scales that lie 2^{max(left)} apart")
    return Layer("Add", name, sources, relu=relu, shift=_shift(name, np.array([exponent - finer])), left=left)


def _channel_max(node: Node, name: str, sources: tuple[str, ...]) -> Layer:
    if node.integers.get("axes") != (1,) or node.integers.get("keepdims", (1,)) != (1,):
        raise _refuse(f"{name} is no maximum over the channels")
    return Layer("ReduceMax", name, sources)


def _mean_pool(node: Node, name: str, sources: tuple[str, ...], given: int, exponent: int) -> Layer:
    kernel_px, stride, before = _pool_window(node)
    if kernel_px & (kernel_px - 1) or node.integers.get("count_include_pad") != (1,):
        raise _refuse(f"{name} takes a mean that is no shift")
    bits = (kernel_px**2).bit_length() - 1
    shift = _shift(name, np.array([exponent - given + bits]))
    return Layer("AveragePool", name, sources, kernel_px, stride, before, shift=shift)


def _pool_window(node: Node) -> tuple[int, int, int]:
    window = _window(node)
    if window[2] != (window[0] - 1) // 2:
        raise _refuse(f"{node.output} is padded by {window[2]}")
    return window


def _window(node: Node) -> tuple[int, int, int]:
    """(kernel, stride, padding before) of a square window; behind the picture the padding is k // 2."""
    kernel, strides, pads = (node.integers[name] for name in ("kernel_shape", "strides", "pads"))
    kernel_px, stride, before = kernel[0], strides[0], pads[0]
    expected = ((kernel_px,) * 2, (stride,) * 2, (before, before, kernel_px // 2, kernel_px // 2))
    fits = 1 <= kernel_px <= 16 and 1 <= stride <= 16 and 0 <= before <= kernel_px // 2
    if (kernel, strides, pads) != expected or not fits:
        raise _refuse(f"{node.output} has a window {kernel} with strides {strides}")
    return kernel_px, stride, before


def _exponents(scales: Array) -> NDArray[np.int64]:
    """Of powers of two."""
    mantissas, exponents = np.frexp(scales.astype(np.float64))
    if np.any(mantissas != 0.5):
        raise _refuse("a scale is no power of two")
    return np.asarray(exponents, np.int64) - 1


def _shift(name: str, shift: NDArray[np.int64]) -> NDArray[np.int32]:
    if shift.min() < 0 or shift.max() > MAX_SHIFT:
        raise _refuse(f"{name} shifts by {shift.min()}..{shift.max()}")
    return shift.astype(np.int32)


def _refuse(why: str) -> EngineError:
    return EngineError(f"the kernels do not run this model, {why}: export it again, or set [engines] runtime")
