"""Everything a running line says over MQTT, and hears, is as the AsyncAPI document has it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from jsonschema import Draft7Validator, FormatChecker
from paho.mqtt import publish

from host.export.trivial import write_trivial_package
from protocol.asyncapi import make_document
from protocol.broker import BrokerSettings
from protocol.commands import ORDERS
from tests.host.server.running import Board, run_server
from tests.line.test_second_opinion import ABOVE, BELOW, DISPUTED, run_board
from tests.survival.broker import MOSQUITTO, Subscriber, wait_until

DOCUMENT = make_document()
ADDRESSES = [channel["address"] for channel in DOCUMENT["channels"].values()]
ORDERED: dict[str, dict[str, object]] = {
    "pause": {},
    "resume": {},
    "threshold": {"value": 0.5},
    "capture": {"parts": 3},
    "challenge": {"parts": 1},
    "model": {"model": "no-such-model"},
    "teach": {"parts": 5, "model": "taught"},
    "rollback": {},
}


def find_schema(topic: str) -> dict[str, Any]:
    """Of the message on this topic."""
    for channel in DOCUMENT["channels"].values():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", channel["address"]), topic):
            (message,) = channel["messages"].values()
            name = message["$ref"].rpartition("/")[2]
            return {"$ref": DOCUMENT["components"]["messages"][name]["payload"]["$ref"]}
    raise AssertionError(f"no channel has the address {topic}")


def check(message: mqtt.MQTTMessage) -> str:
    """The stream's name."""
    schema = find_schema(message.topic) | {"components": DOCUMENT["components"]}
    Draft7Validator(schema, format_checker=FormatChecker()).validate(json.loads(message.payload))
    return message.topic.split("/", 3)[3]


def order(broker: BrokerSettings, site: str, name: str, number: int) -> None:
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    content = {"id": f"order-{number}", "expires": expires, **ORDERED[name]}
    topic = f"beltsight/{site}/line1/cmd/{name}"
    publish.single(topic, json.dumps(content), qos=1, hostname=broker.host, port=broker.port)


def test_all_that_a_line_says_is_in_the_document(tmp_path: Path, broker: BrokerSettings) -> None:
    if not MOSQUITTO:
        pytest.skip("mosquitto is not installed")
    write_trivial_package(tmp_path / "models" / "trivial", threshold=0.25)
    write_trivial_package(tmp_path / "models" / "strict", threshold=0.1)
    listener = Subscriber(broker.port, f"beltsight/{tmp_path.name}/#", "document-checker")
    seen: set[str] = set()

    def hears(wanted: set[str]) -> bool:
        while not listener.messages.empty():
            seen.add(check(listener.messages.get()))
        return wanted <= seen

    with run_server(tmp_path, tmp_path / "models", "--workers", "1") as server:
        with Board(server.endpoint) as asking:
            asking.wait_until_ready("strict")
        with run_board(tmp_path, broker, server.endpoint, deadline_ms=5000, queue_parts=16) as station:
            station.send(BELOW, DISPUTED, ABOVE)
            wait_until(lambda: hears({"verdict", "state", "health", "second-opinion", "drift"}))
            for number, name in enumerate(ORDERS):
                order(broker, tmp_path.name, name, number)
            wait_until(lambda: hears({f"cmd/{name}" for name in ORDERS} | {"cmd/result"}))
            station.send(BELOW)  # no known-bad part: the challenge fails, which is said at once
            wait_until(lambda: hears({"challenge"}))
    wait_until(lambda: hears(set()))
    listener.close()
    assert {topic.split("/", 3)[3] for topic in ADDRESSES} == seen
