"""What the station says of itself: its state and health, and how long ago."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.drift import decode_drift
from protocol.messages import decode_json, decode_table
from protocol.reports import ChallengeReport, LineCondition, LineState

SILENT_AFTER_S = 6.0  # the station reports every second
MAX_TEXT = 500
_HEALTH_NUMBERS = (
    "parts",
    "missed_deadlines",
    "unacknowledged",
    "dropped_verdicts",
    "held_s",
    "rss_mb",
    "capture_parts_left",
    "lesson_parts_left",
    "known_bad_parts",
    "known_bad_found",
)


@dataclass(frozen=True)
class Condition:
    state: LineCondition
    reason: str


@dataclass(frozen=True)
class Drift:
    """Accepted parts no longer look as they did when the model was made."""

    text: str  # empty: they do
    sheet: str  # name of the picture that shows it; from the network, as is the model's
    model_id: str


NO_DRIFT = Drift("", "", "")


@dataclass
class _Said:
    state: Condition = Condition("lost", "no station has announced itself on this broker")
    model_id: str = ""
    health: dict[str, float] = field(default_factory=dict)
    drift: Drift = NO_DRIFT
    challenge: dict[str, object] | None = None
    at_s: float | None = None


class Station:
    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._said = _Said()
        self._lock = threading.Lock()
        self.own_trouble: Callable[[], str] = str  # what of the page's own has ended or hangs, else empty
        self.broker_trouble = ""  # why the broker is not heard, else empty

    def take_state(self, payload: bytes) -> None:
        """Raises: MessageError."""
        said = decode_json(LineState, payload)
        with self._lock:
            self._said.state = Condition(said.state, said.reason[:MAX_TEXT])
            self._said.model_id = said.model_id[:MAX_TEXT]
            self._said.at_s = self._clock_s()

    def take_health(self, payload: bytes) -> None:
        """Raises: MessageError."""
        content = decode_table("health report", payload)
        numbers = {key: content[key] for key in _HEALTH_NUMBERS if isinstance(content.get(key), (int, float))}
        with self._lock:
            self._said.health = numbers
            self._said.at_s = self._clock_s()

    def take_drift(self, payload: bytes) -> None:
        """Raises: MessageError."""
        report = decode_drift(payload)
        is_warning = report.state == "drifting"
        with self._lock:
            self._said.drift = Drift(report.text[:MAX_TEXT], report.sheet, report.model_id) if is_warning else NO_DRIFT

    def take_challenge(self, payload: bytes) -> None:
        """Raises: MessageError."""
        report = decode_json(ChallengeReport, payload)
        shown = {"passed": report.passed, "parts": report.parts, "rejected": report.rejected, "time": report.time}
        with self._lock:
            self._said.challenge = {**shown, "reason": report.reason[:MAX_TEXT]}

    @property
    def challenge(self) -> dict[str, object] | None:
        """The last one with known-bad parts on the belt; None if nothing was said of one."""
        return self._said.challenge

    @property
    def drift(self) -> Drift:
        return self._said.drift

    @property
    def model_id(self) -> str:
        return self._said.model_id

    @property
    def health(self) -> dict[str, float]:
        return dict(self._said.health)

    def condition(self) -> Condition:
        """As the page shows it: a station that says nothing is lost, whatever it said last."""
        with self._lock:
            said = self._said
            own_trouble = self.own_trouble()
            if own_trouble:
                return Condition("lost", f"the page's own {own_trouble}")
            if self.broker_trouble:
                return Condition("lost", self.broker_trouble)
            if said.at_s is None or said.state.state in ("lost", "stopped"):
                return said.state
            silent_s = self._clock_s() - said.at_s
            if silent_s > SILENT_AFTER_S:
                return Condition("lost", f"the station has said nothing for {silent_s:.0f} s")
            return said.state
