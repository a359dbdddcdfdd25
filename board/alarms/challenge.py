"""The challenge of the trade: somebody puts known-bad parts on the belt, and all of them must be rejected at the gate.

None of these parts passes, whatever becomes of it: one that is judged OK closes the gate too. After a failed challenge
nothing passes until another one is passed. Each result is in the audit log before it is told.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from board.condition import Complaint
from board.log import say
from board.records.audit import AuditLog
from protocol.commands import ChallengeParts
from protocol.errors import InputError, MessageError
from protocol.messages import Decision, decode_json, encode_json, rfc3339
from protocol.reports import ChallengeReport
from protocol.strict import require

AHEAD_S = 60.0  # a result from farther in the future than this says that the clock is wrong
DUE = "a challenge with known-bad parts is due: command `challenge` and put them on the belt"
UNKEPT = "the result of a challenge could not be kept, so it does not count"


@dataclass(frozen=True)
class ChallengeSettings:
    every: int = 20  # parts between two known-bad frames of the package; 0: they are only shown at loading
    least_share: float | None = None  # of these frames that must be found; None: the package's own share
    due_every_h: float = 0.0  # hours from one challenge with real parts to the next; 0: none is asked for
    within_s: float = 600.0  # all parts of a challenge must have come
    audit: Path | None = None  # file that keeps the results; without it a restart forgets them

    def __post_init__(self) -> None:
        require(self.every >= 0, "every", "must be 0 or more")
        require(self.least_share is None or 0 < self.least_share <= 1, "least_share", "must be above 0 and at most 1")
        require(0 <= self.due_every_h <= 10_000, "due_every_h", "must be 0..10000")
        require(0 < self.within_s <= 86_400, "within_s", "must be above 0 and at most 86400")


@dataclass
class _Challenge:
    order: ChallengeParts
    until_s: float  # of the monotonic clock
    judged: int = 0
    rejected: int = 0
    gone_s: float = -math.inf  # when the last of its parts has left the gate
    failure: str = ""  # the first one


class Challenges:
    """Owned by the line's loop."""

    def __init__(
        self,
        settings: ChallengeSettings,
        publish: Callable[[ChallengeReport], None],
        clock_s: Callable[[], float] = time.time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`publish` tells of a result, and at once of the last one before. Raises: InputError for the audit log."""
        self._settings, self._publish = settings, publish
        self._clock_s, self._now_s = clock_s, now_s
        self._audit = AuditLog(settings.audit) if settings.audit else None
        self._running: _Challenge | None = None
        self._unkept = ""
        self._last = recall(self._audit) if self._audit else None
        if self._last:
            publish(self._last)

    def begin(self, order: ChallengeParts) -> None:
        """The next parts are known bad. Raises: MessageError."""
        if self._running:
            raise MessageError("a challenge is under way: put its parts on the belt, or wait for its end")
        self._running = _Challenge(order, self._now_s() + self._settings.within_s)

    @property
    def is_running(self) -> bool:
        """Whether the next part is known bad."""
        return self._running is not None and self._running.judged < self._running.order.parts

    @property
    def fault(self) -> str:
        """Why nothing passes; empty unless the last challenge failed. Known-bad parts are judged all the same."""
        failed = self._last is not None and self._last.failed and not self.is_running
        return "the last challenge failed: pass another one" if failed else ""

    def note(self, part_id: int, decision: Decision, reason: str, gone_s: float) -> tuple[Decision, str]:
        """The decision on a known-bad part, and what is done with it. `gone_s`: when it will have left the gate."""
        challenge = self._running
        if challenge is None or not self.is_running:
            return decision, reason
        challenge.judged += 1
        challenge.rejected += decision == "REJECT"
        challenge.gone_s = max(challenge.gone_s, gone_s)
        if decision == "REJECT":
            return decision, reason
        why = reason or "it was judged OK"
        challenge.failure = challenge.failure or f"part {part_id} was not rejected: {why}"
        return "UNKNOWN", f"known-bad part of challenge {challenge.order.id}: {why}"

    def step(self, gate_trouble: str, model_id: str, threshold: float) -> None:
        """At each turn. `gate_trouble`: why it is not known that the gate is closed when it should; else empty."""
        challenge = self._running
        if challenge is None:
            return
        if gate_trouble and challenge.judged:
            challenge.failure = challenge.failure or f"the gate may have been open: {gate_trouble}"
        have_gone = bool(challenge.failure) or self._now_s() >= challenge.gone_s  # a failure is told at once
        is_complete = challenge.judged == challenge.order.parts and have_gone
        if is_complete or self._now_s() >= challenge.until_s:
            self._running = None
            self._end(challenge, model_id, threshold)

    def complaint(self) -> Complaint | None:
        if self._last and self._last.failed:
            why = f"challenge {self._last.id} failed, so nothing passes until one is passed"
            return Complaint("alarm", f"{why}: {self._last.reason}")
        if self._unkept:
            return Complaint("degraded", self._unkept)
        return Complaint("degraded", DUE) if self._is_due() else None

    def _end(self, challenge: _Challenge, model_id: str, threshold: float) -> None:
        order = challenge.order
        missing = order.parts - challenge.judged
        unfinished = f"{missing} of {order.parts} parts did not come in time" if missing else ""
        report = ChallengeReport(
            passed=not challenge.failure and not missing,
            failed=bool(challenge.failure),
            parts=order.parts,
            rejected=challenge.rejected,
            reason=challenge.failure or unfinished,
            id=order.id,
            model_id=model_id,
            threshold=threshold,
            time=rfc3339(datetime.fromtimestamp(self._clock_s(), timezone.utc)),
        )
        self._keep(report)
        said = "passed" if report.passed else f"not passed: {report.reason}"
        text = f"challenge {order.id}: {report.rejected} of {report.parts} known-bad parts rejected at the gate, {said}"
        say(text, level="INFO" if report.passed else "WARNING", id=order.id)
        self._publish(report)

    def _keep(self, report: ChallengeReport) -> None:
        """What was not finished changes nothing; what passed counts only once it is on the disk."""
        try:
            if self._audit:
                self._audit.append(encode_json(report))
            self._unkept = ""
        except InputError as error:
            self._unkept = f"{UNKEPT}: {error}"
        if report.failed or (report.passed and not self._unkept):
            self._last = report

    def _is_due(self) -> bool:
        return is_due(self._last, self._settings.due_every_h, self._clock_s())


def recall(audit: AuditLog) -> ChallengeReport | None:
    """The last one that passed or failed. Raises: InputError."""
    for line in reversed(audit.lines()):
        with contextlib.suppress(MessageError):  # torn by a power cut
            report = decode_json(ChallengeReport, line)
            if report.passed or report.failed:
                return report
    return None


def is_due(last: ChallengeReport | None, every_h: float, clock_s: float) -> bool:
    if not every_h:
        return False
    if last is None:
        return True
    ago_s = clock_s - datetime.fromisoformat(last.time.replace("Z", "+00:00")).timestamp()
    return not -AHEAD_S <= ago_s < every_h * 3600
