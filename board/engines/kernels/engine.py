"""The ARM cores through our own kernels: `model.onnx` as a list of layers in memory, one call a frame.

Where things lie: a tensor is (height, width, channels) with a border of zeros as wide as its widest reader needs, so
that a kernel's row over all its channels is one run of bytes. README.md says more.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from ctypes import Structure, c_int32, c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from board.engines.answer import drop_single
from board.engines.kernels.network import Layer, read_network
from board.engines.kernels.onnx_file import read_graph
from board.engines.weights import require_weights_inside
from protocol.errors import EngineError

BLOCK = 16  # bytes that the convolution takes at a time; a tensor may be read so far beyond its end
GROUP = 4  # channels that it computes at a time
MAX_BYTES = 64 << 20  # of all tensors together: far above any model that the board has time for
CONVOLUTION, DEPTHWISE, ADD, UPSAMPLE, COPY, MAX_POOL, MEAN_POOL, CHANNEL_MAX = range(8)  # enum kind in kernels.c
KINDS = {"Add": ADD, "Resize": UPSAMPLE, "MaxPool": MAX_POOL, "AveragePool": MEAN_POOL, "ReduceMax": CHANNEL_MAX}

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]


class _CTensor(Structure):
    _fields_ = [
        ("first", c_void_p),
        *((name, c_int32) for name in ("height", "width", "pixel", "row")),
    ]


class _CLayer(Structure):
    _fields_ = [
        ("kind", c_int32),
        ("source", _CTensor),
        ("second", _CTensor),
        ("target", _CTensor),
        *((name, c_int32) for name in ("bytes", "kernel", "stride", "before", "low", "left", "right", "blocks")),
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("shift", c_void_p),
    ]


@dataclass(frozen=True)
class Tensor:
    """`pixels` int8 (height, width, stored channels) without the border, a view; `channels` of them are the layer's."""

    pixels: Int8
    channels: int

    def describe(self, first_channel: int = 0) -> _CTensor:
        row, pixel, _ = self.pixels.strides
        height, width, _ = self.pixels.shape
        return _CTensor(self.pixels.ctypes.data + first_channel, height, width, pixel, row)


class KernelEngine:
    name = "arm-kernels"

    def __init__(self, model: Path, library: Path) -> None:
        """Raises: EngineError if the library or the model is none that fits."""
        self._run = _load(library)
        require_weights_inside(model)
        graph = read_graph(model.read_bytes())
        layers = read_network(graph)
        self._tensors = _allocate(layers, graph.inputs["image"][2:])
        self._kept: list[NDArray[np.generic]] = []  # what the layers point to
        described = [one for layer in layers for one in self._describe(layer)]
        self._layers = (_CLayer * len(described))(*described)
        self._image, self._map = self._tensors["image"].pixels, self._tensors["map"]

    def infer(self, image: NDArray[np.uint8]) -> Int8:
        if image.shape != self._image.shape:
            raise EngineError(f"the image is {image.shape}, the model takes {self._image.shape}")
        # subtle: flipping the top bit of a byte subtracts 128 in two's complement
        np.bitwise_xor(image, np.uint8(0x80), out=self._image.view(np.uint8))
        self._run(self._layers, len(self._layers))
        anomaly: Int8 = drop_single(self._map.pixels[..., : self._map.channels].transpose(2, 0, 1)).copy()
        return anomaly

    def close(self) -> None:
        self._tensors.clear()

    def _describe(self, layer: Layer) -> Iterator[_CLayer]:
        target = self._tensors[layer.name]
        sources = [self._tensors[name] for name in layer.sources]
        if layer.kind == "Concat":
            first = 0
            for source in sources:
                yield _CLayer(COPY, source.describe(), target=target.describe(first), bytes=source.channels)
                first += source.channels
            return
        one = _CLayer(_kind(layer), sources[0].describe(), target=target.describe(), bytes=target.channels)
        one.kernel, one.stride, one.before = layer.kernel_px, layer.stride, layer.before
        one.low = 0 if layer.relu else -128
        if layer.kind == "ReduceMax":
            one.bytes = sources[0].channels
        if layer.kind == "Add":
            if {tensor.pixels.shape[2] for tensor in (*sources, target)} != {target.pixels.shape[2]}:
                raise EngineError(f"{layer.name} adds the image itself: set [engines] runtime to another than kernels")
            one.second = sources[1].describe()
            one.left, one.right = layer.left
        if layer.weights is not None and layer.bias is not None and layer.shift is not None:
            one.bytes = target.pixels.shape[2]
            weights = pack_depthwise(layer.weights) if layer.depthwise else pack(layer.weights, sources[0])
            one.blocks = 0 if layer.depthwise else weights.shape[2]
            if layer.depthwise:
                one.bytes = target.channels
            one.weights = self._keep(weights)
            one.bias = self._keep(_padded(layer.bias))
        one.shift = self._keep(_padded(np.zeros(1, np.int32) if layer.shift is None else layer.shift))
        yield one

    def _keep(self, array: NDArray[np.generic]) -> int:
        self._kept.append(np.ascontiguousarray(array))
        return self._kept[-1].ctypes.data


