"""What a line says of itself when its verdicts are not to be believed, or none are asked for.

Each alarm looks at the latest parts alone, and ends when they are again as they were. After `resume`, another threshold
or another model, all is learned anew.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from board.alarms.idle import Idle
from board.alarms.reject_share import RejectShare
from board.condition import Complaint
from protocol.manifest import Distribution
from protocol.messages import Verdict
from protocol.strict import require
from protocol.units import FIRST_YEAR, LAST_YEAR

MOST_REJECTED_OF = 50  # parts
CALM_PARTS = 100  # without an alarm's reason, until it ends
SCORES = 50  # latest ones
LATE_OF, MOST_LATE = 50, 9  # latest parts, and how many of them may come too late for the gate
EQUAL_SCORES = 200  # in a row, where it is not known how much the scores of this model vary
# The range of 50 normal scores is 4.5 deviations; below 0.2 of the calibration's they hardly depend on the part.
LEAST_RANGE = 0.2
FAR_BELOW = 8.0  # deviations under the calibration's 5 % quantile, for all of the latest scores
_TOO_LATE = f"more than {MOST_LATE} of the last {LATE_OF} parts were judged too late for the gate"
_TOO_LATE += ": a faster engine, or a slower belt"
_MISDATED = "verdicts carry a wrong date: set the station's clock, start NTP"
_SAME = "the last {} scores are all but the same: does the camera see the parts? Then resume"
_FAR_BELOW = "the last {} scores are all far below those of good parts: look at camera and model, then resume"


@dataclass(frozen=True)
class AlarmSettings:
    enabled: bool = True  # without, the line says only that it is idle
    idle_after_s: float = 0.0  # without a part; 0: learned from the times between parts
    most_rejected: float = 0.8  # share of the latest 50 judged parts; with 1, only changes of the share are an alarm
    unknown_parts: int = 20  # so many in a row that could not be judged

    def __post_init__(self) -> None:
        require(0 <= self.idle_after_s <= 86_400, "idle_after_s", "must be 0..86400")
        require(0 < self.most_rejected <= 1, "most_rejected", "must be above 0 and at most 1")
        require(2 <= self.unknown_parts <= 10_000, "unknown_parts", "must be 2..10000")


class Held:
    """An alarm's reason, as it was when it began, until it has not come again for `calm_parts`."""

    def __init__(self, calm_parts: int) -> None:
        self.reason = ""
        self._calm_parts = self._left = calm_parts

    def note(self, reason: str) -> None:
        if reason:
            self.reason, self._left = self.reason or reason, self._calm_parts
        elif self.reason:
            self._left -= 1
            if self._left == 0:
                self.reason = ""


class Alarms:
    """Owned by the line's loop."""

    def __init__(self, settings: AlarmSettings, now_s: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._idle = Idle(settings.idle_after_s, now_s)
        self._judged_by: tuple[str, float] | None = None
        self._is_misdated = False
        self.learn_anew()

    def learn_anew(self) -> None:
        self._share, self._latest = RejectShare(), deque[bool](maxlen=MOST_REJECTED_OF)
        self._scores: deque[float] = deque(maxlen=SCORES)
        self._equal_in_a_row = 0
        self._unknown_in_a_row = 0
        self._late = deque[bool](maxlen=LATE_OF)
        self._held = {name: Held(calm) for name, calm in (("unknown", 1), ("rejects", CALM_PARTS), ("scores", SCORES))}

    def note_part(self) -> None:
        """One came, whatever becomes of it."""
        self._idle.note()

    def note(self, verdict: Verdict, calibrated: Distribution | None) -> None:
        """Of a part that the line was to judge. `calibrated`: how the model scored good parts."""
        if self._judged_by != (verdict.model_id, verdict.threshold):
            self._judged_by = (verdict.model_id, verdict.threshold)
            self.learn_anew()
        self._is_misdated = not FIRST_YEAR <= int(verdict.time[:4]) < LAST_YEAR
        self._late.append(verdict.missed_deadline)
        self._held["unknown"].note(self._judge_unknown(verdict))
        if verdict.decision != "UNKNOWN" and verdict.score is not None:
            self._held["rejects"].note(self._judge_rejects(verdict.decision == "REJECT"))
            self._held["scores"].note(self._judge_scores(verdict.score, calibrated))

    def complaint(self) -> Complaint | None:
        """The alarms; else, which needs no statistics, whether the line is idle, or its verdicts late or misdated."""
        reasons = [held.reason for held in self._held.values() if held.reason and self._settings.enabled]
        return Complaint("alarm", "; ".join(reasons)) if reasons else self._idle.complaint() or self._untimely()

    def _untimely(self) -> Complaint | None:
        if self._settings.enabled and sum(self._late) > MOST_LATE:
            return Complaint("degraded", _TOO_LATE)
        return Complaint("degraded", _MISDATED) if self._is_misdated else None

    def _judge_unknown(self, verdict: Verdict) -> str:
        self._unknown_in_a_row = self._unknown_in_a_row + 1 if verdict.decision == "UNKNOWN" else 0
        if self._unknown_in_a_row < self._settings.unknown_parts:
            return ""
        return f"none of the last {self._settings.unknown_parts} parts could be judged ({verdict.reason[:120]})"

    def _judge_rejects(self, is_rejected: bool) -> str:
        changed = self._share.note(is_rejected)
        self._latest.append(is_rejected)
        rejects = sum(self._latest)
        if len(self._latest) == MOST_REJECTED_OF and rejects > self._settings.most_rejected * MOST_REJECTED_OF:
            changed = f"{rejects} of the last {MOST_REJECTED_OF} parts rejected"
        if not changed:
            return ""
        return f"{changed}: look at lamp, lens and parts, and whether the model is this product's; then resume"

    def _judge_scores(self, score: float, calibrated: Distribution | None) -> str:
        self._equal_in_a_row = self._equal_in_a_row + 1 if self._scores and score == self._scores[-1] else 1
        self._scores.append(score)
        if calibrated is None or calibrated.deviation == 0:
            return _SAME.format(EQUAL_SCORES) if self._equal_in_a_row >= EQUAL_SCORES else ""
        low, high = min(self._scores), max(self._scores)
        if len(self._scores) < SCORES:
            return ""
        if high < calibrated.quantiles[0] - FAR_BELOW * calibrated.deviation:
            return _FAR_BELOW.format(SCORES)
        return _SAME.format(SCORES) if high - low < LEAST_RANGE * calibrated.deviation else ""
