"""ONNX nodes and constants while a graph is being written, and what the written graphs share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from host.integers.arithmetic import (
    IMAGE,
    MAP,
    ChannelMax,
    Conv,
    DepthwiseConv,
    Int8,
    IntegerNet,
    MaxPool,
    MeanPool,
    Upsample,
    rows_before,
)

# ONNX Runtime 1.23, the last for Python 3.10, reads IR up to 11.
IR_VERSION = 8
PRODUCER = "beltsight"

Array = NDArray[np.generic]


@dataclass
class Graph:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def constant(self, name: str, value: Array) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def float(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def node(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def conv(self, conv: Conv | DepthwiseConv, source: str, weights: str, bias: str) -> str:
        """The layer's sums, before requantization; `weights` of shape `conv_shape`."""
        kernel_px = conv.weights.shape[-1]
        window = _window(conv, kernel_px)
        if isinstance(conv, DepthwiseConv):
            window["group"] = len(conv.weights)
        return self.node("Conv", [source, weights, bias], f"{conv.name}_sum", **window)

    def pool(self, pool: MaxPool | MeanPool, source: str) -> str:
        """Maximum or mean, before requantization."""
        window = _window(pool, pool.kernel_px)
        if isinstance(pool, MaxPool):
            return self.node("MaxPool", [source], f"{pool.name}_pooled", **window)
        return self.node("AveragePool", [source], f"{pool.name}_pooled", count_include_pad=1, **window)

    def channel_max(self, layer: ChannelMax, source: str) -> str:
        return self.node("ReduceMax", [source], f"{layer.name}_largest", axes=[1], keepdims=1)

    def upsample(self, layer: Upsample) -> None:
        region = self.constant("upsample_region", np.zeros(0, np.float32))
        scales = self.constant("upsample_scales", np.array([1, 1, 2, 2], np.float32))
        self.node(
            "Resize",
            [layer.source, region, scales],
            layer.name,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def model(self, net: IntegerNet, element: int, opset: int, batch: int | str) -> onnx.ModelProto:
        """`element` is the type of 'image' and 'map', a constant of TensorProto."""
        inputs = [helper.make_tensor_value_info(IMAGE, element, [batch, 3, *net.input_px])]
        outputs = [helper.make_tensor_value_info(MAP, element, [batch, *net.shapes()[MAP]])]
        graph = helper.make_graph(self.nodes, PRODUCER, inputs, outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets, producer_name=PRODUCER)
        return model


def _window(layer: Conv | DepthwiseConv | MaxPool | MeanPool, kernel_px: int) -> dict[str, Any]:
    before, after = rows_before(layer), kernel_px // 2
    return {
        "kernel_shape": [kernel_px] * 2,
        "pads": [before, before, after, after],
        "strides": [layer.stride] * 2,
    }


def conv_shape(weights: Int8) -> Int8:
    """(out, in, k, k) as ONNX has it: a depthwise convolution has one input channel each."""
    return weights if weights.ndim == 4 else weights[:, np.newaxis]


FLOAT = TensorProto.FLOAT
INT8 = TensorProto.INT8
