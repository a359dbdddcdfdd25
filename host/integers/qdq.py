"""model.onnx: the integer network as a QDQ graph for ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx

from host.integers.arithmetic import (
    IMAGE,
    INT8_MAX,
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
    layer_sources,
)
from host.integers.graph import INT8, Array, Graph, conv_shape

OPSET = 13


def write_qdq(net: IntegerNet) -> onnx.ModelProto:
    """int8 'image' (n, 3, h, w) to int8 'map' (n, 1, h', w'), each sum between DequantizeLinear and QuantizeLinear.

    Scales are powers of two and sums stay below 2^24 (`check_exact`), so float32 carries them exactly and no fusion of
    ONNX Runtime changes a bit. Tensors without negative values are kept as uint8 0..127, the same integers: x86 has
    fast kernels for uint8 alone, and two products of at most 127 · 127 do not overflow the 16-bit sums of older
    processors.
    """
    writer = _Writer(net)
    for layer in net.layers:
        writer.write(layer)
    return writer.graph.model(net, INT8, OPSET, "n")


class _Writer:
    def __init__(self, net: IntegerNet) -> None:
        self.graph = Graph()
        self.exponents = net.exponents()
        self.unsigned = {IMAGE: False}
        for layer in net.layers:
            self.unsigned[layer.name] = self._never_negative(layer)

    def write(self, layer: Layer) -> None:
        if isinstance(layer, Upsample):
            self.graph.upsample(layer)
        elif isinstance(layer, Add):
            self._quantize(layer.name, self.graph.node("Add", self._values(layer), f"{layer.name}_sum"))
        elif isinstance(layer, Concat):
            self._quantize(layer.name, self.graph.node("Concat", self._values(layer), f"{layer.name}_joined", axis=1))
        elif isinstance(layer, ChannelMax):
            self._quantize(layer.name, self.graph.channel_max(layer, self._value(layer.source, layer.name)))
        elif isinstance(layer, MaxPool | MeanPool):
            self._quantize(layer.name, self.graph.pool(layer, self._value(layer.source, layer.name)))
        else:
            self._quantize(layer.name, self._conv(layer))

    def _never_negative(self, layer: Layer) -> bool:
        if isinstance(layer, Conv | DepthwiseConv):
            return layer.relu
        return all(self.unsigned[source] for source in layer_sources(layer))

    def _conv(self, conv: Conv | DepthwiseConv) -> str:
        scales = np.exp2(conv.weight_exponents).astype(np.float32)
        sum_scales = scales * np.float32(2.0 ** self.exponents[conv.source])
        weights = self._constant_value(f"{conv.name}_weights", conv_shape(conv.weights), scales)
        bias = self._constant_value(f"{conv.name}_bias", conv.bias, sum_scales)
        return self.graph.conv(conv, self._value(conv.source, conv.name), weights, bias)

    def _constant_value(self, name: str, integers: Array, scales: Array) -> str:
        inputs = [
            self.graph.constant(name, integers),
            self.graph.constant(f"{name}_scale", scales),
            self.graph.constant(f"{name}_zero", np.zeros(len(scales), integers.dtype)),
        ]
        return self.graph.node("DequantizeLinear", inputs, f"{name}_value", axis=0)

    def _values(self, layer: Layer) -> list[str]:
        return [self._value(tensor, layer.name) for tensor in layer_sources(layer)]

    def _value(self, tensor: str, reader: str) -> str:
        """Each reader gets a DequantizeLinear of its own: the form that ONNX Runtime turns into integer kernels."""
        return self.graph.node("DequantizeLinear", [tensor, *self._scale(tensor)], f"{tensor}_for_{reader}")

    def _quantize(self, tensor: str, value: str) -> None:
        if not self.unsigned[tensor]:
            self.graph.node("QuantizeLinear", [value, *self._scale(tensor)], tensor)
            return
        # QuantizeLinear saturates to 0..255, which is the ReLU as well; int8 ends at 127.
        wide = self.graph.node("QuantizeLinear", [value, *self._scale(tensor)], f"{tensor}_wide")
        highest = self.graph.constant("highest", np.array(INT8_MAX, np.uint8))
        self.graph.node("Clip", [wide, "", highest], tensor)

    def _scale(self, tensor: str) -> list[str]:
        exponent = self.exponents[tensor]
        zero = np.array(0, np.uint8 if self.unsigned[tensor] else np.int8)
        return [
            self.graph.float(f"scale_2^{exponent}", 2.0**exponent),
            self.graph.constant(f"zero_{zero.dtype}", zero),
        ]
