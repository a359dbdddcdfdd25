"""Commands to a line over MQTT: `beltsight/<site>/<line>/cmd/pause` and `…/cmd/resume`, answered on `…/cmd/result`.

    {"id": "7d3e", "expires": "2026-01-01T08:00:30Z"}

Who may send one is the broker's access rules' matter. It is obeyed once, and no later than it says: a copy, or one that
waited somewhere, changes nothing. Times are compared with the station's clock: one that is wrong refuses commands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, get_args

from protocol.errors import MessageError
from protocol.messages import decode_json
from protocol.strict import require

CommandName = Literal["pause", "resume"]
COMMANDS: tuple[CommandName, ...] = get_args(CommandName)
MAX_COMMAND_BYTES = 1024
MAX_AHEAD_S = 3600.0  # a command is for now
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", re.ASCII)


@dataclass(frozen=True)
class Order:
    """The payload."""

    id: str  # unique: a second copy is not obeyed again
    expires: str  # RFC 3339, UTC

    def __post_init__(self) -> None:
        require(0 < len(self.id) <= 64 and self.id.isprintable(), "id", "must be 1..64 printable characters")
        require(bool(_RFC3339.fullmatch(self.expires)), "expires", "must be like 2026-01-01T08:00:30Z")


@dataclass(frozen=True)
class Command:
    name: CommandName
    id: str
    expires_s: float  # seconds since 1970, UTC


@dataclass(frozen=True)
class Answer:
    """On `cmd/result`; `id` is empty where the command had none that could be read."""

    id: str
    command: str
    obeyed: bool
    reason: str  # why not, else empty
    time: str


def decode_command(name: str, payload: bytes) -> Command:
    """`name` is the last level of the topic. Raises: MessageError."""
    known = next((command for command in COMMANDS if command == name), None)
    if known is None:
        raise MessageError(f"unknown command {name!r:.40}: there are {', '.join(COMMANDS)}")
    if len(payload) > MAX_COMMAND_BYTES:
        raise MessageError(f"command of {len(payload)} bytes; at most {MAX_COMMAND_BYTES} are read")
    order = decode_json(Order, payload)
    try:
        expires = datetime.fromisoformat(order.expires[:-1]).replace(tzinfo=timezone.utc)
    except ValueError as error:
        raise MessageError(f"expires: {error}") from None
    return Command(known, order.id, expires.timestamp())
