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
from protocol import VERSION
from protocol.reports import CONDITIONS, SWITCHED_OFF
from protocol.streams import COMMAND, DRIFT, HEALTH, STATE, VERDICT, Stream, is_topic_level, topic

DEFAULT_PREFIX = "homeassistant"
ORIGIN = "Beltsight"
MODEL = "Inspection station"
COMMAND_WITHIN_S = 30
MAX_LINES = 256
Config = dict[str, Any]

_IS_AWAY = f"value_json.state == 'lost' or (value_json.state == 'stopped' and value_json.reason == '{SWITCHED_OFF}')"
_AVAILABLE = f"{{{{ 'offline' if {_IS_AWAY} else 'online' }}}}"
_CONNECTED = f"{{{{ 'OFF' if {_IS_AWAY} else 'ON' }}}}"
# What speaks of the station itself must speak when it is gone.
ALWAYS_THERE = ("state", "problem", "connection")
ONLY_COMMANDED = {"pause": "button", "resume": "button", "threshold": "number"}
_DECISIONS = ("OK", "REJECT", "UNKNOWN")
# A command that waits is none: Home Assistant's own clock gives it its expiry and its id.
_ORDER_HEAD = (
    '{"id": "ha-{{ (utcnow().timestamp() * 1000) | int }}", "expires": "'
    f"{{{{ (utcnow() + timedelta(seconds={COMMAND_WITHIN_S})).strftime('%Y-%m-%dT%H:%M:%SZ') }}}}\""
)
_ORDER = f"{_ORDER_HEAD}}}"
_SET_THRESHOLD = f'{_ORDER_HEAD}, "value": {{{{ value }}}}}}'
# An event of no verdict but a reject, and of none that is of the past: Home Assistant passes over what is empty.
_REJECT_EVENT = (
    "{{ {'event_type': 'reject', 'part_id': value_json.part_id, 'score': value_json.score, "
    "'model': value_json.model_id} | tojson if value_json.decision == 'REJECT' and not value_json.late else '' }}"
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
    """Owned by one thread. Announces each line when it is first heard."""

    def __init__(self, inbox: Inbox, site: str, prefix: str, *, has_commands: bool) -> None:
        self._inbox, self._site, self._prefix, self._has_commands = inbox, site, prefix, has_commands
        self._announced: set[str] = set()

    def take(self, arrival: Arrival) -> None:
        is_known = arrival.line in self._announced or len(self._announced) >= MAX_LINES
        # subtle: not every broker gives us the state that it retains; health is said every second
        if arrival.leaf not in (STATE.name, HEALTH.name) or is_known or not is_topic_level(arrival.line):
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

    parts = _sensors(at(STATE), at(VERDICT), at(HEALTH), at(DRIFT))
    if has_commands:
        parts |= _controls(at(COMMAND), at(VERDICT))
    for key, part in parts.items():
        part |= {"unique_id": f"{identifier}-{key}", "qos": 1}
        if key not in ALWAYS_THERE:
            part["availability"] = [{"topic": at(STATE), "value_template": _AVAILABLE}]
    if not has_commands:
        # subtle: a component that was announced stays until it is named with its platform alone
        parts |= {key: {"platform": platform} for key, platform in ONLY_COMMANDED.items()}
    return {
        "device": {"identifiers": [identifier], "name": f"{site} {line}", "manufacturer": ORIGIN, "model": MODEL},
        "origin": {"name": ORIGIN, "sw_version": VERSION},
        "components": parts,
    }


def _unless_late(value: str, known: str) -> str:
    """A late verdict is of the past: what was shown stays, where it was `known`, else it stays unknown."""
    return f"{{{{ ({known}) if value_json.late else {value} }}}}"


def _sensors(state: str, verdict: str, health: str, drift: str) -> dict[str, Config]:
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
            # few, for each change of one is a row of its recorder
            "json_attributes_topic": state,
            "json_attributes_template": (
                "{{ {'reason': value_json.reason | default(''), 'model': value_json.model_id | default('')} | tojson }}"
            ),
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
        "connection": {
            "platform": "binary_sensor",
            "name": "Connection",
            "state_topic": state,
            "value_template": _CONNECTED,
            "device_class": "connectivity",
            "entity_category": "diagnostic",
        },
        "drift": {
            "platform": "binary_sensor",
            "name": "Drift",
            "state_topic": drift,
            "value_template": "{{ 'ON' if value_json.state == 'drifting' else 'OFF' }}",
            "device_class": "problem",
        },
        "reject_event": {
            "platform": "event",
            "name": "Reject",
            "state_topic": verdict,
            "event_types": ["reject"],
            "value_template": _REJECT_EVENT,
        },
        "decision": {
            "platform": "sensor",
            "name": "Last part",
            "state_topic": verdict,
            "value_template": _unless_late(
                "value_json.decision", f"this.state if this.state in {_DECISIONS} else none"
            ),
            "device_class": "enum",
            "options": [*_DECISIONS],
        },
        "latency": {
            "platform": "sensor",
            "name": "Latency",
            "state_topic": verdict,
            "value_template": _unless_late("value_json.latency_ms", "this.state | float(none)"),
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


def _controls(command: str, verdict: str) -> dict[str, Config]:
    buttons: dict[str, Config] = {
        name: {
            "platform": "button",
            "name": name.capitalize(),
            "command_topic": f"{command}/{name}",
            "command_template": _ORDER,
            "icon": icon,
        }
        for name, icon in (("pause", "mdi:pause"), ("resume", "mdi:play"))
    }
    threshold = {
        "platform": "number",
        "name": "Threshold",
        "command_topic": f"{command}/threshold",
        "command_template": _SET_THRESHOLD,
        "state_topic": verdict,
        "value_template": _unless_late("value_json.threshold", "this.state | float(none)"),
        "min": -1000,
        "max": 1000,
        "step": 0.001,
        "mode": "box",
        "entity_category": "config",
    }
    return {**buttons, "threshold": threshold}
