"""Take what was announced to Home Assistant away again."""

from __future__ import annotations

import json
import time

import paho.mqtt.client as mqtt

from host.plant.home_assistant import ORIGIN
from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.messages import MAX_JSON_BYTES, new_run

HEARD_WITHIN_S = 2.0  # the broker sends retained messages right after the subscription
GONE_WITHIN_S = 5.0


def remove_discovered(broker: BrokerSettings, site: str, prefix: str) -> int:
    """How many devices were ours, and are gone. Raises: InputError if no broker answers."""
    ours: set[str] = set()

    def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.retain and _is_ours(bytes(message.payload), site):
            ours.add(message.topic)

    def prepare(client: mqtt.Client) -> None:
        client.on_message = on_message

    client, _ = connect_broker(broker, f"removal-{new_run()}", topics=[f"{prefix}/device/+/config"], prepare=prepare)
    time.sleep(HEARD_WITHIN_S)
    found = sorted(ours)
    for topic in found:
        client.publish(topic, b"", qos=1, retain=True).wait_for_publish(GONE_WITHIN_S)
    close_broker(client)
    return len(found)


def _is_ours(payload: bytes, site: str) -> bool:
    """Of this site: other programs announce devices under the same prefix."""
    try:
        config = json.loads(payload[:MAX_JSON_BYTES])
        topic = config["components"]["state"]["state_topic"]
        return bool(config["origin"]["name"] == ORIGIN and topic.startswith(f"beltsight/{site}/"))
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        return False
