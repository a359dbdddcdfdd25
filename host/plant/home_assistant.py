"""Home Assistant's discovery over MQTT: one retained message a line makes its device and entities appear.

Device-based discovery, of Home Assistant 2024.12 and later: `<prefix>/device/<id>/config`. The entities read the line's
own topics; nothing is published a second time. An empty message under the same topic removes them again.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from host.plant.inbox import Arrival, Inbox
from protocol.reports import CONDITIONS, SWITCHED_OFF
from protocol.streams import COMMAND, HEALTH, STATE, VERDICT, Stream, is_topic_level, topic

DEFAULT_PREFIX = "homeassistant"
ORIGIN = "Beltsight"
COMMAND_WITHIN_S = 30
MAX_LINES = 256
Config = dict[str, Any]

_AVAILABLE = (
    "{{ 'offline' if value_json.state == 'lost' or "
    f"(value_json.state == 'stopped' and value_json.reason == '{SWITCHED_OFF}') else 'online' }}}}"
)
# A command that waits is none: Home Assistant's own clock gives it its expiry and its id.
_ORDER = (
    '{"id": "ha-{{ (utcnow().timestamp() * 1000) | int }}", "expires": "'
    f"{{{{ (utcnow() + timedelta(seconds={COMMAND_WITHIN_S})).strftime('%Y-%m-%dT%H:%M:%SZ') }}}}"
    '"}'
)
_REJECT_RATE = (
    "{{ (100 * (value_json.reject | default(0)) / value_json.parts) | round(2) "
    "if value_json.parts | default(0) else 0 }}"
)
# Without known-bad parts in the model's package there is no share, and Home Assistant shows "unknown".
_KNOWN_BAD = (
    "{{ (100 * (value_json.known_bad_found | default(0)) / value_json.known_bad_parts) | round(1) "
    "if value_json.known_bad_parts | default(0) else none }}"
)


class HomeAssistant:
    """Owned by one thread. Announces each line when its state is first heard."""

    def __init__(self, inbox: Inbox, site: str, prefix: str, *, has_commands: bool) -> None:
        self._inbox, self._site, self._prefix, self._has_commands = inbox, site, prefix, has_commands
        self._announced: set[str] = set()

    def take(self, arrival: Arrival) -> None:
        is_known = arrival.line in self._announced or len(self._announced) >= MAX_LINES
        if arrival.leaf != STATE.name or is_known or not is_topic_level(arrival.line):
            return
        self._announced.add(arrival.line)
        config = line_config(self._site, arrival.line, has_commands=self._has_commands)
        where = config_topic(self._prefix, self._site, arrival.line)
        self._inbox.publish(where, json.dumps(config).encode(), retain=True)

    def turn(self) -> None:
        """There is nothing to do but in `take`."""

    def close(self) -> None:
        """What was announced stays: the lines are there without us."""


def config_topic(prefix: str, site: str, line: str) -> str:
    return f"{prefix}/device/{device_id(site, line)}/config"


def device_id(site: str, line: str) -> str:
    """Of letters, digits, '-' and '_', as Home Assistant wants it, and different for each line."""
    plain = re.sub(r"[^a-zA-Z0-9-]", "_", f"beltsight-{site}-{line}")
    return f"{plain}-{hashlib.sha256(f'{site}/{line}'.encode()).hexdigest()[:6]}"


def line_config(site: str, line: str, *, has_commands: bool) -> Config:
    """The message's content."""
    identifier = device_id(site, line)

    def at(stream: Stream) -> str:
        return topic(stream, site, line)

    parts = _sensors(at(STATE), at(VERDICT), at(HEALTH))
    if has_commands:
        parts |= _buttons(at(COMMAND))
    for key, part in parts.items():
        part |= {"unique_id": f"{identifier}-{key}", "qos": 1}
    return {
        "device": {"identifiers": [identifier], "name": f"{site} {line}", "manufacturer": ORIGIN},
        "origin": {"name": ORIGIN},
        "availability": [{"topic": at(STATE), "value_template": _AVAILABLE}],
        "components": parts,
    }


def _sensors(state: str, verdict: str, health: str) -> dict[str, Config]:
    def count(name: str, key: str, icon: str) -> Config:
        return {
            "platform": "sensor",
            "name": name,
            "state_topic": health,
            "value_template": f"{{{{ value_json.{key} | default(0) }}}}",
            "state_class": "total_increasing",
            "unit_of_measurement": "parts",
            "icon": icon,
        }

    return {
        "state": {
            "platform": "sensor",
            "name": "State",
            "state_topic": state,
            "value_template": "{{ value_json.state }}",
            "json_attributes_topic": state,
            "device_class": "enum",
            "options": [*CONDITIONS],
        },
        "problem": {
            "platform": "binary_sensor",
            "name": "Problem",
            "state_topic": state,
            # no part comes: that is a pause of the plant as often as a fault of the line
            "value_template": "{{ 'OFF' if value_json.state in ('running', 'idle') else 'ON' }}",
            "device_class": "problem",
        },
        "decision": {
            "platform": "sensor",
            "name": "Last part",
            "state_topic": verdict,
            # a late one is of the past
            "value_template": "{{ this.state if value_json.late else value_json.decision }}",
            "json_attributes_topic": verdict,
            "device_class": "enum",
            "options": ["OK", "REJECT", "UNKNOWN"],
        },
        "latency": {
            "platform": "sensor",
            "name": "Latency",
            "state_topic": verdict,
            "value_template": "{{ this.state if value_json.late else value_json.latency_ms }}",
            "device_class": "duration",
            "unit_of_measurement": "ms",
            "state_class": "measurement",
            "entity_category": "diagnostic",
        },
        "parts": count("Parts", "parts", "mdi:counter"),
        "ok": count("OK", "ok", "mdi:check-circle-outline"),
        "reject": count("Rejected", "reject", "mdi:close-circle-outline"),
        "unknown": count("Unknown", "unknown", "mdi:help-circle-outline"),
        "reject_rate": {
            "platform": "sensor",
            "name": "Reject rate",
            "state_topic": health,
            "value_template": _REJECT_RATE,
            "unit_of_measurement": "%",
            "state_class": "measurement",
        },
        "throughput": {
            "platform": "sensor",
            "name": "Throughput",
            "state_topic": health,
            "value_template": "{{ value_json.parts_per_s | default(0) }}",
            "unit_of_measurement": "parts/s",
            "state_class": "measurement",
        },
        "known_bad_found": {
            "platform": "sensor",
            "name": "Known-bad parts found",
            "state_topic": health,
            "value_template": _KNOWN_BAD,
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "json_attributes_topic": health,
            "json_attributes_template": (
                "{{ {'found': value_json.known_bad_found | default(0), 'of': value_json.known_bad_parts | default(0)} "
                "| tojson }}"
            ),
            "entity_category": "diagnostic",
        },
    }


def _buttons(command: str) -> dict[str, Config]:
    return {
        name: {
            "platform": "button",
            "name": name.capitalize(),
            "command_topic": f"{command}/{name}",
            "command_template": _ORDER,
            "icon": icon,
        }
        for name, icon in (("pause", "mdi:pause"), ("resume", "mdi:play"))
    }
