"""The known-bad parts of a model's package: shown to its engines at loading, and one by one between parts.

What the golden vectors cannot tell: not that the integers are the right ones, but that they still mean "bad" at the
present threshold. A model that finds fewer of them than it must passes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from board.engines.chain import EngineChain
from board.log import say
from board.models.light import Light
from board.preprocess import preprocess
from board.score import score_map
from protocol.errors import EngineError
from protocol.manifest import FAIR_SHARE, Calibration, Package

AT_START_S = 10.0  # a slow engine shows the rest between the first parts
AT_CHANGE_S = 120.0  # beside a line that judges, and that waits with any other change of model
GOLDEN_RATIO = 0.618034  # steps of it are spread evenly: few frames are already of several kinds


class KnownBad:
    """Owned by whoever owns the engines. Without frames it finds nothing and complains of nothing."""

    def __init__(self, package: Package, least_share: float | None = None) -> None:
        """`least_share` of the frames must be found; None: the package's own. Raises: ManifestError."""
        self._package, self._map = package, package.manifest.map
        challenge, how = package.manifest.challenge, package.manifest.preprocess
        shown = (preprocess(frame, how) for frame in package.load_known_bad())
        self._images = choose_telling(shown, package.manifest.calibration)
        self._silent = challenge.frames - len(self._images) if challenge else 0
        self._scores: list[float | None] = [None] * len(self._images)  # as they were last shown
        self._order = sorted(range(len(self._images)), key=lambda index: index * GOLDEN_RATIO % 1)
        self._shown = 0
        self.took_ns = 0  # the last one
        self.fewest = max(1, challenge.fewest(least_share) - self._silent) if challenge else 0
        self._fewest_once = max(1, challenge.fewest() - self._silent) if challenge else 0
        if self._silent:
            say(self._describe_silent(), level="WARNING")

    @property
    def frames(self) -> int:
        """Those that tell something."""
        return len(self._images)

    @property
    def all_shown(self) -> bool:
        return None not in self._scores

    def show_all(self, engines: EngineChain, within_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Every frame that was not shown yet, or at least one of them where there is no time for more."""
        until_s = clock_s() + within_s
        while not self.all_shown:
            if not self.show_next(engines):
                return
            if clock_s() > until_s and not self.all_shown:
                shown = f"{self._shown} of {self.frames} known-bad parts were shown in {within_s:g} s"
                say(f"{shown}: a slow engine shows the others between the parts", level="WARNING")
                return

    def show_next(self, engines: EngineChain) -> bool:
        """False if no engine spoke, which the line says itself, or there is nothing to show."""
        if not self._images:
            return False
        index, started_ns = self._order[self._shown % len(self._order)], time.monotonic_ns()
        try:
            anomaly, _ = engines.infer(self._images[index])
        except EngineError:
            return False
        self._scores[index] = score_map(anomaly, self._map)
        self._shown += 1
        self.took_ns = time.monotonic_ns() - started_ns
        return True

    def found(self, threshold: float) -> int:
        """How many are rejected, of those that were shown."""
        return sum(score is not None and score >= threshold for score in self._scores)

    def fault(self, threshold: float, fewest: int | None = None) -> str:
        """Why nothing may pass; empty if enough are found. What was not shown yet may be found, but one must be."""
        fewest = self.fewest if fewest is None else fewest
        found, missed = self.found(threshold), self._missed(threshold)
        if not self._images:
            return f"{self._describe_silent()}, so nothing passes: export it again" if self._silent else ""
        if found and self.frames - missed >= fewest:
            return ""
        return (
            f"{self._package.manifest.id} finds fewer than {fewest} of its {self.frames} known-bad parts, so nothing "
            "passes: lower the threshold, or take another model"
        )

    def finds_fewer_than_once(self, threshold: float) -> bool:
        """Fewer than when the package was made, whatever the station asks for."""
        return self.frames - self._missed(threshold) < self._fewest_once

    def remark(self) -> str:
        """What is weak about the proof, whatever the threshold; empty if nothing is."""
        challenge, name = self._package.manifest.challenge, self._package.manifest.id
        if challenge is None:
            return f"{name} carries no known-bad parts, so nothing proves that it still rejects one: export it again"
        if self.frames < FAIR_SHARE * challenge.frames:
            return f"{self._describe_silent()}: export it again"
        if self.fewest < FAIR_SHARE * self.frames:
            return f"{name} need find only {self.fewest} of its {self.frames} known-bad parts: train it again"
        return ""

    def _describe_silent(self) -> str:
        package, every = self._package.manifest.id, self.frames + self._silent
        return f"{self._silent} of the {every} known-bad parts of {package} are blank or copies and prove nothing"

    def _missed(self, threshold: float) -> int:
        return sum(score is not None and score < threshold for score in self._scores)


def choose_telling(images: Iterable[NDArray[np.uint8]], calibration: Calibration | None) -> list[NDArray[np.uint8]]:
    """Of the network's images those that show a part, each once: a model rejects what is blank whatever it has learned,
    and many copies of one defect are one defect.
    """
    light = Light(calibration)
    telling: dict[bytes, NDArray[np.uint8]] = {}
    for image in images:
        if int(image.max()) > int(image.min()) and not light.fault(image):
            telling.setdefault(image.tobytes(), image)
    return list(telling.values())
