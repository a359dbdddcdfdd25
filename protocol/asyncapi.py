"""The AsyncAPI 3.0 document of what a station says and hears over MQTT, made from its message dataclasses.

python -m protocol.asyncapi > protocol/asyncapi.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from protocol.commands import MAX_CAPTURED_PARTS, MAX_CHALLENGE_PARTS, ORDERS, Answer
from protocol.drift import DriftReport
from protocol.messages import MAX_PART_ID, Opinion, Verdict
from protocol.reports import ChallengeReport, HealthReport, LineState
from protocol.schemas import Schema, Schemas, class_text
from protocol.streams import CHALLENGE, COMMAND, DRIFT, HEALTH, RESULT, SECOND_OPINION, STATE, STREAMS, VERDICT, Stream

Document = dict[str, Any]
VERSION = "1.2.0"  # of the messages: a new key is a minor change, a removed one a major change

MESSAGES: dict[str, type[Any]] = {
    VERDICT.name: Verdict,
    STATE.name: LineState,
    HEALTH.name: HealthReport,
    SECOND_OPINION.name: Opinion,
    DRIFT.name: DriftReport,
    CHALLENGE.name: ChallengeReport,
    RESULT.name: Answer,
    **{f"{COMMAND.name}/{name}": order for name, order in ORDERS.items()},
}

_TIME = {"format": "date-time", "pattern": "Z$"}  # UTC
_PART_ID = {"minimum": 0, "maximum": MAX_PART_ID}
_COUNT = {"minimum": 0}
_NAME = {"minLength": 1}
_ORDER = {"id": {"pattern": "^[A-Za-z0-9_-]{1,64}$"}, "expires": _TIME}
_VERDICT: dict[str, Schema] = {
    "event_id": _NAME,
    "site": _NAME,
    "line": _NAME,
    "run": {"minLength": 1, "maxLength": 64},
    "part_id": _PART_ID,
    "time": _TIME,
}
_COUNTERS = (
    "parts",
    "ok",
    "reject",
    "unknown",
    "missed_deadlines",
    "good_stopped",
    "gate_faults",
    "unacknowledged",
    "dropped_verdicts",
    "set_aside",
    "taken_over",
)
_KNOWN_BAD = ("known_bad_parts", "known_bad_found")
BOUNDS: dict[str, dict[str, Schema]] = {
    "Verdict": _VERDICT,
    "Opinion": _VERDICT,
    "Location": {"frame": _COUNT},
    "LineState": {"time": _TIME},
    "HealthReport": {
        "time": _TIME,
        **dict.fromkeys((*_COUNTERS, *_KNOWN_BAD, "refused_by_broker", "dropped_commands"), _COUNT),
        **dict.fromkeys(("parts_per_s", "held_s", "rss_mb"), _COUNT),
    },
    "DriftReport": {"time": _TIME, "parts": _COUNT},
    "ChallengeReport": {"time": _TIME, "parts": _COUNT, "rejected": _COUNT},
    "Answer": {"time": _TIME},
    **{order.__name__: _ORDER for order in ORDERS.values()},
}
BOUNDS["Capture"] = _ORDER | {"parts": {"minimum": 1, "maximum": MAX_CAPTURED_PARTS}}
BOUNDS["ChallengeParts"] = _ORDER | {"parts": {"minimum": 1, "maximum": MAX_CHALLENGE_PARTS}}
OPEN_ENDED = frozenset({"HealthReport"})  # each source and sink has counters of its own

_PARAMETERS = {
    "site": {"description": "The plant or hall, as in the line's configuration: no '/', '+', '#', '$' or space."},
    "line": {"description": "The line, as in its configuration."},
}


def make_document(streams: Sequence[Stream] = STREAMS) -> Document:
    """Raises: KeyError for a stream over MQTT whose message is not in `MESSAGES`."""
    schemas = Schemas(BOUNDS, OPEN_ENDED)
    topics = [(topic, stream) for stream in streams if stream.over == "mqtt" for topic in _topics(stream)]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Beltsight station",
            "version": VERSION,
            "description": "What an inspection station says of its parts and of itself, and what it can be told.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": {"host": "localhost:1883", "protocol": "mqtt", "description": "MQTT 5, or 3.1.1."}},
        "channels": {_key(topic): _channel(topic, stream) for topic, stream in topics},
        "operations": {_operation_key(topic, stream): _operation(topic, stream) for topic, stream in topics},
        "components": {
            "messages": {MESSAGES[topic].__name__: _message(MESSAGES[topic], schemas) for topic, _ in topics},
            "schemas": schemas.made,
            "parameters": _PARAMETERS,
        },
    }


def _topics(stream: Stream) -> list[str]:
    """Below beltsight/<site>/<line>/."""
    return [f"{stream.name}/{name}" for name in ORDERS] if stream is COMMAND else [stream.name]


def _key(topic: str) -> str:
    """A name that references may have in them."""
    return topic.replace("/", "-")


def _channel(topic: str, stream: Stream) -> Document:
    name = MESSAGES[topic].__name__
    return {
        "address": f"beltsight/{{site}}/{{line}}/{topic}",
        "description": stream.carries[0].upper() + stream.carries[1:] + ".",
        "parameters": {key: {"$ref": f"#/components/parameters/{key}"} for key in _PARAMETERS},
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }


def _operation_key(topic: str, stream: Stream) -> str:
    return f"{_action(stream)}-{_key(topic)}"


def _operation(topic: str, stream: Stream) -> Document:
    channel = f"#/channels/{_key(topic)}"
    loss = "May be lost." if stream.may_lose else "Is not lost: it comes again until the broker has it."
    return {
        "action": _action(stream),
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{MESSAGES[topic].__name__}"}],
        "description": loss,
        "bindings": {"mqtt": {"qos": stream.qos, "retain": stream.retain, "bindingVersion": "0.2.0"}},
    }


def _action(stream: Stream) -> str:
    """Of the station."""
    return "receive" if stream is COMMAND else "send"


def _message(cls: type[Any], schemas: Schemas) -> Document:
    return {
        "name": cls.__name__,
        "contentType": "application/json",
        "summary": class_text(cls) or cls.__name__,
        "payload": schemas.refer(cls),
    }


if __name__ == "__main__":
    json.dump(make_document(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
