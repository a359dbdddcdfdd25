"""Known-bad frames are shown to the model between the parts: what it no longer finds is known within some parts.

None delays a part: the next one has as much time before the gate as the last one had, and a frame is only shown if that
is enough for both.
"""

from __future__ import annotations

import math

from board.condition import Complaint
from board.models.change import Models
from protocol.commands import Answer

OVERDUE = 20  # times as many parts as planned
CONFIRMED = "a threshold was confirmed at which too few known-bad parts are found: lower it"
FEWER = "the model finds fewer known-bad parts than when it was made: lower the threshold"
FAR_ABOVE = 8.0  # deviations over the calibration's 95 % quantile: a threshold there is no judgement of good parts
UNPROVED = (
    "the threshold is above the model's own, far above the scores of good parts, or the highest there is, "
    "and no known-bad parts show what it finds"
)
NO_TIME = "between the parts is no time to show known-bad ones: use a faster engine or a slower belt"


class Showing:
    def __init__(self, models: Models, every: int) -> None:
        """One frame every so many parts; 0: never, but while the model does not find them."""
        self._models, self._every = models, every
        self._parts = 0  # since the last frame
        self._margin_ns = 0

    def note_part(self, margin_ns: int) -> None:
        """A part was judged so long before the gate had to know."""
        self._parts += 1
        self._margin_ns = margin_ns

    @property
    def is_due(self) -> bool:
        known_bad = self._models.current.known_bad
        is_wanted = self._every > 0 and (self._parts >= self._every or not known_bad.all_shown)
        return is_wanted and known_bad.frames > 0 and 2 * known_bad.took_ns <= self._margin_ns

    def step(self) -> Answer | None:
        """Between two parts: show a frame if it is due, or if nothing passes anyway. The answer, if it ends a trial."""
        if not self.is_due and not self._models.fault:
            return None
        self._parts = 0
        return self._models.show_known_bad()

    def complaint(self) -> Complaint | None:
        fault, doubt, remark = self._models.fault, self._doubt(), self._models.current.known_bad.remark()
        if fault:
            return Complaint("stopped", fault)
        if doubt:
            return Complaint("degraded", doubt)
        if remark:
            return Complaint("degraded" if self._models.current.known_bad.frames else "running", remark)
        if 0 < OVERDUE * self._every <= self._parts:
            return Complaint("degraded", NO_TIME)
        return None

    def _doubt(self) -> str:
        """Why the threshold is too high, though somebody wants it so."""
        if self._models.is_confirmed:
            return CONFIRMED
        if self._models.current.known_bad.finds_fewer_than_once(self._models.threshold):
            return FEWER
        return f"{UNPROVED}: lower it, or export the model again" if self._is_unproved() else ""

    def _is_unproved(self) -> bool:
        manifest, threshold = self._models.current.manifest, self._models.threshold
        good = manifest.calibrated_score
        usual = min(manifest.threshold.value, good.quantiles[2] + FAR_ABOVE * good.deviation if good else math.inf)
        is_high = threshold > usual or threshold >= manifest.map.highest
        return is_high and not self._models.current.known_bad.frames
