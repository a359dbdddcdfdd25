"""Has a statistic moved? A control chart of the exponentially weighted moving average (EWMA), against a calibration.

The chart is that of Roberts 1959 (Technometrics 1, 239-250), its design that of Lucas and Saccucci 1990 (Technometrics
32, 1-12). A small weight makes it robust to values that are not normally distributed (Borror, Montgomery and Runger
1999, Journal of Quality Technology 31, 309-316). How far a mean of n calibration pictures may be off widens the limit
(Jones, Champ and Rigdon 2001, Technometrics 43, 156-167).

Average run length of the default chart with a well known calibration, in parts until it warns, by the Markov chain of
Brook and Evans 1972 (Biometrika 59, 539-549); a test computes it anew:

    true shift in standard deviations   0.3       0.5 (tolerated)   1     1.5   2.5
    parts                               6 · 10¹⁰  1.2 million       126   51    25
"""

from __future__ import annotations

import math

from protocol.manifest import Distribution

CLIP_SIGMAS = 4.0  # one strange picture, however strange, moves the average by 4 × weight and no more
LEAST_DEVIATION = 1e-3  # share of the mean: of a statistic that did not vary at all, the least that is a deviation


class ControlChart:
    """Of one statistic; distances in standard deviations of a single good part ("sigmas")."""

    def __init__(
        self,
        calibrated: Distribution,
        pictures: int,
        *,
        weight: float,
        limit: float,
        tolerance: float,
        both_sides: bool,
    ) -> None:
        """`limit` in standard errors of the average, beyond `tolerance` in sigmas; else only a rise is looked for."""
        self.calibrated = calibrated
        self._mean = calibrated.mean
        self._deviation = max(calibrated.deviation, LEAST_DEVIATION * abs(calibrated.mean), LEAST_DEVIATION**2)
        self._weight = weight
        self._both_sides = both_sides
        self.limit = tolerance + limit * math.sqrt(weight / (2 - weight) + 1 / pictures)
        self.sigmas = 0.0  # the moving average
        self.is_beyond = False

    def note(self, value: float) -> None:
        sigmas = (value - self._mean) / self._deviation
        self.sigmas += self._weight * (min(max(sigmas, -CLIP_SIGMAS), CLIP_SIGMAS) - self.sigmas)
        distance = abs(self.sigmas) if self._both_sides else self.sigmas
        # back within means well within: an average on the limit is one warning, not many
        self.is_beyond = distance > (self.limit / 2 if self.is_beyond else self.limit)

    @property
    def average(self) -> float:
        """The moving average in the statistic's own unit."""
        return self._mean + self.sigmas * self._deviation
