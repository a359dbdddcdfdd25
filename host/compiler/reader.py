"""The integer network from model.onnx: what `host.integers.qdq` writes, recognised node by node.

Accepted: every sum between DequantizeLinear and QuantizeLinear with power-of-two scales and zero points 0, a Clip to
127 behind a uint8 QuantizeLinear, and Resize on integers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from host.compiler.operations import UnsupportedError
from host.integers.arithmetic import (
    IMAGE,
    IMAGE_EXPONENT,
    MAP,
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
from protocol.onnx_weights import weights_fault

Array = NDArray[Any]

OPERATORS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "Clip",
    "Resize",
    "Conv",
    "Add",
    "Concat",
    "MaxPool",
    "AveragePool",
    "ReduceMax",
)
ACCEPTED = "Conv, Add, Concat, MaxPool, AveragePool, ReduceMax between quantizers, and Resize by 2"


def load_qdq(path: Path) -> IntegerNet:
    """Raises: UnsupportedError if the file is no such graph."""
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise UnsupportedError(f"{path} cannot be read ({error}): export the model again") from None
    return read_qdq(model)


def read_qdq(model: onnx.ModelProto) -> IntegerNet:
    """Raises: UnsupportedError naming the node, the reason and what would be accepted."""
    fault = weights_fault(model.SerializeToString())
    if fault:
        raise UnsupportedError(f"the graph {fault}")
    _check_graph(model)
    return _Reader(model.graph).read()


def _check_graph(model: onnx.ModelProto) -> None:
    """What can be said before a node is understood."""
    for node in model.graph.node:
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            operator = f"{node.domain}.{node.op_type}".lstrip(".")
            raise _refuse(node, f"the overlay has no {operator}", ACCEPTED)
    ends = [", ".join(item.name for item in items) for items in (model.graph.input, model.graph.output)]
    if ends != [IMAGE, MAP]:
        raise UnsupportedError(
            f"the graph does not lead from {IMAGE!r} to {MAP!r} but from {ends[0]!r} to {ends[1]!r}: export it with "
            "scripts/export.sh"
        )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise UnsupportedError(f"this is no valid graph ({_first_line(error)}): export the model again") from None


class _Reader:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants: dict[str, Array] = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self.makers: dict[str, NodeProto] = {output: node for node in graph.node for output in node.output}
        self.exponents = {IMAGE: IMAGE_EXPONENT}
        self.unsigned: set[str] = set()  # tensors without negative values
        self.layers: list[Layer] = []

    def read(self) -> IntegerNet:
        for node in self.graph.node:
            if node.op_type == "QuantizeLinear":
                self._read_quantized(node)
            elif node.op_type == "Resize":
                self._read_upsample(node)
            elif node.op_type == "Clip":
                self._read_clip(node)
        if MAP not in self.exponents:
            raise _refuse(self.makers[MAP], f"it writes {MAP!r} without a quantizer", ACCEPTED)
        if self.layers[-1].name != MAP:
            raise UnsupportedError(f"the last layer does not write {MAP!r}: export the model again")
        return IntegerNet(self._input_px(), tuple(self.layers))

    def _input_px(self) -> tuple[int, int]:
        shape = [dim.dim_value for dim in self.graph.input[0].type.tensor_type.shape.dim]
        if len(shape) != 4 or shape[1] != 3 or min(shape[2:]) < 1:
            raise UnsupportedError(f"the image's shape is {shape}, it must be (n, 3, height, width): export again")
        return shape[2], shape[3]

    def _read_quantized(self, node: NodeProto) -> None:
        """A layer, from its quantizer back to those before it."""
        exponent, zero = self._quantizer(node)
        name = self._final_name(node) if zero.dtype == np.uint8 else node.output[0]
        maker = self._maker(node, node.input[0])
        if maker.op_type == "Conv":
            layer: Layer = self._read_conv(maker, name, exponent, relu=zero.dtype == np.uint8)
        elif maker.op_type == "Add":
            left, right = self._sources(maker)
            layer = Add(name, left, right, exponent)
        elif maker.op_type == "Concat":
            if _attribute(maker, "axis", None) != 1:
                raise _refuse(maker, "it does not concatenate channels", "axis 1")
            layer = Concat(name, tuple(self._sources(maker)))
            self._check_scale(maker, layer.sources, exponent)
        elif maker.op_type == "ReduceMax":
            layer = self._read_channel_max(maker, name, exponent)
        elif maker.op_type in ("MaxPool", "AveragePool"):
            layer = self._read_pool(maker, name, exponent)
        else:
            raise _refuse(maker, f"a {maker.op_type} before a quantizer", ACCEPTED)
        if zero.dtype == np.uint8:
            if not isinstance(layer, Conv | DepthwiseConv) and not self.unsigned.issuperset(layer_sources(layer)):
                raise _refuse(maker, "its uint8 quantizer cuts off negative values", "int8 if a source has any")
            self.unsigned.add(name)
        self._keep(layer, exponent)

    def _read_conv(self, node: NodeProto, name: str, exponent: int, *, relu: bool) -> Conv | DepthwiseConv:
        if len(node.input) != 3:
            raise _refuse(node, "it has no bias", "one of zeros")
        source = self._source(node, node.input[0])
        weights, weight_exponents = self._constant(node, node.input[1], np.int8)
        bias, bias_exponents = self._constant(node, node.input[2], np.int32)
        kernel_px = weights.shape[-1]
        stride, late = self._conv_window(node, kernel_px)
        group = int(_attribute(node, "group", 1))
        if not np.array_equal(bias_exponents, weight_exponents + self.exponents[source]):
            raise _refuse(node, "its bias is not in units of the sum", "scale of the source times that of the weights")
        if group == 1:
            return Conv(name, source, weights, weight_exponents, bias, exponent, stride, relu, late)
        if weights.shape[1] != 1 or group != len(weights):
            raise _refuse(node, f"{group} groups", "1, or as many as channels")
        return DepthwiseConv(name, source, weights[:, 0], weight_exponents, bias, exponent, stride, relu, late)

    def _read_pool(self, node: NodeProto, name: str, exponent: int) -> MaxPool | MeanPool:
        (source,) = self._sources(node)
        kernel = _attribute(node, "kernel_shape", [])
        stride, _ = self._window(node, kernel[0], [(kernel[0] - 1) // 2])
        if node.op_type == "MaxPool":
            self._check_scale(node, (source,), exponent)
            return MaxPool(name, source, kernel[0], stride)
        if kernel[0] > 2 and not _attribute(node, "count_include_pad", 0):
            raise _refuse(node, "its mean leaves out the padding", "count_include_pad = 1")
        return MeanPool(name, source, kernel[0], stride, exponent)

    def _read_channel_max(self, node: NodeProto, name: str, exponent: int) -> ChannelMax:
        (source,) = self._sources(node)
        if _attribute(node, "axes", []) != [1] or _attribute(node, "keepdims", 1) != 1:
            raise _refuse(node, "it is no maximum over the channels", "axes 1, keepdims 1")
        self._check_scale(node, (source,), exponent)
        return ChannelMax(name, source)

    def _read_upsample(self, node: NodeProto) -> None:
        modes = [_attribute(node, key, b"") for key in ("mode", "coordinate_transformation_mode", "nearest_mode")]
        scales = self.constants.get(node.input[2]) if len(node.input) == 3 else None
        if modes != [b"nearest", b"asymmetric", b"floor"] or scales is None or scales.tolist() != [1, 1, 2, 2]:
            raise _refuse(node, "it is no repetition of pixels", "nearest, asymmetric, floor, scales 1, 1, 2, 2")
        source, name = self._known(node, node.input[0]), node.output[0]
        if source in self.unsigned:
            self.unsigned.add(name)
        self._keep(Upsample(name, source), self.exponents[source])

    def _read_clip(self, node: NodeProto) -> None:
        """It belongs to the quantizer before it; saturation at 127 is what the overlay does anyway."""
        highest = self.constants.get(node.input[2]) if len(node.input) == 3 and not node.input[1] else None
        after_quantizer = self._maker(node, node.input[0]).op_type == "QuantizeLinear"
        if highest is None or highest.dtype != np.uint8 or highest.tolist() != 127 or not after_quantizer:
            raise _refuse(node, "its limits are not those of int8", "a Clip to 127 behind a uint8 QuantizeLinear")

    def _final_name(self, node: NodeProto) -> str:
        """The layer's name is that of its clipped output."""
        readers = [reader for reader in self.graph.node if node.output[0] in reader.input]
        if len(readers) != 1 or readers[0].op_type != "Clip":
            raise _refuse(node, "its uint8 values may exceed 127", "a Clip to 127 behind it")
        return str(readers[0].output[0])

    def _quantizer(self, node: NodeProto) -> tuple[int, Array]:
        """(exponent, zero point) of a node that quantizes or dequantizes a tensor."""
        scale, zero = (self.constants.get(name) for name in (*node.input[1:], "", "")[:2])
        if scale is None or zero is None or scale.size != 1 or zero.any() or zero.dtype not in (np.int8, np.uint8):
            raise _refuse(node, "its scale or zero point", "one constant scale and a zero point of 0, int8 or uint8")
        return int(_exponents(node, scale.reshape(1))[0]), zero

    def _constant(self, node: NodeProto, name: str, kind: type[np.generic]) -> tuple[Array, NDArray[np.int32]]:
        """(integers, exponents of the output channels) of a dequantized constant."""
        maker = self._maker(node, name)
        parts = [self.constants.get(item) for item in maker.input]
        if maker.op_type != "DequantizeLinear" or len(parts) != 3 or any(part is None for part in parts):
            raise _refuse(
                node, f"{name} is no dequantized constant", "integers, a scale for each output channel, zero 0"
            )
        integers, scale, zero = (np.asarray(part) for part in parts)
        if _attribute(maker, "axis", 1) != 0:
            raise _refuse(maker, "its scales do not belong to output channels", "axis 0")
        if integers.dtype != kind or zero.any() or scale.shape != integers.shape[:1]:
            raise _refuse(node, f"{name} is {integers.dtype}", f"{kind.__name__} with a scale for each output channel")
        return integers, _exponents(maker, scale)

    def _conv_window(self, node: NodeProto, kernel_px: int) -> tuple[int, bool]:
        """(stride, whether it starts late)."""
        reach = kernel_px // 2
        stride, before = self._window(node, kernel_px, [reach, reach - 1])
        return stride, before < reach

    def _window(self, node: NodeProto, kernel_px: int, starts: list[int]) -> tuple[int, int]:
        """(stride, rows before the picture: one of `starts`) of a window as `host.integers.arithmetic` pads it."""
        strides, pads = _attribute(node, "strides", [1, 1]), _attribute(node, "pads", [0] * 4)
        paddings = [[before] * 2 + [kernel_px // 2] * 2 for before in starts]
        square = _attribute(node, "kernel_shape", []) == [kernel_px] * 2 and strides[0] == strides[1]
        plain = _attribute(node, "dilations", [1, 1]) == [1, 1] and not _attribute(node, "ceil_mode", 0)
        if not (square and plain) or pads not in paddings:
            raise _refuse(
                node, f"kernel {kernel_px}, strides {strides}, pads {pads}", f"square, no dilation, {paddings[0]}"
            )
        return int(strides[0]), int(pads[0])

    def _check_scale(self, node: NodeProto, sources: tuple[str, ...], exponent: int) -> None:
        if {self.exponents[source] for source in sources} != {exponent}:
            raise _refuse(node, "it changes the scale", "the same scale before and behind it")

    def _sources(self, node: NodeProto) -> list[str]:
        return [self._source(node, name) for name in node.input]

    def _source(self, node: NodeProto, name: str) -> str:
        """The integer tensor behind a DequantizeLinear."""
        maker = self._maker(node, name)
        if maker.op_type != "DequantizeLinear":
            raise _refuse(node, f"{name} is not dequantized", "a DequantizeLinear before each input")
        exponent, _ = self._quantizer(maker)
        source = self._known(maker, maker.input[0])
        if exponent != self.exponents[source]:
            raise _refuse(maker, "its scale is not that of its tensor", f"2^{self.exponents[source]}")
        return source

    def _maker(self, node: NodeProto, name: str) -> NodeProto:
        if name not in self.makers:
            raise _refuse(node, f"nothing makes {name!r}", ACCEPTED)
        return self.makers[name]

    def _known(self, node: NodeProto, name: str) -> str:
        if name not in self.exponents:
            raise _refuse(node, f"{name!r} is no integer tensor made before it", ACCEPTED)
        return name

    def _keep(self, layer: Layer, exponent: int) -> None:
        self.exponents[layer.name] = exponent
        self.layers.append(layer)


def _exponents(node: NodeProto, scale: Array) -> NDArray[np.int32]:
    mantissa, exponent = np.frexp(scale)
    if not (mantissa == 0.5).all():
        raise _refuse(node, "a scale is no power of two", "scales of 2^n")
    exponents: NDArray[np.int32] = (exponent - 1).astype(np.int32)
    return exponents


def _attribute(node: NodeProto, name: str, missing: Any) -> Any:
    found = [helper.get_attribute_value(item) for item in node.attribute if item.name == name]
    return list(found[0]) if found and isinstance(missing, list) else (found or [missing])[0]


def _refuse(node: NodeProto, reason: str, accepted: str) -> UnsupportedError:
    name = node.name or (node.output[0] if node.output else "?")
    return UnsupportedError(f"node {name} ({node.op_type}): {reason}; accepted: {accepted}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
