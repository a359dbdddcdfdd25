"""carried.onnx: the same integers carried in float32, for OpenCV's dnn and other runtimes without quantized kernels."""

from __future__ import annotations

import numpy as np
import onnx

from host.integers.arithmetic import (
    INT8_MAX,
    INT8_MIN,
    Add,
    ChannelMax,
    Concat,
    Conv,
    DepthwiseConv,
    IntegerNet,
    Layer,
    MaxPool,
    MeanPool,
    Upsample,
    conv_shifts,
)
from host.integers.graph import FLOAT, Graph, conv_shape

OPSET = 9  # Clip with its limits as attributes and Upsample: what OpenCV 4.5.4 imports, and every later version too
# Adding 1.5 · 2^23 to a float32 below 2^22 leaves no fraction bits: the addition itself rounds half to even.
ROUNDER = 12582912.0


def write_carried(net: IntegerNet) -> onnx.ModelProto:
    """float32 'image' (1, 3, h, w) to float32 'map' (1, 1, h', w'), all values whole numbers in -128..127.

    The shift is folded into weights and bias, so that a convolution gives sum / 2^shift exactly. The runtime must not
    use Winograd convolution: its transforms leave the exact numbers.
    """
    graph = Graph()
    exponents, shapes = net.exponents(), net.shapes()
    for layer in net.layers:
        _write(graph, layer, exponents, shapes)
    return graph.model(net, FLOAT, OPSET, 1)


def _write(graph: Graph, layer: Layer, exponents: dict[str, int], shapes: dict[str, tuple[int, int, int]]) -> None:
    if isinstance(layer, Upsample):
        scales = graph.constant("upsample_scales", np.array([1, 1, 2, 2], np.float32))
        graph.node("Upsample", [layer.source, scales], layer.name, mode="nearest")
    elif isinstance(layer, Concat):
        graph.node("Concat", list(layer.sources), layer.name, axis=1)
    elif isinstance(layer, ChannelMax):
        _largest_channel(graph, layer, shapes[layer.source])
    elif isinstance(layer, MaxPool):
        graph.node("Identity", [graph.pool(layer, layer.source)], layer.name)
    elif isinstance(layer, MeanPool):
        mean = graph.pool(layer, layer.source)
        _requantize(
            graph, layer.name, _scale(graph, mean, layer.name, exponents[layer.source] - layer.exponent), INT8_MIN
        )
    elif isinstance(layer, Add):
        _requantize(graph, layer.name, _scaled_sum(graph, layer, exponents), INT8_MIN)
    else:
        _requantize(graph, layer.name, _scaled_conv(graph, layer, exponents), 0 if layer.relu else INT8_MIN)


def _largest_channel(graph: Graph, layer: ChannelMax, source: tuple[int, int, int]) -> None:
    """OpenCV's ReduceMax does not take channels: they become the rows of a picture, whose columns are pooled."""
    channels, height, width = source
    rows = graph.constant(f"{layer.name}_rows_shape", np.array([1, 1, channels, height * width], np.int64))
    picture = graph.constant(f"{layer.name}_shape", np.array([1, 1, height, width], np.int64))
    turned = graph.node("Reshape", [layer.source, rows], f"{layer.name}_rows")
    largest = graph.node("MaxPool", [turned], f"{layer.name}_largest", kernel_shape=[channels, 1], strides=[1, 1])
    graph.node("Reshape", [largest, picture], layer.name)


def _scaled_conv(graph: Graph, conv: Conv | DepthwiseConv, exponents: dict[str, int]) -> str:
    factors = np.exp2(-conv_shifts(conv, exponents[conv.source])).astype(np.float32)
    scaled = conv_shape(conv.weights) * factors[:, np.newaxis, np.newaxis, np.newaxis]
    weights = graph.constant(f"{conv.name}_weights", scaled)
    bias = graph.constant(f"{conv.name}_bias", conv.bias.astype(np.float32) * factors)
    return graph.conv(conv, conv.source, weights, bias)


def _scaled_sum(graph: Graph, add: Add, exponents: dict[str, int]) -> str:
    tensors = (add.left, add.right)
    scaled = [_scale(graph, tensor, add.name, exponents[tensor] - add.exponent) for tensor in tensors]
    return graph.node("Add", scaled, f"{add.name}_sum")


def _scale(graph: Graph, tensor: str, reader: str, exponent: int) -> str:
    """`tensor` times 2^exponent."""
    factor = graph.float(f"factor_{tensor}_in_{reader}", 2.0**exponent)
    return graph.node("Mul", [tensor, factor], f"{tensor}_in_{reader}")


def _requantize(graph: Graph, name: str, total: str, lowest: int) -> None:
    """Saturate and round. OpenCV 4.5.4 has no Round, so a large number is added and subtracted again.

    subtle: OpenCV folds an addition into the convolution before it, and two additions into one; either would lose the
    rounding. A Clip between them stops both.
    """
    inside = graph.node("Clip", [total], f"{name}_inside", min=float(lowest), max=float(INT8_MAX))
    rounder = graph.float("rounder", ROUNDER)
    raised = graph.node("Add", [inside, rounder], f"{name}_raised")
    kept = graph.node("Clip", [raised], f"{name}_kept", min=ROUNDER + lowest, max=ROUNDER + INT8_MAX)
    graph.node("Sub", [kept, rounder], name)
