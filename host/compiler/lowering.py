"""From the integer network to operations: layers that only move data become views of tensors.

An upsampled tensor is read through `double`. The sources of a concatenation are written side by side into its pixels,
each at the beginning of a word; the weights of the layers that read it leave out the bytes between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from board.overlay import isa
from board.overlay.isa import Mode
from host.compiler.operations import Group, Operation, Taps, Tensor, UnsupportedError, View
from host.compiler.spread import (
    APART_WORDS,
    Positions,
    apart_groups,
    dense_groups,
    depthwise_groups,
    spread_conv,
    spread_image_conv,
    words_of,
)
from host.compiler.tiles import Tile, bare_tile, uniform_tile
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
    add_shifts,
    check_exact,
    conv_shifts,
    mean_shift,
    rows_before,
)

MAX_FACTOR_SHIFT = 6  # 2^7 is no int8


@dataclass(frozen=True)
class Value:
    """A layer's output; `positions` int64 (channels,) are the bytes of its channels in the pixel as it is seen."""

    view: View
    positions: Positions

    @property
    def is_plain(self) -> bool:
        return np.array_equal(self.positions, np.arange(len(self.positions)))


def lower(net: IntegerNet) -> list[Operation]:
    """Operations in an order in which they can be executed; the last one writes the map, alone in its tensor.

    Raises: UnsupportedError for what the overlay cannot do, NotExactError for sums that are not exact everywhere.
    """
    check_exact(net)
    lowering = _Lowering(net)
    for layer in net.layers:
        lowering.lower(layer)
    lowering.finish()
    return lowering.operations


