"""Pretrained networks as lists of features at several strides, for PaDiM, PatchCore and the classical baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from host.bench.detector import MissingError
from host.bench.weights import Weights
from host.learning.backbone import load_backbone
from protocol.errors import InputError

NetworkName = Literal["squeezenet1_1", "mobilenet_v1", "resnet18", "wide_resnet50_2"]
NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)
# Nodes at strides 4, 8 and 16: the three levels of PaDiM (Defard et al. 2020), of which PatchCore takes the last two.
NODES: dict[NetworkName, tuple[str, str, str]] = {
    "squeezenet1_1": ("features.4", "features.7", "features.10"),
    "resnet18": ("layer1", "layer2", "layer3"),
    "wide_resnet50_2": ("layer1", "layer2", "layer3"),
}
# MobileNetV1 (Howard et al. 2017, table 1): outputs of the 12 blocks, and those with stride 2.
MOBILENET_WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512)
MOBILENET_STRIDED = (2, 4, 6)
MOBILENET_LEVELS = (3, 5, 11)  # blocks at strides 4, 8, 16
KERAS_EPSILON = 1e-3


def load_features(name: NetworkName, weights: Weights, levels: int) -> nn.Module:
    """Images int8 (n, 3, h, w), level - 128, to the last `levels` of three feature maps, finest first.

    Raises: MissingError without weights, InputError for a file that does not hold them.
    """
    path = weights.find(name)
    if path is None:
        raise MissingError(weights.explain(name))
    if name == "mobilenet_v1":
        return load_mobilenet(path, MOBILENET_LEVELS[-levels:])
    return load_backbone(name, path, NODES[name][-levels:])


class MobileNet(nn.Module):
    """MobileNetV1 as Keras trained it: levels / 127.5 - 1, zeros on the right and below only where the stride is 2."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels
        self.stem = _unit(3, 32, stride=2)
        widths = (32, *MOBILENET_WIDTHS)
        self.blocks = nn.ModuleList(
            _separable(low, high, stride=2 if number in MOBILENET_STRIDED else 1)
            for number, (low, high) in enumerate(zip(widths, MOBILENET_WIDTHS, strict=False), start=1)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.stem((images.float() + 128) / 127.5 - 1)
        kept = []
        for number, block in enumerate(self.blocks, start=1):
            features = block(features)
            if number in self.levels:
                kept.append(features)
        return kept


def _separable(low: int, high: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_unit(low, low, stride=stride, groups=low), _unit(low, high, kernel_px=1))


def _unit(low: int, high: int, *, kernel_px: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    padding = nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else (kernel_px // 2,) * 4)
    conv = nn.Conv2d(low, high, kernel_px, stride, groups=groups, bias=False)
    return nn.Sequential(padding, conv, nn.BatchNorm2d(high, eps=KERAS_EPSILON), nn.ReLU6())


@torch.no_grad()
def load_mobilenet(path: Path, levels: tuple[int, ...]) -> MobileNet:
    """Raises: InputError for a file that does not hold the weights."""
    net = MobileNet(levels).eval().requires_grad_(False)
    try:
        with np.load(path) as stored:
            _fill(net.stem, stored["conv1/kernel"], stored, "conv1_bn")
            for number, block in enumerate(net.blocks, start=1):
                depthwise, pointwise = cast(nn.Sequential, block)
                kernels = stored[f"conv_dw_{number}/depthwise_kernel"].transpose(0, 1, 3, 2)
                _fill(depthwise, kernels, stored, f"conv_dw_{number}_bn")
                _fill(pointwise, stored[f"conv_pw_{number}/kernel"], stored, f"conv_pw_{number}_bn")
    except (OSError, KeyError, ValueError, RuntimeError):
        raise InputError(f"{path} does not hold the weights of MobileNetV1: give Keras' layers as .npz") from None
    return net


def _fill(unit: nn.Module, kernel: NDArray[np.float32], stored: dict[str, NDArray[np.float32]], name: str) -> None:
    """Kernel (h, w, in, out) as Keras lays it out; of a depthwise one `in` is 1."""
    _, conv, norm, _ = cast(nn.Sequential, unit)
    _copy(conv.weight, kernel.transpose(3, 2, 0, 1))
    _copy(norm.weight, stored[f"{name}/gamma"])
    _copy(norm.bias, stored[f"{name}/beta"])
    _copy(norm.running_mean, stored[f"{name}/moving_mean"])
    _copy(norm.running_var, stored[f"{name}/moving_variance"])


def _copy(into: object, values: NDArray[np.float32]) -> None:
    target = cast(Tensor, into)
    if target.shape != values.shape:
        raise ValueError("another shape")
    target.copy_(torch.from_numpy(np.ascontiguousarray(values)))
