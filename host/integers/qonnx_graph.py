"""model.qonnx: the integer network with QONNX's Quant nodes, for FINN, hls4ml and qonnx itself."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.infer_shapes import InferShapes

from host.integers.arithmetic import (
    IMAGE,
    IMAGE_EXPONENT,
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
)
from host.integers.graph import FLOAT, Array, Graph, conv_shape

OPSET = 13
INT4_MAX = 7  # weights have narrow ranges: none is -8
DOMAIN = "qonnx.custom_op.general"


def write_qonnx(net: IntegerNet) -> onnx.ModelProto:
    """float32 'image' (1, 3, h, w), values (pixel - 128) / 128, to float32 'map': integers times its scale."""
    graph = Graph()
    exponents = net.exponents()
    image = _quantize(graph, IMAGE, f"{IMAGE}_quantized", np.float32(2.0**IMAGE_EXPONENT))
    for layer in net.layers:
        _write(graph, layer, exponents, image)
    model = graph.model(net, FLOAT, OPSET, 1)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    # qonnx's cleanup would copy shared constants under random names: another file each time
    with_shapes: onnx.ModelProto = ModelWrapper(model).transform(InferShapes(), cleanup=False).model
    return with_shapes


def _write(graph: Graph, layer: Layer, exponents: dict[str, int], image: str) -> None:
    if isinstance(layer, Upsample):
        graph.upsample(layer)
        return
    if isinstance(layer, Concat):
        graph.node("Concat", list(layer.sources), layer.name, axis=1)
        return
    if isinstance(layer, ChannelMax):
        graph.node("Identity", [graph.channel_max(layer, layer.source)], layer.name)
        return
    if isinstance(layer, MaxPool):
        graph.node("Identity", [graph.pool(layer, layer.source)], layer.name)
        return
    if isinstance(layer, MeanPool):
        value = graph.pool(layer, layer.source)
    elif isinstance(layer, Add):
        value = graph.node("Add", [layer.left, layer.right], f"{layer.name}_sum")
    else:
        value = _conv(graph, layer, exponents, image if layer.source == IMAGE else layer.source)
    _quantize(graph, value, layer.name, np.float32(2.0**layer.exponent))


def _conv(graph: Graph, conv: Conv | DepthwiseConv, exponents: dict[str, int], source: str) -> str:
    scales = np.exp2(conv.weight_exponents).astype(np.float32)
    sum_scales = scales * np.float32(2.0 ** exponents[conv.source])
    columns = scales[:, np.newaxis, np.newaxis, np.newaxis]
    weights = graph.constant(f"{conv.name}_weights", conv_shape(conv.weights) * columns)
    bias = graph.constant(f"{conv.name}_bias", (conv.bias * sum_scales.astype(np.float64)).astype(np.float32))
    bits = 4 if np.abs(conv.weights).max() <= INT4_MAX else 8
    weights = _quantize(graph, weights, f"{conv.name}_weights_quantized", columns, bits=bits, narrow=True)
    bias = _quantize(graph, bias, f"{conv.name}_bias_quantized", sum_scales, bits=32)
    value = graph.conv(conv, source, weights, bias)
    return graph.node("Relu", [value], f"{conv.name}_rectified") if conv.relu else value


def _quantize(graph: Graph, source: str, output: str, scale: Array, *, bits: int = 8, narrow: bool = False) -> str:
    inputs = [
        source,
        graph.constant(f"{output}_scale", scale),
        graph.float("zero", 0),
        graph.float(f"bits_{bits}", bits),
    ]
    return graph.node("Quant", inputs, output, DOMAIN, signed=1, narrow=int(narrow), rounding_mode="ROUND")
