"""The pretrained network as integers: features of an image, one vector for each 16 × 16 pixels.

ReLU6 is the saturation of int8: the network is positively homogeneous, so that everything may be multiplied until 6
lies where int8 ends. Scales come from the normalizations, which say how each sum was spread over ImageNet: no picture
is needed (data-free quantization, Nagel et al. 2019).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from board.teaching.whitening import FEATURE_EXPONENT, quantize
from host.integers.arithmetic import (
    IMAGE,
    IMAGE_EXPONENT,
    INT8_MAX,
    MAP,
    Add,
    Conv,
    DepthwiseConv,
    IntegerNet,
    Layer,
    check_exact,
)
from host.teaching.lite0 import BLOCKS, STRIDE, Floats, Folded, FoldedBlock, State, fold_block, fold_stem
from protocol.errors import InputError

RELU_EXPONENT = -4
GAIN = INT8_MAX * 2.0**RELU_EXPONENT / 6  # 6 becomes the largest int8
# The network wants (pixel - 127) / 128, an image's integers stand for (pixel - 128) / 128.
IMAGE_OFFSET = 1 / 128
REACH = 4.0  # standard deviations that a sum without ReLU may lie from its mean before it saturates
POOL_PX = 3  # features are means over so many neighbours (PatchCore, Roth et al. 2022, section 3.1)


def make_backbone(state: State, input_px: int) -> IntegerNet:
    """Its last layer, named MAP, are features of 80 channels. Raises: InputError, NotExactError."""
    if input_px % STRIDE or input_px < 2 * STRIDE:
        raise InputError(f"--input-px {input_px} is no multiple of {STRIDE} from {2 * STRIDE} on: take 192 or 320")
    maker = _Maker()
    folded = equalize([fold_block(state, number) for number in range(len(BLOCKS))])
    stem = fold_stem(state)
    offset = stem.weights.sum(axis=(1, 2, 3)) * IMAGE_OFFSET
    maker.convolve("stem", IMAGE, stem.weights * GAIN, (stem.bias + offset) * GAIN, stride=2)
    source = "stem"
    for number, parts in enumerate(folded):
        source = maker.add_block(number, source, parts)
    maker.add_features(source)
    net = IntegerNet((input_px, input_px), tuple(maker.layers))
    check_exact(net)
    return net


def equalize(folded: list[FoldedBlock]) -> list[FoldedBlock]:
    """The same network, with channels between blocks that reach equally far.

    A tensor without ReLU may have any scale in each channel, which its readers take back (Nagel et al. 2019, section
    4.1). Blocks that are added share their channels.
    """
    scales: list[Floats] = [np.ones(0)] * len(folded)
    for chain in _find_chains():
        parts = [folded[number][2] for number in chain]
        mean = np.abs(sum((part.mean for part in parts), np.zeros(1)))
        deviation = np.sqrt(sum((part.deviation**2 for part in parts), np.zeros(1)))
        reach = mean + REACH * deviation
        for number in chain:
            scales[number] = reach.max() / reach
    return [
        _scale(parts, scales[number - 1] if number else None, scales[number]) for number, parts in enumerate(folded)
    ]


def _find_chains() -> list[list[int]]:
    """Numbers of the blocks whose results are added up."""
    chains: list[list[int]] = []
    for number, block in enumerate(BLOCKS):
        if block.adds:
            chains[-1].append(number)
        else:
            chains.append([number])
    return chains


def _scale(parts: FoldedBlock, read: Floats | None, written: Floats) -> FoldedBlock:
    """A block whose source's channels are multiplied by `read`, and its own by `written`."""
    expand, each, project = parts
    if expand is not None and read is not None:
        expand = replace(expand, weights=expand.weights / read[:, np.newaxis, np.newaxis])
    weights = project.weights * written[:, np.newaxis, np.newaxis, np.newaxis]
    project = Folded(weights, project.bias * written, project.mean * written, project.deviation * written)
    return expand, each, project


class _Maker:
    """Layers one after the other, with what is known of their sums."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.exponents = {IMAGE: IMAGE_EXPONENT}
        self.mean: dict[str, Floats] = {}
        self.variance: dict[str, Floats] = {}

    def add_block(self, number: int, source: str, folded: FoldedBlock) -> str:
        """Returns the name of its result."""
        block, name, wide = BLOCKS[number], f"block{number}", source
        expand, each, project = folded
        if expand is not None:
            wide = self.convolve(f"{name}_wide", wide, expand.weights, expand.bias * GAIN)
        deep = self.convolve(f"{name}_each", wide, each.weights, each.bias * GAIN, stride=block.stride, each=True)
        narrow = f"{name}_narrow" if block.adds else name
        self.mean[narrow], self.variance[narrow] = project.mean * GAIN, (project.deviation * GAIN) ** 2
        self.convolve(narrow, deep, project.weights, project.bias * GAIN, exponent=self._exponent_of(narrow))
        if block.adds:
            self._add(name, source, narrow)
        return name

    def add_features(self, source: str) -> None:
        """Means of neighbours, less the channel's mean, in units of its deviation."""
        deviation = np.sqrt(self.variance[source])
        taps = np.ones((1, 1, POOL_PX, POOL_PX)) / POOL_PX**2
        weights = taps / deviation[:, np.newaxis, np.newaxis, np.newaxis]
        self.convolve(MAP, source, weights, -self.mean[source] / deviation, exponent=FEATURE_EXPONENT, each=True)

    def convolve(
        self,
        name: str,
        source: str,
        weights: Floats,
        bias: Floats,
        *,
        stride: int = 1,
        exponent: int | None = None,
        each: bool = False,
    ) -> str:
        """With ReLU6 where no exponent is given; `each` channel by itself, or all together."""
        relu = exponent is None
        exponent = RELU_EXPONENT if exponent is None else exponent
        integers, scales, sums = quantize(weights, bias, self.exponents[source], exponent)
        late = stride == 2
        if each:
            deep = DepthwiseConv(name, source, integers[:, 0], scales, sums, exponent, stride, relu, late)
            self._keep(deep, exponent)
        else:
            self._keep(Conv(name, source, integers, scales, sums, exponent, stride, relu, late), exponent)
        return name

    def _add(self, name: str, left: str, right: str) -> None:
        self.mean[name] = self.mean[left] + self.mean[right]
        self.variance[name] = self.variance[left] + self.variance[right]
        exponent = max(self._exponent_of(name), min(self.exponents[left], self.exponents[right]))
        self._keep(Add(name, left, right, exponent), exponent)

    def _exponent_of(self, name: str) -> int:
        reach = (np.abs(self.mean[name]) + REACH * np.sqrt(self.variance[name])).max()
        return int(np.ceil(np.log2(reach / INT8_MAX)))

    def _keep(self, layer: Layer, exponent: int) -> None:
        self.layers.append(layer)
        self.exponents[layer.name] = exponent
