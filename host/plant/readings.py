"""What a station's messages mean for the plant."""

from __future__ import annotations

import math
from datetime import datetime, timezone

from host.plant.inbox import Arrival
from host.plant.payload import Value
from protocol.errors import MessageError
from protocol.messages import Verdict, decode_table, decode_verdict
from protocol.reports import SWITCHED_OFF, LineState

MAX_EVENT_ID = 128  # characters; as many are remembered for long
MAX_COUNT = 2**53
COUNTS = {
    "parts": "Counts/Parts",
    "ok": "Counts/OK",
    "reject": "Counts/Reject",
    "unknown": "Counts/Unknown",
    "missed_deadlines": "Counts/Missed deadlines",
    "unacknowledged": "Counts/Verdicts waiting",
    "known_bad_parts": "Model/Known-bad parts",
    "known_bad_found": "Model/Known-bad parts found",
}
RATES = {"parts_per_s": "Counts/Parts per s"}


def decode_verdict_of(arrival: Arrival) -> Verdict:
    """Raises: MessageError if it is no verdict of its topic's line."""
    verdict = decode_verdict(arrival.payload)
    if verdict.line != arrival.line:
        raise MessageError(f"a verdict of line {verdict.line!r:.80}: each line has topics of its own")
    if not 0 < len(verdict.event_id) <= MAX_EVENT_ID:
        raise MessageError(f"event_id must be 1..{MAX_EVENT_ID} characters")
    time_ms(verdict.time)
    return verdict


def time_ms(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 time in UTC. Raises: MessageError."""
    try:
        since_ms = round(datetime.fromisoformat(text[:-1]).replace(tzinfo=timezone.utc).timestamp() * 1000)
    except (ValueError, OverflowError):
        since_ms = -1
    if since_ms < 0:  # Sparkplug's times have no sign
        raise MessageError(f"time {text!r:.40} must be like 2026-01-01T08:00:30.000Z")
    return since_ms


def state_values(state: LineState) -> dict[str, Value]:
    return {"State": state.state, "State/Reason": state.reason, "State/Model": state.model_id}


def is_alive(state: LineState) -> bool:
    """Whether the station is there to say more."""
    return not (state.state == "lost" or (state.state == "stopped" and state.reason == SWITCHED_OFF))


def count_values(payload: bytes) -> tuple[dict[str, Value], int]:
    """Tags of a health report, and its time. A station may report more than we know, or less. Raises: MessageError."""
    report = decode_table("health report", payload)
    values: dict[str, Value] = {tag: _count(report.get(key, 0)) for key, tag in COUNTS.items()}
    values |= {tag: _rate(report.get(key, 0.0)) for key, tag in RATES.items()}
    return values, time_ms(str(report.get("time", "")))


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise MessageError(f"health report has a count that is none: {value!r:.40}")
    return value


def _rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MessageError(f"health report has a rate that is none: {value!r:.40}")
    return float(value)
