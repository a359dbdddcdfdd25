"""How a detector's AUROC goes while it trains, measured on the test pictures. Nothing is chosen by it.

Some of the literature states the best epoch by the test pictures (GANomaly's code keeps that one): beside such a figure
belongs the best of the course, not what the finished training reaches.
"""

from __future__ import annotations

import time

from host.bench.detector import Advance, Detector, pool
from host.bench.figures import has_both
from host.bench.problems import Problem
from host.judging.evaluation import image_auroc

Points = list[list[float]]  # share of the training that is done, AUROC


class Course:
    """Called as `advance` is, it measures after every 1/`times` of the way but the last; never where that is 0."""

    def __init__(self, detector: Detector, problem: Problem, times: int, advance: Advance) -> None:
        self.detector, self.problem, self.times, self.advance = detector, problem, times, advance
        self.points: Points = []
        self.spent_s = 0.0

    def __call__(self, share: float) -> None:
        self.advance(share)
        if share * self.times < len(self.points) + 1:
            return
        started_s = time.perf_counter()
        if not has_both(self.problem.defective):
            return
        scores = pool(self.detector.score_map(self.problem.test), self.detector.pools)
        self.points.append([round(share, 4), image_auroc(scores, self.problem.defective)])
        self.spent_s += time.perf_counter() - started_s
