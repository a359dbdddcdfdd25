"""Is the share of rejected parts what it was? Windows over the latest parts, each compared with all parts before it.

How many rejects a window may hold follows from the parts before it alone: with k rejects among m of them, the number
among the next n is beta-binomial with a = k + 1/2 and b = m - k + 1/2 (the predictive distribution under Jeffreys'
prior; Gelman et al. 2013, Bayesian Data Analysis, section 2.4). Few parts before leave much open, and so widen the
limits. Short windows see sudden changes, long ones small shares that vanish.
"""

from __future__ import annotations

import math
from collections import deque

WINDOWS = (30, 100, 400)  # parts
FEWEST_BEFORE = 100  # parts that a window is compared with
KEPT = 5000  # parts; older ones are forgotten
RENEWED_EVERY = 100  # parts, from when on the limits are reckoned anew
CHANCE = 1e-6  # of each limit, at a line that has not changed


class _Window:
    def __init__(self, parts: int) -> None:
        self.parts = parts
        self.rejects = 0
        self.before = 0.0  # share of rejects in the parts before, when the limits were reckoned
        self.least, self.most = 0, parts

    def renew(self, rejects_before: int, parts_before: int) -> None:
        self.before = rejects_before / parts_before
        self.least, self.most = usual_counts(self.parts, rejects_before, parts_before)


class RejectShare:
    def __init__(self) -> None:
        self._parts: deque[bool] = deque(maxlen=KEPT)
        self._rejects = 0
        self._windows = [_Window(parts) for parts in WINDOWS]
        self._until_renewed = 0

    def note(self, is_rejected: bool) -> str:
        """What is unusual about the latest parts, this one with them; empty if nothing is."""
        if len(self._parts) == KEPT:
            self._rejects -= self._parts[0]
        for window in self._windows:
            if len(self._parts) >= window.parts:
                window.rejects -= self._parts[-window.parts]
            window.rejects += is_rejected
        self._parts.append(is_rejected)
        self._rejects += is_rejected
        if self._until_renewed == 0:
            self._renew()
        self._until_renewed -= 1
        return next((said for window in self._windows if (said := self._judge(window))), "")

    def _renew(self) -> None:
        self._until_renewed = RENEWED_EVERY
        for window in self._windows:
            parts_before = len(self._parts) - window.parts
            if parts_before >= FEWEST_BEFORE:
                window.renew(self._rejects - window.rejects, parts_before)

    def _judge(self, window: _Window) -> str:
        if window.least <= window.rejects <= window.most:
            return ""
        more = "more" if window.rejects > window.most else "fewer"
        return f"{more} rejects than usual: {window.rejects} of {window.parts} parts, {window.before:.1%} before"


def usual_counts(parts: int, rejects_before: int, parts_before: int) -> tuple[int, int]:
    """The least and the most rejects of so many parts; fewer, or more, come with at most `CHANCE`."""
    if 2 * rejects_before > parts_before:  # of the rarer kind: there the probability of none does not underflow
        least, most = usual_counts(parts, parts_before - rejects_before, parts_before)
        return parts - most, parts - least
    a, b = rejects_before + 0.5, parts_before - rejects_before + 0.5
    probability = math.exp(_log_beta(a, parts + b) - _log_beta(a, b))  # of none
    least, most, below = 0, parts, 0.0
    for count in range(parts + 1):
        if below + probability <= CHANCE:
            least = count + 1
        below += probability
        if 1 - below <= CHANCE:
            most = count
            break
        probability *= (parts - count) / (count + 1) * (count + a) / (parts - count - 1 + b)
    return least, most


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
