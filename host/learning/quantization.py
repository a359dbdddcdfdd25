"""From the trained float network to integers, with Brevitas: fold, calibrate, finetune as if quantized, extract.

layers = fold(net)                        # the network as a list of layers, batch normalisation folded
quantized = quantize(layers, batches)     # Brevitas layers; finetune it like any torch module
integers = extract(quantized, input_px)   # the same function, exactly, as `host.integers.arithmetic.IntegerNet`
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, cast

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas.inject.enum import ScalingImplType
from brevitas.quant.fixed_point import Int8ActPerTensorFixedPoint, Int8WeightPerChannelFixedPoint
from brevitas.quant.scaled_int import Int32Bias
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from host.integers.arithmetic import (
    IMAGE,
    IMAGE_EXPONENT,
    INT8_MAX,
    INT8_MIN,
    MAP,
    Add,
    Conv,
    IntegerNet,
    Layer,
    Upsample,
    check_exact,
)
from host.learning.network import ConvUnit

MAP_EXPONENT = -4  # logits of -8..8 in steps of 1/16; beyond that a sigmoid has nothing more to say
EXPONENTS = range(-12, 8)  # tried for an activation
SAMPLES_PER_TENSOR = 200_000
# A weight scale below 2^-13 would let the bias of a dead channel leave float32's exact integers.
SMALLEST_LARGEST_WEIGHT = 2.0**-6


class FixedPointWeights(Int8WeightPerChannelFixedPoint):  # type: ignore[misc]
    scaling_min_val = SMALLEST_LARGEST_WEIGHT


class FixedPointActivations(Int8ActPerTensorFixedPoint):  # type: ignore[misc]
    """Signed also after ReLU. The scale is constant: calibrated once, so that finetuning has a fixed aim."""

    scaling_impl_type = ScalingImplType.CONST


@dataclass(frozen=True)
class Step:
    """One layer and the tensors that it reads; it writes the tensor of its own name."""

    name: str
    kind: Literal["conv", "add", "upsample"]
    sources: tuple[str, ...]


class LayerNet(nn.Module):
    """A network as steps over named tensors, in float or quantized alike."""

    def __init__(self, steps: tuple[Step, ...], layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleDict(layers)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.run(pictures, lambda _name, _tensor: None)

    def run(self, pictures: Tensor, observe: Callable[[str, Tensor], None]) -> Tensor:
        """Like `forward`; `observe` sees every layer's output."""
        tensors = {IMAGE: self.layers[IMAGE](pictures)}
        for step in self.steps:
            tensors[step.name] = self.layers[step.name](*(tensors[source] for source in step.sources))
            observe(step.name, tensors[step.name])
        return _value(tensors[MAP])


class FloatAdd(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class QuantizedConv(nn.Module):
    """Convolution, ReLU where the float layer has one, requantization."""

    def __init__(self, conv: nn.Conv2d, relu: bool, exponent: int, weight_bits: int) -> None:
        super().__init__()
        self.conv = qnn.QuantConv2d(
            conv.in_channels,
            conv.out_channels,
            cast(tuple[int, int], conv.kernel_size),
            cast(tuple[int, int], conv.stride),
            cast(tuple[int, int], conv.padding),
            weight_quant=FixedPointWeights,
            weight_bit_width=weight_bits,
            bias_quant=Int32Bias,
        )
        self.conv.load_state_dict(conv.state_dict(), strict=False)
        self.relu = relu
        self.exponent = exponent
        self.requantize = requantizer(exponent)

    def forward(self, source: Tensor) -> Tensor:
        value = _value(self.conv(source))
        return cast(Tensor, self.requantize(value.relu() if self.relu else value))


class QuantizedAdd(nn.Module):
    def __init__(self, exponent: int) -> None:
        super().__init__()
        self.exponent = exponent
        self.requantize = requantizer(exponent)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return cast(Tensor, self.requantize(_value(left) + _value(right)))


def requantizer(exponent: int) -> nn.Module:
    """Round half to even and saturate to int8 at a scale of 2^exponent."""
    return cast(
        nn.Module,
        qnn.QuantIdentity(
            act_quant=FixedPointActivations, scaling_init=-INT8_MIN * 2.0**exponent, return_quant_tensor=True
        ),
    )


def fold(net: nn.Module) -> LayerNet:
    """The float network's layers in execution order, batch normalisation folded, in eval mode."""
    net = net.eval()
    graph = _Tracer().trace(net)
    names, steps = {}, []
    layers: dict[str, nn.Module] = {IMAGE: nn.Identity()}
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = IMAGE
        elif node.op != "output":
            is_last = any(user.op == "output" for user in node.users)
            names[node] = MAP if is_last else node.name
            kind, layer = _fold_node(net, node)
            steps.append(Step(names[node], kind, tuple(names[source] for source in node.all_input_nodes)))
            layers[names[node]] = layer
    return LayerNet(tuple(steps), layers)


def quantize(layers: LayerNet, batches: Iterable[Tensor], weight_bits: int = 8) -> LayerNet:
    """Brevitas layers with the float layers' weights; activation scales fit what `batches` of pictures cause.

    Below 8, `weight_bits` leaves the first and the last convolution at 8: few weights, on which much depends.
    """
    exponents = _calibrate(layers, batches)
    quantized: dict[str, nn.Module] = {IMAGE: requantizer(IMAGE_EXPONENT)}
    for step in layers.steps:
        layer = layers.layers[step.name]
        if step.kind == "upsample":
            quantized[step.name] = qnn.QuantUpsample(scale_factor=2, mode="nearest", return_quant_tensor=True)
        elif step.kind == "add":
            quantized[step.name] = QuantizedAdd(exponents[step.name])
        else:
            conv, relu = _conv_and_relu(layer)
            is_outer = IMAGE in step.sources or step.name == MAP
            bits = 8 if is_outer else weight_bits
            quantized[step.name] = QuantizedConv(conv, relu, exponents[step.name], bits)
    return LayerNet(layers.steps, quantized)


@torch.no_grad()
def extract(quantized: LayerNet, input_px: tuple[int, int]) -> IntegerNet:
    """The integers of a quantized network.

    Raises: NotExactError if an engine that carries sums in float32 could not compute it exactly.
    """
    quantized.eval()
    exponents = {IMAGE: IMAGE_EXPONENT}
    layers: list[Layer] = []
    for step in quantized.steps:
        layer = _extract_layer(step, quantized.layers[step.name], exponents)
        exponents[step.name] = exponents[layer.source] if isinstance(layer, Upsample) else layer.exponent
        layers.append(layer)
    net = IntegerNet(input_px, tuple(layers))
    check_exact(net)
    return net


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (ConvUnit, nn.Conv2d, nn.Upsample)) or super().is_leaf_module(m, module_qualified_name)


