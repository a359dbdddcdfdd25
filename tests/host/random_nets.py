"""Integer networks with random weights: they saturate, tie and shift in ways that a trained one seldom does."""

from __future__ import annotations

import numpy as np

from host.integers.arithmetic import IMAGE, IMAGE_EXPONENT, MAP, Add, Conv, IntegerNet, Upsample


def random_net(seed: int, input_px: tuple[int, int] = (32, 32)) -> IntegerNet:
    """Every kind of layer: 5×5, 3×3 and 1×1, stride 1 and 2, with and without ReLU, added at unequal scales."""
    rng = np.random.default_rng(seed)
    layers = (
        random_conv(rng, "stem", (IMAGE, IMAGE_EXPONENT), (3, 16, 5), exponent=-5, stride=2, relu=True),
        random_conv(rng, "down", ("stem", -5), (16, 32, 3), exponent=-4, stride=2, relu=True),
        random_conv(rng, "refine", ("down", -4), (32, 32, 3), exponent=-6, stride=1, relu=False),
        Add("mixed", "down", "refine", -4),
        random_conv(rng, "side", ("mixed", -4), (32, 16, 1), exponent=-5, stride=1, relu=True),
        Upsample("up", "side"),
        Add("joined", "up", "stem", -5),
        random_conv(rng, MAP, ("joined", -5), (16, 1, 1), exponent=-4, stride=1, relu=False),
    )
    return IntegerNet(input_px, layers)


def random_conv(
    rng: np.random.Generator,
    name: str,
    source: tuple[str, int],
    shape: tuple[int, int, int],
    *,
    exponent: int,
    stride: int,
    relu: bool,
) -> Conv:
    """`source` is (name, exponent), `shape` (in, out, kernel); shifts spread the sums over int8 and beyond."""
    channels_in, channels_out, kernel_px = shape
    weights = rng.integers(-127, 128, (channels_out, channels_in, kernel_px, kernel_px)).astype(np.int8)
    typical_sum = np.sqrt(channels_in) * kernel_px * 73 * 60
    shifts = np.ceil(np.log2(typical_sum / 60)).astype(int) - rng.integers(0, 3, channels_out)
    return Conv(
        name=name,
        source=source[0],
        weights=weights,
        weight_exponents=(exponent - source[1] - shifts).astype(np.int32),
        bias=rng.integers(-20000, 20000, channels_out).astype(np.int32),
        exponent=exponent,
        stride=stride,
        relu=relu,
    )
