"""Features made comparable by the product's own pictures: as integers, so that every engine gives the same vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from board.overlay.compute import requantize

INT8_MAX = 127
MAX_SHIFT = 31
MOST_BIAS = 1 << 22  # a quarter of float32's exact integers: the rest is for the products
FEATURE_EXPONENT = -5  # of features whose unit is their deviation over ImageNet
WHITE_EXPONENT = -4  # a deviation of the product's good patches is 16 steps: what lies beyond 8 of them saturates
RIDGE = 0.1  # of the mean variance is added to each: directions in which few pictures hardly vary are not trusted

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Whitening:
    """A convolution 1 × 1: `weights` int8 (out, in), for each output a power of two as scale, `bias` int32 (out,)."""

    weights: Int8
    weight_exponents: Int32
    bias: Int32
    feature_exponent: int  # of what it reads; what it gives has WHITE_EXPONENT

    def apply(self, patches: Int8) -> Int8:
        """Vectors int8 (n, out) of patches int8 (n, in)."""
        # subtle: sums of products of int8 are exact in float32 here, and far faster than integers
        total = (patches.astype(np.float32) @ self.weights.T.astype(np.float32)).astype(np.int32) + self.bias
        return requantize(total, self.shifts, relu=False)

    @property
    def shifts(self) -> NDArray[np.int64]:
        """Right shift of each output channel's sum."""
        return WHITE_EXPONENT - self.feature_exponent - self.weight_exponents.astype(np.int64)


def make_whitening(patches: Int8, feature_exponent: int) -> Whitening:
    """After it the good patches int8 (n, channels) have mean 0 and equal spread in all directions."""
    values = patches * 2.0**feature_exponent
    mean = values.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(values, rowvar=False))
    ridge = (RIDGE + values.shape[1] / len(values)) * variances.mean() + 1e-9  # few patches span few directions
    matrix = (directions / np.sqrt(np.maximum(variances, 0) + ridge)).T
    weights, exponents, bias = quantize(matrix, -matrix @ mean, feature_exponent, WHITE_EXPONENT)
    return Whitening(weights, exponents, bias, feature_exponent)


def quantize(weights: Floats, bias: Floats, source_exponent: int, exponent: int) -> tuple[Int8, Int32, Int32]:
    """(weights, their exponents, bias) as integer layers have them, of weights (out, …).

    The finest power of two for each output channel that its weights and its bias allow.
    """
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    scales = _ceil_log2(largest / INT8_MAX)
    scales = np.maximum(scales, _ceil_log2(np.abs(bias) / MOST_BIAS) - source_exponent)
    coarsest = exponent - source_exponent  # a shift of 0
    scales = np.clip(scales, coarsest - MAX_SHIFT, coarsest)
    columns = np.exp2(scales.astype(np.float64))
    integers = np.rint(weights / columns.reshape(-1, *[1] * (weights.ndim - 1))).clip(-INT8_MAX, INT8_MAX)
    sums = np.rint(bias / (columns * 2.0**source_exponent))
    return integers.astype(np.int8), scales.astype(np.int32), sums.astype(np.int32)


def _ceil_log2(values: Floats) -> NDArray[np.int64]:
    """Far below all others where a value is 0."""
    exponents: NDArray[np.int64] = np.ceil(np.log2(np.maximum(values, 2.0**-60))).astype(np.int64)
    return exponents
