"""The one table of streams: who speaks to whom, over what, and what may be lost."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stream:
    name: str  # ZeroMQ: the stream; MQTT: the topic below beltsight/<site>/<line>/
    over: Literal["zmq", "mqtt"]
    carries: str
    may_lose: bool
    qos: int = 0
    retain: bool = False


BELT = Stream("belt", "zmq", "triggers, frames and motion, belt → board (PUSH/PULL, back-pressure)", may_lose=False)
TAP = Stream("tap", "zmq", "verdict, frame and anomaly map of each part, board → anybody (PUB, lossy)", may_lose=True)
VERDICT = Stream("verdict", "mqtt", "one JSON verdict a part, from the outbox", may_lose=False, qos=1)
STATE = Stream("state", "mqtt", "running, degraded, stopped or lost (last will), with the reason", False, 1, True)
HEALTH = Stream("health", "mqtt", "counters and latencies every few seconds", may_lose=True)
SECOND_OPINION = Stream("second-opinion", "mqtt", "what the server says of a part near the threshold", may_lose=True)
DRIFT = Stream("drift", "mqtt", "whether accepted parts look and score as at calibration", True, 1, True)
CHALLENGE = Stream("challenge", "mqtt", "how the last challenge with known-bad parts went", True, 1, True)
COMMAND = Stream("cmd", "mqtt", "cmd/pause and others, each with an id and an expiry", may_lose=True, qos=1)
RESULT = Stream("cmd/result", "mqtt", "whether a command was obeyed, and why not", may_lose=True, qos=1)

STREAMS = (BELT, TAP, VERDICT, STATE, HEALTH, SECOND_OPINION, DRIFT, CHALLENGE, COMMAND, RESULT)


def topic(stream: Stream, site: str, line: str) -> str:
    return f"beltsight/{site}/{line}/{stream.name}"


def command_topic(site: str, line: str, name: str) -> str:
    """Of one of the commands, see protocol/commands.py."""
    return f"{topic(COMMAND, site, line)}/{name}"


def client_id(role: str, *names: str) -> str:
    """For the broker, which knows sessions by it and ends one connection when another comes under the same id: who
    differs in role or in a name differs here, wherever the names have their hyphens.

    >>> client_id("station", "works", "north-1") == client_id("station", "works-north", "1")
    False
    """
    distinct = hashlib.sha256("/".join((role, *names)).encode()).hexdigest()[:8]
    return "-".join(("beltsight", role, *names, distinct))


def is_topic_level(name: str) -> bool:
    """Whether a site's or line's name can stand in an MQTT topic."""
    return 0 < len(name) <= 64 and name.isprintable() and not set(name) & set("/+#$ ")
