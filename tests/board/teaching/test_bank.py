"""Distances are those that are written down, and the bank spreads over what was seen."""

from __future__ import annotations

import numpy as np

from board.teaching.bank import Bank, Detector, choose_patches, estimate_half_squares, half_distances, half_squares
from board.teaching.whitening import WHITE_EXPONENT, make_whitening, quantize

CHANNELS = 80


def test_distances_are_those_of_the_definition() -> None:
    """Straight lines lie above the parabola, at most by 128 for a channel, and 2 % of the largest digit below it."""
    rng = np.random.default_rng(0)
    vectors = rng.integers(-50, 51, (300, CHANNELS)).astype(np.int8)
    excess = estimate_half_squares(vectors) - half_squares(vectors)
    assert excess.min() >= 0
    assert excess.max() <= CHANNELS * 128
    assert excess.std() < 0.02 * half_squares(vectors).mean()
    bank = vectors[:20]
    exact = ((vectors[:, np.newaxis].astype(int) - bank) ** 2).sum(axis=2).min(axis=1) / 2
    assert np.abs(half_distances(vectors, bank) - excess - exact).max() <= 1


def test_corners_of_int8() -> None:
    corners = np.array([[-128] * CHANNELS, [127] * CHANNELS, [0] * CHANNELS, [-1, 1] * (CHANNELS // 2)], np.int8)
    squares = estimate_half_squares(corners)
    assert squares[2] == 0
    assert (squares[:2] == squares.max()).all()


def test_whitened_patches_have_mean_0_and_equal_spread() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(4000, 6)) @ rng.normal(size=(6, 6)) * 10 + 20
    patches = np.rint(mixed).clip(-128, 127).astype(np.int8)
    vectors = make_whitening(patches, -5).apply(patches) * 2.0**WHITE_EXPONENT
    assert np.abs(vectors.mean(axis=0)).max() < 0.1
    assert vectors.std(axis=0).max() < 1.1, "a ridge takes a little from each, and much from the least"


def test_a_large_bias_does_not_leave_the_exact_sums() -> None:
    weights = np.array([1e-6, 0.5, 0.0]).reshape(3, 1, 1, 1)
    integers, exponents, sums = quantize(weights, np.array([7.0, -7.0, 3.0]), -4, -4)
    assert np.abs(sums.astype(np.int64)).max() < 1 << 24
    assert np.allclose(sums * 2.0 ** (exponents - 4), [7, -7, 3], atol=1e-3)
    assert abs(integers[1, 0, 0, 0] * 2.0 ** exponents[1] - 0.5) < 0.004


def test_the_bank_spreads_and_is_bounded() -> None:
    rng = np.random.default_rng(0)
    heap = rng.integers(-3, 4, (500, CHANNELS)).astype(np.int8)
    heap[7] = 100
    chosen = choose_patches(heap, 20, rng)
    assert len(chosen) == len(set(chosen.tolist())) == 20
    assert 7 in chosen
    assert choose_patches(heap, 600, rng).tolist() == list(range(500))


def test_a_map_rises_with_the_distance_and_is_0_at_the_farthest_good_one() -> None:
    white = make_whitening(np.random.default_rng(0).integers(-9, 10, (500, 4)).astype(np.int8), -5)
    detector = Detector(Bank(white, np.zeros((1, 4), np.int8)), farthest=900.4)
    distances = np.array([0, 450, 900, 1800, 10**6])
    assert (np.diff(detector.draw(distances)[:4].astype(int)) > 0).all()
    assert detector.draw(distances)[[2, 4]].tolist() == [0, 127]
