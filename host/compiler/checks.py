"""What the instructions' fields can say, checked before anything is built."""

from __future__ import annotations

from host.compiler.operations import UnsupportedError
from host.integers.arithmetic import (
    Add,
    Concat,
    Conv,
    DepthwiseConv,
    IntegerNet,
    Layer,
    MaxPool,
    MeanPool,
    layer_sources,
)

KERNELS_PX = (1, 3, 5, 7)
POOLS_PX = (1, 2, 3, 4, 5, 6, 7, 8)
STRIDES = (1, 2)
MAX_SIDE = 1024  # rows and columns of Compute
MAX_CHANNELS = 127 * 16  # words from pixel to pixel
MAX_ROW_WORDS = 4095  # words from row to row


def check_limits(net: IntegerNet) -> None:
    """Raises: UnsupportedError naming the layer, the reason and what would be accepted."""
    shapes = net.shapes()
    for name, (channels, height, width) in shapes.items():
        if max(height, width) > MAX_SIDE:
            raise UnsupportedError(f"layer {name}: {width} × {height} pixels, the overlay takes {MAX_SIDE} a side")
        row_words = width * -(-channels // 16)
        if channels > MAX_CHANNELS or row_words > MAX_ROW_WORDS:
            raise UnsupportedError(
                f"layer {name}: {channels} channels of {width} columns; the overlay takes {MAX_CHANNELS} channels and "
                f"{MAX_ROW_WORDS} words of 16 channels in a row: make the picture narrower or give it fewer channels"
            )
    for layer in net.layers:
        _check_window(layer)
        _check_shapes(layer, shapes)


def _check_window(layer: Layer) -> None:
    if isinstance(layer, Conv | DepthwiseConv):
        _check_one_of(layer.name, "kernel", layer.weights.shape[-1], KERNELS_PX)
        _check_one_of(layer.name, "stride", layer.stride, STRIDES)
        if layer.weights.shape[-2] != layer.weights.shape[-1]:
            raise UnsupportedError(f"layer {layer.name}: its kernel is not square: use k × k")
    elif isinstance(layer, MaxPool | MeanPool):
        _check_one_of(layer.name, "kernel", layer.kernel_px, POOLS_PX)
        _check_one_of(layer.name, "stride", layer.stride, STRIDES)


def _check_one_of(name: str, what: str, value: int, accepted: tuple[int, ...]) -> None:
    if value not in accepted:
        raise UnsupportedError(f"layer {name}: {what} {value}, the overlay takes {', '.join(map(str, accepted))}")


def _check_shapes(layer: Layer, shapes: dict[str, tuple[int, int, int]]) -> None:
    """Tensors that meet must be of one size, and weights must fit their source."""
    sources = [shapes[name] for name in layer_sources(layer)]
    if isinstance(layer, Add) and sources[0] != sources[1]:
        raise UnsupportedError(f"layer {layer.name}: adds {sources[0]} and {sources[1]}: make them of equal shape")
    if isinstance(layer, Concat) and len({shape[1:] for shape in sources}) != 1:
        raise UnsupportedError(f"layer {layer.name}: concatenates {sources}: make them of equal height and width")
    channels = layer.weights.shape[1] if isinstance(layer, Conv) else sources[0][0]
    if isinstance(layer, DepthwiseConv):
        channels = layer.weights.shape[0]
    if channels != sources[0][0]:
        raise UnsupportedError(
            f"layer {layer.name}: weights for {channels} channels, its source has {sources[0][0]}: export again"
        )