def _fold_node(net: nn.Module, node: fx.Node) -> tuple[Literal["conv", "add", "upsample"], nn.Module]:
    if node.op == "call_function" and node.target is operator.add:
        return "add", FloatAdd()
    if node.op == "call_module":
        module = net.get_submodule(str(node.target))
        if isinstance(module, ConvUnit):
            conv, norm = cast(nn.Conv2d, module[0]), cast(nn.BatchNorm2d, module[1])
            return "conv", nn.Sequential(fuse_conv_bn_eval(conv, norm), nn.ReLU())
        if isinstance(module, nn.Conv2d):
            return "conv", module
        if isinstance(module, nn.Upsample):
            return "upsample", module
    raise TypeError(f"{node.target} is not for the overlay: build the network from ConvUnit, Conv2d, + and Upsample")


def _conv_and_relu(layer: nn.Module) -> tuple[nn.Conv2d, bool]:
    return (layer, False) if isinstance(layer, nn.Conv2d) else (cast(nn.Conv2d, cast(nn.Sequential, layer)[0]), True)


@torch.no_grad()
def _calibrate(layers: LayerNet, batches: Iterable[Tensor]) -> dict[str, int]:
    """For every tensor the exponent whose int8 grid has the least squared error on what the batches cause."""
    seen: dict[str, list[Tensor]] = {}
    for pictures in batches:
        layers.run(pictures, lambda name, tensor: seen.setdefault(name, []).append(tensor.flatten()))
    exponents = {}
    for name, parts in seen.items():
        values = torch.cat(parts)
        values = values[:: max(1, len(values) // SAMPLES_PER_TENSOR)]
        exponents[name] = min(EXPONENTS, key=lambda exponent: _squared_error(values, exponent))
    exponents[MAP] = MAP_EXPONENT
    return exponents


def _squared_error(values: Tensor, exponent: int) -> float:
    scale = 2.0**exponent
    return float((values - (values / scale).round().clamp(INT8_MIN, INT8_MAX) * scale).square().mean())


def _extract_layer(step: Step, module: nn.Module, exponents: dict[str, int]) -> Conv | Add | Upsample:
    if isinstance(module, QuantizedConv):
        return _extract_conv(step, module, exponents[step.sources[0]])
    if isinstance(module, QuantizedAdd):
        left, right = step.sources
        return Add(step.name, left, right, module.exponent)
    return Upsample(step.name, step.sources[0])


def _extract_conv(step: Step, module: QuantizedConv, source_exponent: int) -> Conv:
    weights = module.conv.quant_weight()
    scales = weights.scale.flatten().double()
    sum_scales = scales * 2.0**source_exponent
    # Brevitas rounds the bias half to even too, to whole units of the sum.
    bias = (module.conv.bias.double() / sum_scales).round()
    return Conv(
        name=step.name,
        source=step.sources[0],
        weights=weights.int().numpy().astype(np.int8),
        weight_exponents=scales.log2().round().numpy().astype(np.int32),
        bias=bias.numpy().astype(np.int32),
        exponent=module.exponent,
        stride=module.conv.stride[0],
        relu=module.relu,
    )


def _value(tensor: Tensor) -> Tensor:
    """The float values of a Brevitas QuantTensor, or the tensor itself."""
    return cast(Tensor, getattr(tensor, "value", tensor))
