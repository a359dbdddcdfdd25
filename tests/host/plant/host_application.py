"""A Sparkplug host application made with pysparkplug, which shares no code with us. Runs in an environment of its own.

host_application.py PORT GROUP HOST_ID: writes a line of JSON for each message it gets, takes orders as lines of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from typing import Any

import pysparkplug as spb
from paho.mqtt.client import MQTTMessage
from pysparkplug import _protobuf as protobuf

Order = dict[str, Any]
LOOPBACK = "127.0.0.1"
WRITING = threading.Lock()  # the network's thread and the orders' both write


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Host(spb.Client):  # type: ignore[misc]
    """Writes what it gets as it stands on the wire (`raw`) and as pysparkplug reads it, by the births it heard."""

    def _handle_message(self, mqtt_message: MQTTMessage) -> Any:
        if "CMD/" in mqtt_message.topic:  # somebody's, to an edge node
            return None
        message = super()._handle_message(mqtt_message)
        raw = protobuf.Payload.FromString(mqtt_message.payload)
        report = {
            "topic": mqtt_message.topic,
            "qos": mqtt_message.qos,
            "retain": bool(mqtt_message.retain),
            "seq": raw.seq if raw.HasField("seq") else None,
            "timestamp": raw.timestamp if raw.HasField("timestamp") else None,
            "metrics": [dataclasses.asdict(metric) for metric in getattr(message.payload, "metrics", ())],
            "raw": [{field.name: value for field, value in metric.ListFields()} for metric in raw.metrics],
        }
        write(report)
        return message


def write(report: dict[str, Any]) -> None:
    with WRITING:
        print(json.dumps(report), flush=True)


def state_message(host_id: str, *, online: bool, timestamp: int) -> spb.Message:
    topic = spb.Topic(message_type=spb.MessageType.STATE, sparkplug_host_id=host_id)
    return spb.Message(topic, spb.State(timestamp=timestamp, online=online), spb.QoS.AT_LEAST_ONCE, True)


def command(order: Order, group: str) -> spb.Message:
    """NCMD or DCMD that writes one metric, by name or by alias."""
    datatype = spb.DataType[order["datatype"]]
    metric = spb.Metric(now_ms(), order.get("name"), datatype, value=order["value"], alias=order.get("alias"))
    device = order.get("device")
    kind = spb.MessageType.DCMD if device else spb.MessageType.NCMD
    topic = spb.Topic(group_id=group, message_type=kind, edge_node_id=order["node"], device_id=device)
    payload = (spb.DCmd if device else spb.NCmd)(timestamp=now_ms(), metrics=(metric,))
    return spb.Message(topic, payload, spb.QoS.AT_MOST_ONCE, order.get("retain", False))


def main() -> None:
    port, group, host_id = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    connected_ms = now_ms()
    host = Host(f"host-{host_id}")
    host.set_will(state_message(host_id, online=False, timestamp=connected_ms))
    ready = threading.Event()
    host.connect(LOOPBACK, port=port, callback=lambda _: ready.set())
    ready.wait()
    host.subscribe(spb.Topic(group_id=group, message_type="#"), spb.QoS.AT_MOST_ONCE, lambda *_: None)
    write({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        if "online" in order:
            timestamp = order.get("timestamp", connected_ms)
            host.publish(state_message(order.get("host", host_id), online=order["online"], timestamp=timestamp))
        else:
            host.publish(command(order, group), include_dtypes=True)
    host.disconnect()


if __name__ == "__main__":
    main()
