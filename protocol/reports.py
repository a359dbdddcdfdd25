"""What a line says of itself: its state, and its health."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from protocol.strict import require

# subtle: from the mildest to the worst; where a line has several things to say, the worst is its state.
#   idle      no part comes, and by now one should have
#   degraded  parts are judged, but something of the station is wrong
#   alarm     parts are judged, and what comes out is not to be believed
#   stopped   every part is rejected
#   lost      nothing is heard of the station
LineCondition = Literal["running", "idle", "degraded", "alarm", "stopped", "lost"]
CONDITIONS: tuple[LineCondition, ...] = get_args(LineCondition)
JUDGING: tuple[LineCondition, ...] = ("running", "idle", "degraded", "alarm")  # parts get their verdicts
SWITCHED_OFF = "switched off"  # reason of the last state of a station that was ended on purpose


@dataclass(frozen=True)
class LineState:
    """Retained on the state topic; the broker itself publishes `lost` when the station vanishes."""

    state: LineCondition
    reason: str  # why it is not running, else empty
    model_id: str
    time: str  # RFC 3339, UTC
    manifest_sha256: str = ""  # of the model
    signed_by: str = ""  # name of the trusted key that vouches for the model


@dataclass(frozen=True)
class ChallengeReport:
    """Retained on the challenge topic: how the last challenge with known-bad parts on the belt went."""

    passed: bool  # all of them were rejected at the gate
    failed: bool  # one of them was not; neither: not all of them came in time
    parts: int  # known-bad parts that were announced
    rejected: int  # of them
    reason: str  # why it was not passed, else empty
    id: str  # of the command
    model_id: str
    threshold: float
    time: str  # RFC 3339, UTC

    def __post_init__(self) -> None:
        require(not (self.passed and self.failed), "failed", "must be false where it was passed")
        require(_is_time(self.time), "time", "must be like 2026-01-01T08:00:30Z")


def _is_time(text: str) -> bool:
    try:
        return text.endswith("Z") and bool(datetime.fromisoformat(text[:-1]))
    except ValueError:
        return False


@dataclass(frozen=True)
class Percentiles:
    """Over the latest parts, in milliseconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class HealthReport:
    """Counters since the station's start; sources and sinks add counters of their own."""

    time: str  # RFC 3339, UTC
    parts: int = 0
    ok: int = 0
    reject: int = 0
    unknown: int = 0
    missed_deadlines: int = 0  # parts that were too late for the gate
    parts_per_s: float = 0.0  # since the report before
    good_stopped: int = (
        0  # good parts that the closed gate stopped for a neighbour's sake, or because it was not trusted
    )
    gate_faults: int = 0  # movements of the gate that failed
    belt_speed_mm_s: float | None = None  # as it was measured; None where nothing measures it
    held_s: float = 0.0  # how long the line stood still because a verdict could not be handed over
    rss_mb: float = 0.0  # resident memory of the station's process
    stages_ms: dict[str, Percentiles] = field(default_factory=dict)
    known_bad_parts: int = 0  # frames of known-bad parts in the model's package; 0: nothing proves that it rejects one
    known_bad_found: int = 0  # of these, how many are rejected at the present threshold
    unacknowledged: int = 0  # verdicts in the outbox
    dropped_verdicts: int = 0  # out of a full outbox
    refused_by_broker: int = 0
    dropped_commands: int = 0
    log_lost: int = 0  # lines of the log that could not be written
    damaged_outbox: str = ""  # a damaged file that was replaced
    set_aside: int = 0  # verdicts that the broker cannot be sent, in `set_aside_file`
    set_aside_file: str = ""
    taken_over: int = 0  # times that another client came under the station's client id
