"""The integer reference itself, against arithmetic written from the definition."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from host.integers.arithmetic import (
    IMAGE,
    MAP,
    Add,
    Conv,
    IntegerNet,
    NotExactError,
    check_exact,
    conv_shifts,
    costs,
    requantize,
    run,
)
from tests.host.random_nets import random_net


def test_requantize_rounds_half_to_even_and_saturates() -> None:
    totals = [*range(-70, 71), -(10**9), 10**9, 127 * 8 + 4, -128 * 8 - 4]
    for total, shift in product(totals, (0, 1, 2, 3, 9)):
        rounded = round(Fraction(total, 1 << shift))  # Python rounds half to even
        expected = max(-128, min(127, rounded))
        assert requantize(np.array([total]), np.array([shift]))[0] == expected, (total, shift)


def test_convolution_is_the_sum_over_its_window() -> None:
    net = random_net(1, (8, 8))
    stem = net.layers[0]
    assert isinstance(stem, Conv)
    image = np.random.default_rng(2).integers(-128, 128, (3, 8, 8)).astype(np.int8)
    only_stem = IntegerNet((8, 8), (replace(stem, name=MAP),))
    shift = int(conv_shifts(stem, -7)[0])
    for y, x in ((0, 0), (1, 3), (3, 3)):
        total = int(stem.bias[0])
        for channel, row, column in product(range(3), range(5), range(5)):
            source_y, source_x = 2 * y + row - 2, 2 * x + column - 2
            if 0 <= source_y < 8 and 0 <= source_x < 8:
                total += int(stem.weights[0, channel, row, column]) * int(image[channel, source_y, source_x])
        expected = max(0, min(127, round(Fraction(total, 1 << shift))))
        assert run(only_stem, image)[y, x] == expected


def test_addition_aligns_unequal_scales() -> None:
    image = np.full((3, 4, 4), 5, np.int8)
    weights = np.zeros((1, 3, 1, 1), np.int8)
    weights[0, 0] = 64
    fine = Conv("fine", IMAGE, weights, np.array([-6], np.int32), np.zeros(1, np.int32), -7, 1, relu=False)
    coarse = replace(fine, name="coarse", exponent=-6)
    net = IntegerNet((4, 4), (fine, coarse, Add(MAP, "fine", "coarse", -6)))
    # fine 5 · 2^-7, coarse round(2.5) = 2 · 2^-6: together 9 · 2^-7, 4.5 units of 2^-6, to even 4
    assert (run(net, image) == 4).all()


def test_refuses_sums_beyond_float32() -> None:
    net = random_net(3)
    stem = net.layers[0]
    assert isinstance(stem, Conv)
    heavy = replace(stem, bias=np.full(16, (1 << 24) - 1, np.int32))
    with pytest.raises(NotExactError, match=r"layer stem, channel \d+: a sum may reach \d+"):
        check_exact(replace(net, layers=(heavy, *net.layers[1:])))


def test_refuses_left_shifts() -> None:
    net = random_net(3)
    stem = net.layers[0]
    assert isinstance(stem, Conv)
    with pytest.raises(NotExactError, match=r"layer stem: shift -\d+"):
        check_exact(replace(net, layers=(replace(stem, weight_exponents=stem.weight_exponents + 30), *net.layers[1:])))


def test_cost_of_a_convolution() -> None:
    stem = costs(random_net(1, (32, 32)))[0]
    assert stem.output == (16, 16, 16)
    assert stem.macs == 16 * 3 * 5 * 5 * 16 * 16
    assert stem.weight_bytes == 16 * 3 * 5 * 5 + 16 * 4
