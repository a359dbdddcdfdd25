"""Lines announced to Home Assistant: the messages have its documented form, and its templates understand a line's."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Environment, StrictUndefined

from host.plant.home_assistant import config_topic, device_id, line_config
from protocol.commands import Pause, SetThreshold, decode_command
from protocol.messages import new_run
from protocol.reports import SWITCHED_OFF, HealthReport, LineState
from protocol.streams import is_topic_level
from tests.examples import VERDICT
from tests.host.plant.plant import Station, start_bridge, wait_until
from tests.survival.broker import Subscriber

# Keys and required keys, as Home Assistant documents them (integrations sensor.mqtt, binary_sensor.mqtt, button.mqtt).
COMMON = {"platform", "name", "unique_id", "qos", "icon", "entity_category", "device_class", "json_attributes_topic"}
COMMON |= {"availability"}
UNITS = {"unit_of_measurement", "options"}
ATTRIBUTES = {"json_attributes_template"}
PLATFORMS = {
    "sensor": (COMMON | {"state_topic", "value_template", "state_class", *UNITS, *ATTRIBUTES}, "state_topic"),
    "number": (
        COMMON | {"command_topic", "command_template", "state_topic", "value_template", "min", "max", "step", "mode"},
        "command_topic",
    ),
    "event": (COMMON | {"state_topic", "value_template", "event_types"}, "event_types"),
    "binary_sensor": (COMMON | {"state_topic", "value_template", "payload_on", "payload_off"}, "state_topic"),
    "button": (COMMON | {"command_topic", "command_template", "payload_press"}, "command_topic"),
}
TOPIC = re.compile(r"homeassistant/device/[a-zA-Z0-9_-]+/config")
NOW = datetime(2026, 1, 1, 8, 0, tzinfo=timezone.utc)
CONFIG = line_config("plant", "line1", has_commands=True)


def render(template: str, message: object = None, state: str = "before", value: object = None) -> str:
    """As Home Assistant does with a message that is JSON."""
    environment = Environment(undefined=StrictUndefined, autoescape=False)
    known = {"utcnow": lambda: NOW, "timedelta": timedelta, "this": SimpleNamespace(state=state)}
    return environment.from_string(template).render(value_json=message, value=value, **known)


def shown(key: str, message: object, state: str = "before") -> str:
    return render(CONFIG["components"][key]["value_template"], message, state)


STATE = asdict(LineState("running", "", "trivial", "2026-01-01T08:00:00.000Z"))
HEALTH = asdict(HealthReport("2026-01-01T08:00:00.000Z", parts=8, ok=6, reject=1, unknown=1, parts_per_s=4.5))


def test_the_message_has_the_documented_form() -> None:
    assert set(CONFIG) == {"device", "origin", "components"}
    assert CONFIG["device"]["identifiers"]
    assert CONFIG["origin"]["name"]
    for key, component in CONFIG["components"].items():
        allowed, required = PLATFORMS[component["platform"]]
        assert set(component) <= allowed, key
        assert required in component
        assert "name" in component
        for one in component.get("availability", ()):
            assert set(one) <= {"topic", "value_template", "payload_available", "payload_not_available"}


def test_numbers_have_units_and_enumerations_their_options() -> None:
    for component in CONFIG["components"].values():
        if component.get("state_class"):
            assert component["unit_of_measurement"]
        if component.get("device_class") == "enum":
            assert component["options"]
            assert not {"state_class", "unit_of_measurement"} & set(component)
    classes = {key: component.get("state_class") for key, component in CONFIG["components"].items()}
    assert {key for key, value in classes.items() if value == "total_increasing"} == {
        "parts",
        "ok",
        "reject",
        "unknown",
    }


@pytest.mark.parametrize("line", ["line1", "Line1", "line.1", "straße", "a_b", "a-b", "x" * 64])
def test_each_line_has_a_topic_and_ids_of_its_own(line: str) -> None:
    assert is_topic_level(line)
    assert TOPIC.fullmatch(config_topic("homeassistant", "plant", line))
    others = {device_id("plant", other) for other in ("line1", "Line1", "line.1", "straße", "a_b", "a-b", "line_1")}
    assert len(others) == 7
    ids = [component["unique_id"] for component in line_config("plant", line, has_commands=True)["components"].values()]
    assert len(set(ids)) == len(ids)


def test_topics_are_the_lines_own() -> None:
    topics = {
        value
        for component in CONFIG["components"].values()
        for key, value in component.items()
        if key.endswith("_topic")
    }
    leaves = ("state", "verdict", "health", "drift", "cmd/pause", "cmd/resume", "cmd/threshold")
    assert topics == {f"beltsight/plant/line1/{leaf}" for leaf in leaves}


@pytest.mark.parametrize(
    ("state", "reason", "available", "problem"),
    [
        ("running", "", "online", "OFF"),
        ("idle", "no part has come for more than 10 s", "online", "OFF"),
        ("degraded", "arm: broken", "online", "ON"),
        ("stopped", "paused by command 7d3e", "online", "ON"),
        ("stopped", SWITCHED_OFF, "offline", "ON"),
        ("lost", "the station vanished", "offline", "ON"),
    ],
)
def test_state_availability_and_problem(state: str, reason: str, available: str, problem: str) -> None:
    message = STATE | {"state": state, "reason": reason}
    assert shown("problem", message) == problem
    assert shown("connection", message) == ("ON" if available == "online" else "OFF")
    for key, component in CONFIG["components"].items():
        if key in ("state", "problem", "connection"):
            assert "availability" not in component, "it says that the station is gone"
        else:
            assert render(component["availability"][0]["value_template"], message) == available
    assert shown("state", message) == state
    assert state in CONFIG["components"]["state"]["options"]


def test_the_last_part_is_shown_unless_it_is_late() -> None:
    assert shown("decision", asdict(VERDICT)) == "REJECT"
    assert shown("latency", asdict(VERDICT)) == "12.5"
    late = asdict(replace(VERDICT, late=True))
    assert shown("decision", late, "OK") == "OK"
    assert shown("latency", late, "3.0") == "3.0"
    assert shown("threshold", late, "0.25") == "0.25"


@pytest.mark.parametrize("state", ["unknown", "unavailable"])
@pytest.mark.parametrize("key", ["decision", "latency", "threshold"])
def test_a_late_part_before_any_other_leaves_it_unknown(key: str, state: str) -> None:
    """Home Assistant takes "None" for that; "unknown" is no number and none of the options, and an error in its log."""
    assert shown(key, asdict(replace(VERDICT, late=True)), state) == "None"


def test_a_reject_is_an_event_and_nothing_else_is() -> None:
    event = json.loads(shown("reject_event", asdict(VERDICT)))
    assert event == {"event_type": "reject", "part_id": 7, "score": 0.5, "model": VERDICT.model_id}
    assert event["event_type"] in CONFIG["components"]["reject_event"]["event_types"]
    assert shown("reject_event", asdict(replace(VERDICT, late=True))) == ""
    assert shown("reject_event", asdict(replace(VERDICT, decision="OK"))) == ""


def test_attributes_are_few() -> None:
    """Each change of one is a row of its recorder."""
    attributes = json.loads(render(CONFIG["components"]["state"]["json_attributes_template"], STATE))
    assert attributes == {"reason": "", "model": "trivial"}
    assert "json_attributes_topic" not in CONFIG["components"]["decision"]


def test_drift() -> None:
    assert [shown("drift", {"state": state}) for state in ("off", "steady", "drifting")] == ["OFF", "OFF", "ON"]


def test_counts_and_rates() -> None:
    values = {key: shown(key, HEALTH) for key in ("parts", "ok", "reject", "unknown", "reject_rate", "throughput")}
    expected = {"parts": "8", "ok": "6", "reject": "1", "unknown": "1", "reject_rate": "12.5", "throughput": "4.5"}
    assert values == expected


def test_how_many_known_bad_parts_are_found() -> None:
    part = CONFIG["components"]["known_bad_found"]
    health = HEALTH | {"known_bad_parts": 20, "known_bad_found": 19}
    assert shown("known_bad_found", health) == "95.0"
    assert json.loads(render(part["json_attributes_template"], health)) == {"found": 19, "of": 20}
    assert shown("known_bad_found", HEALTH) == "None"  # unknown


def test_a_line_that_has_judged_nothing_yet() -> None:
    first = {"time": "2026-01-01T08:00:00.000Z"}
    assert [shown(key, first) for key in ("parts", "reject_rate", "throughput")] == ["0", "0", "0"]


@pytest.mark.parametrize("name", ["pause", "resume"])
def test_a_button_gives_a_command_that_the_line_takes(name: str) -> None:
    order = decode_command(name, render(CONFIG["components"][name]["command_template"]).encode())
    assert order.expires == "2026-01-01T08:00:30Z"
    assert order.id == "ha-1767254400000"
    assert isinstance(order, Pause) == (name == "pause")


def test_a_threshold_gives_a_command_that_the_line_takes() -> None:
    order = decode_command(
        "threshold", render(CONFIG["components"]["threshold"]["command_template"], value=0.5).encode()
    )
    assert isinstance(order, SetThreshold)
    assert (order.value, order.expires) == (0.5, "2026-01-01T08:00:30Z")


def test_controls_are_not_there_unless_asked_for_and_go_again() -> None:
    """A component with its platform alone is removed (Home Assistant, MQTT discovery)."""
    parts = line_config("plant", "line1", has_commands=False)["components"]
    assert {key: part for key, part in parts.items() if len(part) == 1} == {
        "pause": {"platform": "button"},
        "resume": {"platform": "button"},
        "threshold": {"platform": "number"},
    }


# ---- with a broker


@contextlib.contextmanager
def configs(port: int, prefix: str = "homeassistant") -> Iterator[Subscriber]:
    subscriber = Subscriber(port, f"{prefix}/#", f"ha-{new_run()}")
    try:
        yield subscriber
    finally:
        subscriber.close()


def kept(port: int, prefix: str = "homeassistant") -> dict[str, Any]:
    """Topic → retained message, as who comes later finds them."""
    end = f"{prefix}/end"
    with configs(port, prefix) as subscriber, contextlib.closing(Station(port, "nobody")) as nobody:
        found: dict[str, Any] = {}
        nobody.send(end, b"0")
        while (message := subscriber.next()).topic != end:
            found[message.topic] = json.loads(message.payload)
            assert message.retain
    return found


def test_each_line_is_announced_and_taken_away_again(plant_port: int) -> None:
    foreign = "homeassistant/device/lamp/config"
    with contextlib.closing(Station(plant_port)) as line1, contextlib.closing(Station(plant_port, "line2")) as line2:
        line1.send(foreign, b'{"origin": {"name": "somebody"}}', retain=True)
        line1.send("homeassistant/device/odd/config", b"[", retain=True)
        line1.is_in("running")
        bridge = start_bridge(plant_port, "--home-assistant")
        line2.is_in("degraded", "arm: broken")
        names = {config_topic("homeassistant", "plant", line): line for line in ("line1", "line2")}
        with configs(plant_port) as subscriber:
            seen: dict[str, bytes] = {}
            while not set(names) <= set(seen):
                message = subscriber.next()
                seen[message.topic] = bytes(message.payload)
        assert bridge.end() == 0
        for topic, line in names.items():
            assert json.loads(seen[topic]) == line_config("plant", line, has_commands=False)
        line1.send("homeassistant/device/odd/config", b"", retain=True)
        assert set(kept(plant_port)) == {foreign, *names}, "they stay while the lines do"
        removal = start_bridge(plant_port, "--home-assistant", "--remove")
        wait_until(lambda: removal.process.poll() == 0)
        assert removal.lines == ["beltsight: 2 lines removed from Home Assistant"]
        assert set(kept(plant_port)) == {foreign}


def test_a_line_is_announced_by_its_health_too(plant_port: int) -> None:
    with contextlib.closing(Station(plant_port)) as line1, configs(plant_port) as subscriber:
        bridge = start_bridge(plant_port, "--home-assistant")
        line1.reports(parts=1)
        assert subscriber.next().topic == config_topic("homeassistant", "plant", "line1")
        bridge.end()


def test_the_prefix_can_be_another(plant_port: int) -> None:
    with contextlib.closing(Station(plant_port)) as line1, configs(plant_port, "ha2") as subscriber:
        line1.is_in("running")
        bridge = start_bridge(plant_port, "--home-assistant", "--home-assistant-prefix", "ha2", "--commands")
        message = subscriber.next()
        assert message.topic == config_topic("ha2", "plant", "line1")
        assert json.loads(message.payload) == line_config("plant", "line1", has_commands=True)
        bridge.end()