def pack(weights: Int8, source: Tensor) -> Int8:
    """(groups of 4 channels, k, blocks, 4, 16) from (out, in, k, k): rows of the kernel as they lie in the source."""
    out, channels, kernel_px, _ = weights.shape
    stored = source.pixels.strides[1]
    blocks = -(-kernel_px * stored // BLOCK)
    rows = np.zeros((-(-out // GROUP) * GROUP, kernel_px, blocks * BLOCK), np.int8)
    taps = np.zeros((out, kernel_px, kernel_px, stored), np.int8)
    taps[..., :channels] = weights.transpose(0, 2, 3, 1)
    rows[:out, :, : kernel_px * stored] = taps.reshape(out, kernel_px, -1)
    grouped = rows.reshape(-1, GROUP, kernel_px, blocks, BLOCK)
    return np.ascontiguousarray(grouped.transpose(0, 2, 3, 1, 4))


def pack_depthwise(weights: Int8) -> Int8:
    """(k, k, channels) from (channels, 1, k, k)."""
    return np.ascontiguousarray(weights[:, 0].transpose(1, 2, 0))


def find_library() -> Path | None:
    """The kernels for this processor, None where they were not built: `beltsight kernels`."""
    path = Path(__file__).with_name(f"kernels-{platform.machine()}.so")
    return path if path.is_file() else None


def _load(library: Path) -> ctypes._NamedFuncPointer:
    try:
        kernels = ctypes.CDLL(str(library))
        size: int = kernels.kernels_layer_bytes()
    except (OSError, AttributeError) as error:
        raise EngineError(f"{library} cannot be used ({error}): build it with `beltsight kernels`") from None
    if size != ctypes.sizeof(_CLayer):
        raise EngineError(f"{library} is of another version: build it again with `beltsight kernels`")
    run = kernels.kernels_run
    run.argtypes, run.restype = [c_void_p, c_int32], None
    return run


def _allocate(layers: list[Layer], input_px: tuple[int, ...]) -> dict[str, Tensor]:
    """Memory of every tensor, zeroed: nobody writes to a border. Raises: EngineError."""
    shapes = {"image": (*input_px, 3)}
    borders = {"image": 0}
    for layer in layers:
        for source in layer.sources:
            if source not in shapes:
                raise EngineError(f"{layer.name} reads {source}, which no layer gives: export the model again")
        borders[layer.name] = 0
        shapes[layer.name] = _output_shape(layer, [shapes[source] for source in layer.sources])
        if layer.kind == "Conv":
            borders[layer.sources[0]] = max(borders[layer.sources[0]], layer.kernel_px // 2)
    needed = sum((h + 2 * borders[name]) * (w + 2 * borders[name]) * (c + GROUP) for name, (h, w, c) in shapes.items())
    if not 0 < needed <= MAX_BYTES:
        raise EngineError(f"the model's tensors take {needed} bytes, at most {MAX_BYTES} are given: use a smaller one")
    return {name: _tensor(shapes[name], borders[name], 1 if name == "image" else GROUP) for name in shapes}


def _tensor(shape: tuple[int, ...], border: int, group: int) -> Tensor:
    height, width, channels = shape
    stored = -(-channels // group) * group
    rows, columns = height + 2 * border, width + 2 * border
    memory = np.zeros(rows * columns * stored + BLOCK, np.int8)
    whole = memory[: rows * columns * stored].reshape(rows, columns, stored)
    return Tensor(whole[border : border + height, border : border + width], channels)


def _output_shape(layer: Layer, sources: list[tuple[int, ...]]) -> tuple[int, int, int]:
    height, width, channels = sources[0]
    if layer.kind in ("Add", "Concat") and {shape[:2] for shape in sources} != {(height, width)}:
        raise EngineError(f"{layer.name} joins tensors of unequal size: export the model again")
    if layer.kind == "Concat":
        return height, width, sum(shape[2] for shape in sources)
    if layer.kind == "Add" and (len(sources) != 2 or sources[1][2] != channels):
        raise EngineError(f"{layer.name} adds tensors of unequal channels: export the model again")
    if layer.kind == "Resize":
        return height * 2, width * 2, channels
    if layer.kind == "ReduceMax":
        return height, width, 1
    if layer.weights is not None:
        if layer.before < layer.kernel_px // 2 and (layer.stride != 2 or height % 2 or width % 2):
            raise EngineError(f"{layer.name} reads beyond what lies around its source: export the model again")
        if layer.weights.shape[0 if layer.depthwise else 1] != channels:
            raise EngineError(f"{layer.name} has weights for other channels than its source: export the model again")
        channels = layer.weights.shape[0]
    return -(-height // layer.stride), -(-width // layer.stride), channels


def _kind(layer: Layer) -> int:
    if layer.kind == "Conv":
        return DEPTHWISE if layer.depthwise else CONVOLUTION
    return KINDS[layer.kind]


def _padded(values: Int32) -> Int32:
    """To whole groups of channels, with zeros."""
    return np.pad(values, (0, -len(values) % GROUP))
