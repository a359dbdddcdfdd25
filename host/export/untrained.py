"""The integers of a detector before any training: for what depends on its shape alone.

Whether the overlay can run it and how fast is known before the hours of training, and without pictures.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from torch import nn

from host.integers.arithmetic import IMAGE, IMAGE_EXPONENT, Add, Conv, IntegerNet, Layer, Upsample
from host.learning.network import DetectorNet, Widths
from host.learning.quantization import Step, fold

EXPONENT = -4  # of every tensor
WEIGHT_SPREAD = 20.0


def make_untrained(widths: Widths, input_px: tuple[int, int], seed: int = 0) -> IntegerNet:
    """Random weights, of a size that lets results neither vanish nor saturate everywhere."""
    rng = np.random.default_rng(seed)
    folded = fold(DetectorNet(widths))
    return IntegerNet(input_px, tuple(_make_layer(step, folded.layers[step.name], rng) for step in folded.steps))


def _make_layer(step: Step, module: nn.Module, rng: np.random.Generator) -> Layer:
    if step.kind == "upsample":
        return Upsample(step.name, step.sources[0])
    if step.kind == "add":
        left, right = step.sources
        return Add(step.name, left, right, EXPONENT)
    has_relu = isinstance(module, nn.Sequential)
    conv = cast(nn.Conv2d, module[0] if isinstance(module, nn.Sequential) else module)
    shape = tuple(conv.weight.shape)
    shift = round(np.log2(WEIGHT_SPREAD * np.sqrt(np.prod(shape[1:]))))
    source_exponent = IMAGE_EXPONENT if step.sources[0] == IMAGE else EXPONENT
    return Conv(
        name=step.name,
        source=step.sources[0],
        weights=np.clip(rng.normal(0, WEIGHT_SPREAD, shape).round(), -127, 127).astype(np.int8),
        weight_exponents=np.full(shape[0], EXPONENT - source_exponent - shift, np.int32),
        bias=rng.integers(-2000, 2000, shape[0]).astype(np.int32),
        exponent=EXPONENT,
        stride=conv.stride[0],
        relu=has_relu,
    )