class _Lowering:
    def __init__(self, net: IntegerNet) -> None:
        self.net = net
        self.exponents = net.exponents()
        self.operations: list[Operation] = []
        self.values: dict[str, Value] = {}
        self.homes = _find_homes(net)

    def lower(self, layer: Layer) -> None:
        if isinstance(layer, Upsample):
            self._upsample(layer)
        elif isinstance(layer, Concat):
            self._concat(layer)
        elif isinstance(layer, Add):
            self._add(layer)
        elif isinstance(layer, MaxPool | MeanPool):
            self._pool(layer)
        elif isinstance(layer, ChannelMax):
            self._channel_max(layer)
        elif isinstance(layer, DepthwiseConv):
            self._depthwise(layer)
        elif layer.source == IMAGE:
            self._image_conv(layer)
        else:
            self._conv(layer)

    def finish(self) -> None:
        """The map leaves as rows of pixels of its own, written last."""
        value, last = self.values[MAP], self.operations[-1]
        if not value.is_plain or value.view != last.output or value.view.words != value.view.tensor.pixel_words:
            self._copy_dense(f"{MAP}_plain", value)

    def _conv(self, conv: Conv) -> None:
        source = self._source(conv, conv.source)
        weights = spread_conv(conv.weights, source.positions, source.view.words)
        self._emit_dense(
            conv,
            dense_groups(weights, conv.bias, conv_shifts(conv, self.exponents[conv.source])),
            sources=(source.view,),
            kernel_cols=conv.weights.shape[2],
            blocks=source.view.words,
            stride_cols=conv.stride,
            pad_cols=rows_before(conv),
        )

    def _image_conv(self, conv: Conv) -> None:
        kernel_px = conv.weights.shape[2]
        blocks, cols = -(-kernel_px // isa.IMAGE_TAPS), -(-self.net.input_px[1] // conv.stride)
        words = Tensor(IMAGE, self.net.input_px[0], cols, (blocks,))
        leads = tuple(rows_before(conv) - isa.IMAGE_TAPS * block for block in range(blocks))
        self._emit_dense(
            conv,
            dense_groups(spread_image_conv(conv.weights), conv.bias, conv_shifts(conv, IMAGE_EXPONENT)),
            sources=(View(words, 0, blocks),),
            blocks=blocks,
            taps=Taps(self.net.input_px, conv.stride, leads),
        )

    def _emit_dense(self, conv: Conv, groups: tuple[Group, ...], **fields: Any) -> None:
        outputs, inputs, kernel_px, _ = conv.weights.shape
        if groups[0].tile.words > isa.WEIGHT_WORDS:
            raise UnsupportedError(
                f"layer {conv.name}: {groups[0].tile.words} weight words for 12 outputs, the overlay holds "
                f"{isa.WEIGHT_WORDS}: give it fewer input channels or a smaller kernel"
            )
        source = fields["sources"][0]
        shape = (-(-source.rows // conv.stride), -(-source.cols // fields.get("stride_cols", 1)))
        self._emit(
            conv.name,
            np.arange(outputs),
            shape,
            mode=Mode.DENSE,
            groups=groups,
            relu=conv.relu,
            kernel_rows=kernel_px,
            stride_rows=conv.stride,
            pad_rows=rows_before(conv),
            macs=conv.weights.size * shape[0] * shape[1],
            inputs=inputs,
            **fields,
        )

    def _depthwise(self, conv: DepthwiseConv) -> None:
        source = self._source(conv, conv.source)
        kernel_px, paired = conv.weights.shape[1], conv.stride == 1
        weights = np.zeros((source.view.words * isa.WORD_BYTES, kernel_px, kernel_px), np.int8)
        bias, shift = (np.zeros(len(weights), np.int64) for _ in range(2))
        weights[source.positions], bias[source.positions] = conv.weights, conv.bias
        shift[source.positions] = conv_shifts(conv, self.exponents[conv.source])
        self._emit_window(
            conv,
            source,
            kernel_px,
            groups=depthwise_groups(weights, bias, shift, paired=paired),
            relu=conv.relu,
            kernel_cols=kernel_px // 2 + 1 if paired else kernel_px,
            step_cols=2 if paired else 1,
        )

    def _pool(self, pool: MaxPool | MeanPool) -> None:
        source = self._source(pool, pool.source)
        if isinstance(pool, MaxPool):
            mode, tile = Mode.MAX, bare_tile()
        else:
            taps = [1] * pool.kernel_px**2
            mode, tile = Mode.LANES, uniform_tile(taps, mean_shift(pool, self.exponents[pool.source]))
        self._emit_window(pool, source, pool.kernel_px, mode=mode, groups=_lane_groups(tile, source.view))

    def _emit_window(
        self, layer: DepthwiseConv | MaxPool | MeanPool, source: Value, kernel_px: int, **fields: Any
    ) -> None:
        """Lane by lane over k × k pixels."""
        shape = (-(-source.view.rows // layer.stride), -(-source.view.cols // layer.stride))
        weights = layer.weights.size if isinstance(layer, DepthwiseConv) else 0
        settings: dict[str, Any] = {
            "mode": Mode.LANES,
            "sources": (source.view,),
            "kernel_rows": kernel_px,
            "kernel_cols": kernel_px,
            "stride_rows": layer.stride,
            "stride_cols": layer.stride,
            "pad_rows": rows_before(layer),
            "pad_cols": rows_before(layer),
            "macs": weights * shape[0] * shape[1],
        }
        self._emit(layer.name, source.positions, shape, **(settings | fields))

    def _channel_max(self, layer: ChannelMax) -> None:
        """Word by word to 16 lanes; these are put apart in four words, which are compared, and again."""
        value = self._source(layer, layer.source)
        if value.view.words > 1:
            if not value.is_plain or len(value.positions) % isa.WORD_BYTES:
                value = self._fill_words(f"{layer.name}_filled", value)
            value = self._largest_word(f"{layer.name}_lanes", value, isa.WORD_BYTES)
        for lanes in (APART_WORDS, 1):
            apart = self._put_apart(f"{layer.name}_apart_{lanes}", value, lanes)
            value = self._largest_word(layer.name if lanes == 1 else f"{layer.name}_{lanes}", apart, lanes)

    def _largest_word(self, name: str, value: Value, lanes: int) -> Value:
        """Lane by lane over the words of a pixel."""
        fields: dict[str, Any] = {"mode": Mode.MAX, "sources": (value.view,), "blocks": value.view.words}
        groups = (Group(bare_tile(), block=0, quad=0, quads=-(-lanes // isa.QUAD_BYTES)),)
        return self._emit(name, np.arange(lanes), (value.view.rows, value.view.cols), groups=groups, **fields)

    def _put_apart(self, name: str, value: Value, lanes: int) -> Value:
        return self._emit(
            name,
            np.arange(APART_WORDS * isa.WORD_BYTES),
            (value.view.rows, value.view.cols),
            mode=Mode.DENSE,
            sources=(value.view,),
            groups=apart_groups(value.positions, value.view.words, lanes),
            blocks=value.view.words,
            inputs=len(value.positions),
        )

    def _add(self, add: Add) -> None:
        left, right = self._source(add, add.left), self._source(add, add.right)
        if not np.array_equal(left.positions, right.positions):
            left, right = (self._copy_dense(f"{add.name}_{i}", value) for i, value in enumerate((left, right)))
        *factors, shift = add_shifts(add, self.exponents[add.left], self.exponents[add.right])
        if max(factors) > MAX_FACTOR_SHIFT:
            raise UnsupportedError(
                f"layer {add.name}: its two scales lie 2^{max(factors)} apart, the overlay adds up to "
                f"2^{MAX_FACTOR_SHIFT}: train again, or bring one of them nearer with a 1×1 convolution"
            )
        groups = _lane_groups(uniform_tile([1 << factor for factor in factors], shift), left.view)
        shape = (left.view.rows, left.view.cols)
        self._emit(add.name, left.positions, shape, mode=Mode.LANES, sources=(left.view, right.view), groups=groups)

    def _upsample(self, layer: Upsample) -> None:
        source = self._source(layer, layer.source)
        if source.view.double:
            source = self._copy(f"{layer.name}_source", source, None)
        view = source.view
        self.values[layer.name] = Value(View(view.tensor, view.first_word, view.words, double=True), source.positions)

    def _concat(self, layer: Concat) -> None:
        """Its sources were written into their places, or are copied there now."""
        words = [self._source(layer, name).view.words for name in layer.sources]
        shape = self.net.shapes()[layer.name][1:]
        tensor = Tensor(layer.name, *shape, tuple(words))
        positions = []
        for number, name in enumerate(layer.sources):
            value = self.values[name]
            home = View(tensor, sum(words[:number]), words[number])
            if value.view != home:
                self._copy(f"{layer.name}_{number}", value, home)
            positions.append(value.positions + home.first_word * isa.WORD_BYTES)
        self.values[layer.name] = Value(View(tensor, 0, tensor.pixel_words), np.concatenate(positions))

    def _copy(self, name: str, value: Value, output: View | None) -> Value:
        """The same words in another tensor."""
        groups = _lane_groups(uniform_tile([1], 0), value.view)
        shape = (value.view.rows, value.view.cols)
        return self._emit(name, value.positions, shape, output, mode=Mode.LANES, sources=(value.view,), groups=groups)

    def _copy_dense(self, name: str, value: Value) -> Value:
        """The same channels without bytes between them."""
        return self._rearrange(name, value, np.arange(len(value.positions)))

    def _fill_words(self, name: str, value: Value) -> Value:
        """The same channels in whole words, the last one repeated."""
        count = len(value.positions)
        return self._rearrange(name, value, np.minimum(np.arange(words_of(count) * isa.WORD_BYTES), count - 1))

    def _rearrange(self, name: str, value: Value, chosen: Positions) -> Value:
        """Channels of these numbers, one after the other."""
        channels = len(value.positions)
        identity = np.eye(channels, dtype=np.int8)[chosen, :, np.newaxis, np.newaxis]
        none = np.zeros(len(chosen), np.int64)
        groups = dense_groups(spread_conv(identity, value.positions, value.view.words), none, none)
        fields: dict[str, Any] = {
            "mode": Mode.DENSE,
            "sources": (value.view,),
            "groups": groups,
            "blocks": value.view.words,
            "inputs": channels,
        }
        return self._emit(name, np.arange(len(chosen)), (value.view.rows, value.view.cols), **fields)

    def _source(self, layer: Layer, name: str) -> Value:
        if name == IMAGE:
            raise UnsupportedError(
                f"layer {layer.name}: a {type(layer).__name__} reads the image; "
                "only convolutions over all three colours do"
            )
        return self.values[name]

    def _emit(
        self, name: str, positions: Positions, shape: tuple[int, int], output: View | None = None, **fields: Any
    ) -> Value:
        words = words_of(int(positions[-1]) + 1)
        if output is None:
            tensor, first = self.homes.get(name) or (Tensor(name, *shape, (words,)), 0)
            output = View(tensor, first, words)
        self.operations.append(Operation(name=name, output=output, channels=len(positions), **fields))
        self.values[name] = Value(output, positions)
        return self.values[name]


def _lane_groups(tile: Tile, view: View) -> tuple[Group, ...]:
    return tuple(Group(tile, block, 4 * block, 4) for block in range(view.words))


def _find_homes(net: IntegerNet) -> dict[str, tuple[Tensor, int]]:
    """(tensor of the concatenation, first word) of each layer that can write its output there at once."""
    shapes, by_name = net.shapes(), {layer.name: layer for layer in net.layers}
    concats = [layer for layer in net.layers if isinstance(layer, Concat)]
    homes: dict[str, tuple[Tensor, int]] = {}
    for concat in concats:
        if all(isinstance(by_name.get(name), Conv) for name in concat.sources):
            words = [words_of(shapes[name][0]) for name in concat.sources]
            tensor = Tensor(concat.name, *shapes[concat.name][1:], tuple(words))
            for number, name in enumerate(concat.sources):
                homes[name] = (tensor, sum(words[:number]))
    return homes
