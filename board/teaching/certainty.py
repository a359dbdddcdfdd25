"""What few good pictures say of all good parts: how far their scores may reach, and what nobody can promise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.9
TAIL_SHARE = 0.2  # of the pictures: the upper tail that is continued
FEWEST_IN_TAIL = 3
BISECTIONS = 50

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Tail:
    """How often the next good picture exceeds a score, also where fewer were seen than could show it.

    The upper tail is continued as an exponential (peaks over threshold, Pickands 1975, with shape 0). Its mean excess
    is known from few pictures only; averaged over what they leave open (its posterior under the scale prior) the tail
    falls as (1 + x / sum of the excesses)^-count, which raises the threshold the more the fewer pictures there are.
    """

    ordered: Scores
    count: int  # of pictures in the tail
    start: float
    total_excess: float

    @classmethod
    def of(cls, scores: Scores) -> Tail:
        ordered = np.sort(scores)
        count = min(max(FEWEST_IN_TAIL, int(len(scores) * TAIL_SHARE)), len(scores) - 1)
        start = float(ordered[-count - 1])
        return cls(ordered, count, start, float((ordered[-count:] - start).sum()))

    def find_level(self, rate: float) -> float:
        """The score that the next good picture exceeds with probability `rate`."""
        share = self.count / len(self.ordered)
        if rate >= share:
            return float(np.quantile(self.ordered, 1 - rate))
        return self.start + self.total_excess * float((share / rate) ** (1 / self.count) - 1)

    def rate_above(self, levels: Scores) -> Scores:
        """The probability (n,) that the next good picture exceeds each of the levels (n,)."""
        excess = np.maximum(levels - self.start, 0) / max(self.total_excess, 1e-12)
        in_tail = self.count / len(self.ordered) * (1 + excess) ** -float(self.count)
        seen = 1 - np.searchsorted(self.ordered, levels) / len(self.ordered)
        return np.where(levels > self.start, in_tail, seen)


def describe_certainty(rejected: int, pictures: int) -> str:
    """One line, for a person."""
    most, least = highest_rate(rejected, pictures), highest_rate(0, pictures)
    return (
        f"of {pictures} good pictures, each judged by the others alone, {rejected} are rejected: with {CONFIDENCE:.0%} "
        f"confidence at most {most:.1%} of good parts will be, and {pictures} pictures can promise nothing below "
        f"{least:.1%}"
    )


def highest_rate(rejected: int, pictures: int, confidence: float = CONFIDENCE) -> float:
    """The upper bound of a rate (Clopper and Pearson 1934): so few are rejected by chance with 1 - `confidence`.

    >>> round(highest_rate(0, 10), 3), round(highest_rate(1, 10), 3), highest_rate(10, 10)
    (0.206, 0.337, 1.0)
    """
    if rejected >= pictures:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _chance_of_at_most(rejected, pictures, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _chance_of_at_most(rejected: int, pictures: int, rate: float) -> float:
    chances = (
        math.lgamma(pictures + 1)
        - math.lgamma(n + 1)
        - math.lgamma(pictures - n + 1)
        + n * math.log(rate)
        + (pictures - n) * math.log1p(-rate)
        for n in range(rejected + 1)
    )
    return sum(map(math.exp, chances))
