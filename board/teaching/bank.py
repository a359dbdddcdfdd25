"""A bank of good patches, and how far a patch lies from all of them: in integers, as a network's layers compute it.

Features are whitened by the product's own pictures; the squared distance to the nearest patch b of the bank is then

    |f - b|² / 2 = |f|² / 2 - (f · b - |b|² / 2)

a convolution 1 × 1 with the bank as weights, and a maximum over its channels. |f|² / 2 is no convolution: it is put
together from straight lines, and goes into the sums of the bank as two digits (host/teaching/detector.py has the
layers). So a station's NumPy and every engine give the same integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from board.overlay.compute import requantize
from board.teaching.whitening import INT8_MAX, Int8, Whitening, make_whitening

# x² / 2 for |x| of 0, 16, 32, 64: between them straight lines, whose slopes rise by 8 times these.
KNOTS, RISES, RISE_UNIT = (0, 16, 32, 64), (1, 2, 3, 6), 8
DIGIT_SHIFT = 6  # the sum of the lines is 64 · high + low
MAP_EXPONENT = -4
MAP_STEPS = 120  # of the map, from a patch of the bank to the farthest good one
BANK_PATCHES = 1000
SKETCH = 24  # random directions by which the bank is chosen
FIRST_CHOICE = 20_000  # patches among which it is chosen: more would only take longer
AT_ONCE = 4096  # patches that are compared at once: bounds the memory

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Bank:
    """`patches` int8 (n, channels) are whitened vectors of good patches, within ±127 as weights are."""

    white: Whitening
    patches: Int8

    def measure(self, features: Int8) -> Int64:
        """Half the squared distance to the nearest patch, int64 (n, h, w), of features int8 (n, channels, h, w)."""
        vectors = self.white.apply(list_patches(features))
        parts = [half_distances(vectors[at : at + AT_ONCE], self.patches) for at in range(0, len(vectors), AT_ONCE)]
        return np.concatenate(parts).reshape(len(features), *features.shape[2:])


@dataclass(frozen=True)
class Detector:
    bank: Bank
    farthest: float  # half the squared distance that a good patch may have: the map's 0

    @property
    def shift(self) -> int:
        """From distances to steps of the map."""
        return max(0, int(np.ceil(np.log2(self.farthest / MAP_STEPS))))

    @property
    def offset(self) -> int:
        return round(self.farthest)

    def draw(self, distances: Int64) -> Int8:
        """The anomaly map where patches lie so far, int8 of the same shape."""
        likeness = requantize((self.offset - distances).astype(np.int32), np.asarray(self.shift), relu=False)
        anomaly: Int8 = np.clip(-likeness.astype(np.int16), -128, 127).astype(np.int8)
        return anomaly

    def judge(self, features: Int8) -> Int8:
        """Anomaly maps int8 (n, h, w) of features int8 (n, channels, h, w)."""
        return self.draw(self.bank.measure(features))


def fill_bank(features: Int8, feature_exponent: int, rng: np.random.Generator) -> Bank:
    """From features int8 (pictures, channels, h, w) of good pictures."""
    patches = list_patches(features)
    white = make_whitening(patches, feature_exponent)
    vectors = white.apply(patches)
    return Bank(white, np.maximum(vectors[choose_patches(vectors, BANK_PATCHES, rng)], -INT8_MAX))


def list_patches(features: Int8) -> Int8:
    """(n · h · w, channels) of features (n, channels, h, w)."""
    patches: Int8 = features.transpose(0, 2, 3, 1).reshape(-1, features.shape[1])
    return patches


def choose_patches(vectors: Int8, most: int, rng: np.random.Generator) -> Int64:
    """Indices of so many vectors that no other lies far from all of them: each next one is the farthest.

    The greedy coreset of PatchCore (Roth et al. 2022, section 3.2), among random projections as there.
    """
    among = np.arange(len(vectors))
    if len(among) > FIRST_CHOICE:
        among = np.sort(rng.choice(among, FIRST_CHOICE, replace=False))
    if len(among) <= most:
        return among
    sketch = (vectors[among] @ rng.normal(size=(vectors.shape[1], SKETCH))).astype(np.float32)
    squares = (sketch**2).sum(axis=1)
    nearest, chosen = np.full(len(sketch), np.inf, np.float32), [int(rng.integers(len(sketch)))]
    while len(chosen) < most:
        last = chosen[-1]
        nearest = np.minimum(nearest, squares + squares[last] - 2 * (sketch @ sketch[last]))
        chosen.append(int(nearest.argmax()))
    indices: Int64 = among[np.sort(np.array(chosen))]
    return indices


def half_distances(vectors: Int8, patches: Int8) -> Int64:
    """Half the squared distance to the nearest of the patches, int64 (n,), as the layers compute it."""
    # subtle: products of float32 are exact here, sums of 80 products below 2^24, and far faster than int64
    products = vectors.astype(np.float32) @ patches.T.astype(np.float32)
    likeness = products - half_squares(patches).astype(np.float32)
    nearest: Int64 = estimate_half_squares(vectors) - likeness.max(axis=1).astype(np.int64)
    return nearest


def half_squares(vectors: Int8) -> Int64:
    squares: Int64 = (vectors.astype(np.int64) ** 2).sum(axis=1) // 2
    return squares


def estimate_half_squares(vectors: Int8) -> Int64:
    """By straight lines and in two digits, as the layers "lines", "high" and "low" have it."""
    magnitudes = np.abs(vectors.astype(np.int32))
    lines = (rise * (magnitudes - knot).clip(0, INT8_MAX) for knot, rise in zip(KNOTS, RISES, strict=True))
    total = np.asarray(sum(lines, np.int32(0))).sum(axis=1).astype(np.int32)
    high = requantize(total, np.asarray(DIGIT_SHIFT), relu=False).astype(np.int64)
    low = requantize((total - (high << DIGIT_SHIFT)).astype(np.int32), np.asarray(0), relu=False).astype(np.int64)
    return RISE_UNIT * ((high << DIGIT_SHIFT) + low)
