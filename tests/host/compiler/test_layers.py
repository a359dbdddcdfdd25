"""Single layers and small networks, compiled and executed in the golden model, equal the reference bit for bit."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from board.overlay.isa import LoadWeights, Mode, Segment, StoreTile, WeightFormat
from host.integers.arithmetic import IMAGE, MAP, Add, ChannelMax, Concat, Conv, Layer, MaxPool, MeanPool, Upsample
from tests.host.compiler.ordering import most_tokens
from tests.host.compiler.random_layers import EXPONENT, check_net, random_conv, random_depthwise
from tests.host.random_nets import random_net

CASES = range(12)
KERNELS_AND_STRIDES = list(product((1, 3, 5, 7), (1, 2)))
TOKENS_HIGH = 63


def random_px(rng: np.random.Generator, most: int = 20) -> tuple[int, int]:
    height, width = rng.integers(1, most, 2)
    return int(height), int(width)


@pytest.mark.parametrize(("kernel_px", "stride"), KERNELS_AND_STRIDES)
def test_convolution_of_the_image(kernel_px: int, stride: int) -> None:
    rng = np.random.default_rng([kernel_px, stride])
    for _ in CASES:
        channels = int(rng.integers(1, 60))
        check_net(random_px(rng, 40), [random_conv(rng, MAP, IMAGE, (3, channels, kernel_px), stride)], rng)


@pytest.mark.parametrize(("kernel_px", "stride"), KERNELS_AND_STRIDES)
def test_convolution(kernel_px: int, stride: int) -> None:
    rng = np.random.default_rng([kernel_px, stride, 1])
    for case in CASES:
        channels_in, channels_out = (int(n) for n in rng.integers(1, (131 if kernel_px < 7 else 40), 2))
        source = random_conv(rng, "source", IMAGE, (3, channels_in, 1))
        layer = random_conv(rng, MAP, "source", (channels_in, channels_out, kernel_px), stride)
        check_net(random_px(rng), [source, layer], rng, garbage=case)


@pytest.mark.parametrize(("kernel_px", "stride"), KERNELS_AND_STRIDES)
def test_depthwise_convolution(kernel_px: int, stride: int) -> None:
    rng = np.random.default_rng([kernel_px, stride, 2])
    for case in CASES:
        channels = int(rng.integers(1, 131))
        source = random_conv(rng, "source", IMAGE, (3, channels, 1))
        layer = random_depthwise(rng, MAP, "source", (channels, kernel_px), stride)
        check_net(random_px(rng), [source, layer], rng, garbage=case)


@pytest.mark.parametrize("kernel_px", [3, 5, 7])
def test_windows_that_start_late(kernel_px: int) -> None:
    """As networks of TensorFlow have them at stride 2."""
    rng = np.random.default_rng([kernel_px, 18])
    for case in range(4):
        channels = int(rng.integers(1, 60))
        height, width = (int(half) * 4 for half in rng.integers(1, 7, 2))
        stem = replace(random_conv(rng, "stem", IMAGE, (3, channels, kernel_px), 2), late=True)
        deep = replace(random_depthwise(rng, "deep", "stem", (channels, kernel_px), 2), late=True)
        dense = replace(random_conv(rng, MAP, "stem", (channels, 20, kernel_px), 2), late=True)
        check_net((height, width), [replace(stem, name=MAP)], rng)
        check_net((height, width), [stem, replace(deep, name=MAP)], rng, garbage=case)
        check_net((height, width), [stem, dense], rng, garbage=case)


@pytest.mark.parametrize("channels", [1, 3, 7, 16, 17, 40, 64, 150])
def test_largest_channel(channels: int) -> None:
    rng = np.random.default_rng([channels, 19])
    for case in range(4):
        source = replace(random_conv(rng, "source", IMAGE, (3, channels, 3)), relu=False)
        check_net(random_px(rng), [source, ChannelMax(MAP, "source")], rng, garbage=case, ordinary=False)


def test_largest_channel_of_a_concatenation_is_read_again() -> None:
    rng = np.random.default_rng(20)
    parts: list[Layer] = [random_conv(rng, f"part{number}", IMAGE, (3, 20, 1)) for number in range(3)]
    largest: list[Layer] = [ChannelMax(f"most{number}", f"part{number}") for number in range(3)]
    joined: list[Layer] = [Concat("joined", ("part0", "part1")), ChannelMax("most", "joined")]
    ends: list[Layer] = [Concat("all", ("most0", "most1", "most2", "most")), random_conv(rng, MAP, "all", (4, 20, 1))]
    check_net((9, 10), [*parts, *largest, *joined, *ends], rng, ordinary=False)


@pytest.mark.parametrize(("kernel_px", "stride"), list(product((1, 2, 3, 4, 5), (1, 2))))
def test_maximum_pool(kernel_px: int, stride: int) -> None:
    rng = np.random.default_rng([kernel_px, stride, 3])
    for _ in CASES:
        channels = int(rng.integers(1, 40))
        source = random_conv(rng, "source", IMAGE, (3, channels, 1))
        check_net(random_px(rng), [source, MaxPool(MAP, "source", kernel_px, stride)], rng)


@pytest.mark.parametrize(("kernel_px", "stride"), list(product((1, 2, 4, 8), (1, 2))))
def test_mean_pool(kernel_px: int, stride: int) -> None:
    rng = np.random.default_rng([kernel_px, stride, 4])
    for _ in CASES:
        channels = int(rng.integers(1, 40))
        source = random_conv(rng, "source", IMAGE, (3, channels, 1))
        check_net(random_px(rng), [source, MeanPool(MAP, "source", kernel_px, stride, EXPONENT)], rng)


def test_addition_of_unequal_scales() -> None:
    rng = np.random.default_rng(5)
    for shift, coarser in product(range(7), range(3)):
        channels = int(rng.integers(1, 50))
        left = random_conv(rng, "left", IMAGE, (3, channels, 3))
        moved = random_conv(rng, "right", IMAGE, (3, channels, 1))
        right = replace(moved, exponent=EXPONENT - shift, weight_exponents=moved.weight_exponents - shift)
        names = ("left", "right") if rng.integers(2) else ("right", "left")
        check_net(random_px(rng), [left, right, Add(MAP, *names, EXPONENT + coarser)], rng)


@pytest.mark.parametrize("kernel_px", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_upsampling_is_read_through(kernel_px: int, stride: int) -> None:
    rng = np.random.default_rng([kernel_px, stride, 6])
    for _ in CASES:
        channels = int(rng.integers(1, 40))
        layers: list[Layer] = [random_conv(rng, "source", IMAGE, (3, channels, 1)), Upsample("up", "source")]
        layers.append(random_conv(rng, MAP, "up", (channels, 20, kernel_px), stride))
        check_net(random_px(rng, 12), layers, rng)


def test_upsampling_twice_pooled_added_and_alone() -> None:
    rng = np.random.default_rng(7)
    for _ in CASES:
        start: list[Layer] = [random_conv(rng, "source", IMAGE, (3, 20, 3))]
        start += [Upsample("up", "source"), Upsample("four", "up")]
        size = random_px(rng, 8)
        check_net(size, [*start, random_depthwise(rng, MAP, "four", (20, 3), 1)], rng)
        check_net(size, [*start, MaxPool(MAP, "four", 3, 2)], rng)
        check_net(size, [*start, Add(MAP, "four", "four", EXPONENT + 1)], rng)
        check_net(size, [*start, Upsample(MAP, "four")], rng)


def test_concatenation_of_any_widths() -> None:
    rng = np.random.default_rng(8)
    for _ in CASES:
        widths = [int(width) for width in rng.integers(1, 40, rng.integers(1, 4))]
        names = tuple(f"part{number}" for number in range(len(widths)))
        parts = [random_conv(rng, name, IMAGE, (3, width, 3)) for name, width in zip(names, widths, strict=True)]
        size, total = random_px(rng), sum(widths)
        joined = Concat("joined", names)
        check_net(size, [*parts, joined, random_conv(rng, MAP, "joined", (total, 30, 3))], rng)
        check_net(size, [*parts, joined, random_depthwise(rng, MAP, "joined", (total, 3), 1)], rng)
        check_net(size, [*parts, Concat(MAP, names)], rng)
        check_net(size, [*parts, joined, random_conv(rng, MAP, names[0], (widths[0], 5, 1))], rng)


def test_concatenation_of_what_cannot_be_written_in_place() -> None:
    rng = np.random.default_rng(9)
    first, second = random_conv(rng, "first", IMAGE, (3, 7, 1)), random_conv(rng, "second", IMAGE, (3, 18, 3), 2)
    layers: list[Layer] = [
        first,
        second,
        Upsample("up", "second"),
        Concat("one", ("first", "up", "first")),
        Concat("two", ("one", "first")),
        Add("sum", "two", "two", EXPONENT + 1),
        random_conv(rng, "plain", "two", (39, 39, 1)),
        Add(MAP, "two", "plain", EXPONENT),
    ]
    check_net((12, 10), layers, rng)


@pytest.mark.parametrize("seed", range(10))
def test_small_networks(seed: int) -> None:
    rng = np.random.default_rng([seed, 10])
    size = (int(rng.integers(1, 16)) * 4, int(rng.integers(1, 16)) * 4)
    check_net(size, list(random_net(seed, size).layers), rng, garbage=seed)


@pytest.mark.parametrize("seed", range(8))
def test_tensors_that_do_not_fit_pass_through_memory(seed: int) -> None:
    """With a small activation memory every tensor goes to DDR and comes back, with and without two buffers."""
    rng = np.random.default_rng([seed, 11])
    size = (int(rng.integers(6, 12)) * 4, int(rng.integers(6, 12)) * 4)
    words = int(rng.integers(150, 450))
    compiled = check_net(size, list(random_net(seed, size).layers), rng, activation_words=words)
    stores = [item for item in compiled.instructions if isinstance(item, StoreTile)]
    assert any(store.segment == Segment.SCRATCH for store in stores)


def test_large_tensors_pass_through_memory() -> None:
    rng = np.random.default_rng(12)
    layers: list[Layer] = [
        random_conv(rng, "stem", IMAGE, (3, 64, 3)),
        random_depthwise(rng, "deep", "stem", (64, 3), 1),
        Add("sum", "deep", "stem", EXPONENT),
        random_conv(rng, "part", "sum", (64, 20, 1)),
        Concat("both", ("part", "stem")),
        MaxPool("pooled", "both", 2, 2),
        Upsample("up", "pooled"),
        random_conv(rng, MAP, "up", (84, 40, 3)),
    ]
    compiled = check_net((98, 122), layers, rng)
    assert compiled.program.scratch_bytes > 98 * 122 * 64


def test_weights_beyond_their_memory_are_loaded_for_each_strip() -> None:
    rng = np.random.default_rng(13)
    layers: list[Layer] = [
        random_conv(rng, "source", IMAGE, (3, 96, 1)),
        random_conv(rng, MAP, "source", (96, 240, 3)),
    ]
    compiled = check_net((9, 9), layers, rng)
    loaded = sum(item.words for item in compiled.instructions if isinstance(item, LoadWeights))
    assert loaded >= 5 * 20 * 55  # strips, groups, words


def test_many_small_weight_tiles_need_few_tokens() -> None:
    """Each of 600 tiles of two words takes the place of one that was used long ago."""
    rng = np.random.default_rng(14)
    layers: list[Layer] = [random_conv(rng, "c0", IMAGE, (3, 16, 1))]
    layers += [random_conv(rng, f"c{n}", "c0", (16, 900, 1)) for n in range(1, 8)]
    layers.append(random_conv(rng, MAP, "c0", (16, 900, 1)))
    compiled = check_net((2, 2), layers, rng)
    assert most_tokens(compiled.instructions) <= TOKENS_HIGH // 2


def test_small_weights_travel_as_int4() -> None:
    rng = np.random.default_rng(15)
    conv = random_conv(rng, MAP, "source", (20, 20, 3))
    small = replace(conv, weights=rng.integers(-8, 8, conv.weights.shape).astype(np.int8))
    compiled = check_net((8, 8), [random_conv(rng, "source", IMAGE, (3, 20, 1)), small], rng)
    formats = {item.format for item in compiled.instructions if isinstance(item, LoadWeights)}
    assert formats == {WeightFormat.INT8, WeightFormat.INT4}
    check_net(
        (8, 8), [random_conv(rng, "source", IMAGE, (3, 20, 1)), replace(small, weights=small.weights + np.int8(1))], rng
    )


def test_a_convolution_without_headroom_saturates() -> None:
    rng = np.random.default_rng(16)
    for sign in (-1, 1):
        weights = np.full((13, 3, 5, 5), 127 * sign, np.int8)
        conv = Conv(MAP, IMAGE, weights, np.full(13, EXPONENT + 7), np.full(13, sign * 100000), EXPONENT, 1, relu=False)
        check_net((8, 8), [conv], rng)


def test_the_output_is_the_same_every_time() -> None:
    rng = np.random.default_rng(17)
    layers = list(random_net(3, (32, 48)).layers)
    programs = {check_net((32, 48), layers, rng).program for _ in range(3)}
    assert len(programs) == 1
    assert all(operation.mode in Mode for operation in check_net((32, 48), layers, rng).owners)
