"""What travels on the line: triggers and frames to the board, verdicts away from it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MessageError
from protocol.strict import FieldError, build, require

_T = TypeVar("_T")
_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=vars).encode
Decision = Literal["OK", "REJECT", "UNKNOWN"]
MAX_JSON_BYTES = 64 << 10
MAX_PART_ID = 2**53  # beyond it a JSON reader that keeps numbers as doubles would round
MAX_T_NS = 2**62  # 146 years after boot; sums of it stay within what a wait can be given
MAX_POSITION_UM = 2**53  # nine million kilometres of belt


def require_run(run: str) -> None:
    require(0 < len(run) <= 64 and run.isprintable(), "run", "must be 1..64 printable characters")


def require_t_ns(t_ns: int) -> None:
    require(0 <= t_ns <= MAX_T_NS, "t_ns", f"must be 0..{MAX_T_NS}")


def require_position_um(position_um: int) -> None:
    require(abs(position_um) <= MAX_POSITION_UM, "position_um", f"must be -{MAX_POSITION_UM}..{MAX_POSITION_UM}")


@dataclass(frozen=True)
class Trigger:
    """A part broke the light barrier."""

    run: str  # names the maker's run; part ids count up within it
    part_id: int
    t_ns: int  # monotonic, on the clock named `clock`
    clock: str  # see `clock_id`: times of another clock are never subtracted from ours
    position_um: int | None = None  # what the belt's encoder read then; None without one

    def __post_init__(self) -> None:
        require_run(self.run)
        require(0 <= self.part_id <= MAX_PART_ID, "part_id", f"must be 0..{MAX_PART_ID}")
        require_t_ns(self.t_ns)
        if self.position_um is not None:
            require_position_um(self.position_um)


@dataclass(frozen=True)
class Location:
    """Where a free-running camera saw the part when it was judged."""

    frame: int
    x_px: float
    y_px: float


@dataclass(frozen=True, eq=False)
class Frame:
    """A part's picture, or the reason why there is none."""

    trigger: Trigger
    image: NDArray[np.uint8] | None  # (h, w, 3) RGB, C-contiguous
    fault: str = ""  # why `image` is None
    readings: dict[str, float] = field(default_factory=dict)  # sensors sampled with the part
    location: Location | None = None
    decode_ms: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What the station says of one part, exactly once."""

    event_id: str  # unique: who receives a verdict twice drops the second by it
    site: str
    line: str
    run: str
    part_id: int
    decision: Decision
    score: float | None  # None when no engine spoke
    threshold: float
    reason: str  # why UNKNOWN, else empty
    engine: str  # which engine spoke, empty when none did
    model_id: str
    degraded: bool  # not the first engine of the configured order spoke
    missed_deadline: bool  # too late for the gate: the part was rejected
    time: str  # RFC 3339, UTC, when the verdict was made
    latency_ms: float  # trigger → decision
    stages_ms: dict[str, float]
    readings: dict[str, float] = field(default_factory=dict)
    location: Location | None = None
    late: bool = False  # published from the outbox after an outage


@dataclass(frozen=True)
class Opinion:
    """What the server's model says of a part near the board's threshold. It changes nothing at the gate.

    Usually it follows the part's verdict; after an outage of the broker the verdict may come later, from the outbox.
    """

    event_id: str  # of the verdict
    site: str
    line: str
    run: str
    part_id: int
    decision: Literal["OK", "REJECT"]  # by the server's model alone
    score: float
    threshold: float
    agrees: bool  # with the verdict
    model_id: str
    time: str  # RFC 3339, UTC
    latency_ms: float  # verdict → opinion


def encode_opinion(opinion: Opinion) -> bytes:
    return encode_json(opinion)


def decode_opinion(data: bytes) -> Opinion:
    """Raises: MessageError for anything that is not an opinion."""
    return decode_json(Opinion, data)


def encode_verdict(verdict: Verdict) -> bytes:
    return encode_json(verdict)


def decode_verdict(data: bytes) -> Verdict:
    """Raises: MessageError for anything that is not a verdict."""
    return decode_json(Verdict, data)


def encode_json(message: Any) -> bytes:
    """Of a dataclass of plain values, tables and dataclasses."""
    return _to_json(message).encode()


def decode_json(cls: type[_T], data: bytes) -> _T:
    """A message dataclass from JSON bytes. Raises: MessageError."""
    return build_message(cls, _load_json(cls.__name__, data))


def build_message(cls: type[_T], content: object) -> _T:
    """A message dataclass from what its JSON holds. Raises: MessageError."""
    try:
        return build(cls, content)
    except FieldError as error:
        raise MessageError(f"{cls.__name__}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise MessageError(f"{cls.__name__} is not JSON: {error}") from None


def decode_table(what: str, data: bytes) -> dict[str, Any]:
    """Of a message that may have keys that nobody knows yet. Raises: MessageError, which begins with `what`."""
    content = _load_json(what, data)
    if not isinstance(content, dict):
        raise MessageError(f"{what} is no table of keys")
    return content


def _load_json(what: str, data: bytes) -> object:
    if len(data) > MAX_JSON_BYTES:
        raise MessageError(f"{what} of {len(data)} bytes; at most {MAX_JSON_BYTES} are read")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"{what} is not JSON: {error}") from None


def clock_id() -> str:
    """Names this machine's monotonic clock: equal in every process since one boot, different on every other machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def new_run() -> str:
    return os.urandom(8).hex()


def rfc3339(moment: datetime) -> str:
    """UTC, with milliseconds: of one length, so that text sorts as time."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_now() -> str:
    return rfc3339(datetime.now(timezone.utc))
