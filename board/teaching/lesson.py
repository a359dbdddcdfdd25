"""What good pictures teach: a detector, and how it judges each of them when it has not seen it.

A picture that is in the bank has patches at distance 0, and also whitens itself: both are made anew without it, or a
threshold would be set by what the detector knows by heart. Many pictures are left out a tenth at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from board.teaching.bank import Bank, Detector, Int64, fill_bank
from board.teaching.whitening import Int8

FOLDS = 10
FARTHEST = 0.998  # quantile of the good patches' distances at which the map is 0


@dataclass(frozen=True)
class Lesson:
    """`fold_of` (pictures,) says which of the banks `without` has not seen a picture."""

    detector: Detector
    without: tuple[Bank, ...]
    fold_of: NDArray[np.int64]
    maps: Int8  # (pictures, h, w): each judged by a bank that has not seen it

    def judge_unseen(self, features: Int8, picture: int) -> Int8:
        """Maps int8 (n, h, w) of features int8 (n, channels, h, w), as if this picture had never taught."""
        return self.detector.draw(self.without[self.fold_of[picture]].measure(features))


def learn(features: Int8, feature_exponent: int, rng: np.random.Generator) -> Lesson:
    """From features int8 (pictures, channels, h, w) of at least two good pictures, no two of the same part."""
    count = len(features)
    fold_of = np.arange(count) % min(count, FOLDS)
    without, far = [], np.empty((count, *features.shape[2:]), np.int64)
    for fold in range(fold_of.max() + 1):
        left_out = fold_of == fold
        bank = fill_bank(features[~left_out], feature_exponent, rng)
        far[left_out] = bank.measure(features[left_out])
        without.append(bank)
    detector = Detector(fill_bank(features, feature_exponent, rng), _farthest(far))
    return Lesson(detector, tuple(without), fold_of, detector.draw(far))


def _farthest(distances: Int64) -> float:
    return max(1.0, float(np.quantile(distances, FARTHEST)))
