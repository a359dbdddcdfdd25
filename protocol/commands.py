"""Commands to a line over MQTT: `beltsight/<site>/<line>/cmd/<name>`, answered on `…/cmd/result`.

    pause, resume   {"id": "7d3e", "expires": "2026-01-01T08:00:30Z"}
    threshold       … "value": 1.7      parts are rejected from this score on
                    … "confirmed": true    though fewer known-bad parts are found than must be
    capture         … "parts": 200      the next OK parts are recorded, to train on
    challenge       … "parts": 3        the next parts are known bad, and must be rejected at the gate
    model           … "model": "orange-256"    the line changes to another model; one that it has not, it fetches
                    … "url": "http://host:8000/orange-256"
                    … "even_if_unfit": true    though its export judged it unfit
                    … "confirmed": true    though it is for another product, or carries no known-bad parts
    teach           … "parts": 10, "model": "bottle-taught"    the next parts are good, and teach a new model; every
                    part is rejected until it judges
    rollback        back to the model before; of a lesson that is under way: its end

Who may send which is the broker's access rules' matter. A command is obeyed once, and no later than it says: a copy, or
one that waited somewhere, changes nothing. Times are compared with the station's clock: one that is wrong refuses
commands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from protocol.errors import MessageError
from protocol.messages import decode_json, rfc3339
from protocol.strict import build, require

MAX_COMMAND_BYTES = 1024
MAX_AHEAD_S = 3600.0  # a command is for now
MAX_CAPTURED_PARTS = 10_000
MAX_CHALLENGE_PARTS = 100
FEWEST_TAUGHT_PARTS, MAX_TAUGHT_PARTS = 5, 200  # their pictures are kept in memory
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_MODEL = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_URL = re.compile(r"https?://[A-Za-z0-9.:_\[\]-]{1,253}(/[A-Za-z0-9._~-]{1,128}){1,8}", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", re.ASCII)


@dataclass(frozen=True)
class Order:
    """The payload."""

    id: str  # unique: a second copy is not obeyed again
    expires: str  # RFC 3339, UTC

    def __post_init__(self) -> None:
        require(bool(_ID.fullmatch(self.id)), "id", "must be 1..64 letters, digits, '-' and '_'")
        require(bool(_RFC3339.fullmatch(self.expires)), "expires", "must be like 2026-01-01T08:00:30Z")
        try:
            self.expires_s()
        except ValueError as error:
            require(False, "expires", str(error))

    def expires_s(self) -> float:
        """Seconds since 1970, UTC."""
        return datetime.fromisoformat(self.expires[:-1]).replace(tzinfo=timezone.utc).timestamp()


@dataclass(frozen=True)
class Pause(Order):
    """Every part is rejected from now on."""


@dataclass(frozen=True)
class Resume(Order):
    """Parts are judged again."""


@dataclass(frozen=True)
class SetThreshold(Order):
    """Until the next one, another model, or the station's restart."""

    value: float
    confirmed: bool = False  # also where the model then finds too few of its known-bad parts


@dataclass(frozen=True)
class Capture(Order):
    """Record the next parts that are OK."""

    parts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.parts <= MAX_CAPTURED_PARTS, "parts", f"must be 1..{MAX_CAPTURED_PARTS}")


@dataclass(frozen=True)
class ChallengeParts(Order):
    """The next parts are known bad: they must be rejected at the gate. The result comes on the challenge topic."""

    parts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.parts <= MAX_CHALLENGE_PARTS, "parts", f"must be 1..{MAX_CHALLENGE_PARTS}")


@dataclass(frozen=True)
class SwitchModel(Order):
    """Judge with another model."""

    model: str
    url: str = ""  # of the package's folder, for a station that has no such model
    confirmed: bool = False  # also one of another product, or one that carries no known-bad parts
    even_if_unfit: bool = False  # also one that its export judged unfit

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(_MODEL.fullmatch(self.model)), "model", "must be the name of a folder in models_dir")
        require(not self.url or bool(_URL.fullmatch(self.url)), "url", "must be like http://host:8000/folder")


@dataclass(frozen=True)
class Teach(Order):
    """The next parts are good ones, and teach a model. No part passes until it judges."""

    parts: int
    model: str  # the new one's name

    def __post_init__(self) -> None:
        super().__post_init__()
        require(FEWEST_TAUGHT_PARTS <= self.parts <= MAX_TAUGHT_PARTS, "parts", "must be 5..200")
        require(bool(_MODEL.fullmatch(self.model)), "model", "must be a name of letters, digits, '-', '_' and '.'")


@dataclass(frozen=True)
class Rollback(Order):
    """Judge with the model before, again."""


ORDERS: dict[str, type[Order]] = {
    "pause": Pause,
    "resume": Resume,
    "threshold": SetThreshold,
    "capture": Capture,
    "challenge": ChallengeParts,
    "model": SwitchModel,
    "teach": Teach,
    "rollback": Rollback,
}


@dataclass(frozen=True)
class Answer:
    """On `cmd/result`; `id` is empty where the command had none that could be read."""

    id: str
    command: str
    obeyed: bool
    reason: str  # why not; of what was done, what has to be known of it, else empty
    time: str


def make_order(name: str, order_id: str, expires_in_s: float, fields: Mapping[str, object]) -> Order:
    """`name` is one of `ORDERS`. Raises: FieldError."""
    expires = datetime.now(timezone.utc) + timedelta(seconds=expires_in_s)
    return build(ORDERS[name], {**fields, "id": order_id, "expires": rfc3339(expires)})


def decode_command(name: str, payload: bytes) -> Order:
    """`name` is the last level of the topic. Raises: MessageError."""
    if name not in ORDERS:
        raise MessageError(f"unknown command {name!r:.40}: there are {', '.join(ORDERS)}")
    if len(payload) > MAX_COMMAND_BYTES:
        raise MessageError(f"command of {len(payload)} bytes; at most {MAX_COMMAND_BYTES} are read")
    return decode_json(ORDERS[name], payload)
