"""Proof that bad parts are still rejected: by frames of the package, and by parts that somebody puts on the belt."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.strict import require


@dataclass(frozen=True)
class ChallengeSettings:
    every: int = 20  # parts between two known-bad frames of the package; 0: they are only shown at loading
    least_share: float | None = None  # of these frames that must be found; None: the package's own share

    def __post_init__(self) -> None:
        require(self.every >= 0, "every", "must be 0 or more")
        require(self.least_share is None or 0 < self.least_share <= 1, "least_share", "must be above 0 and at most 1")
