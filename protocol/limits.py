"""What a broker takes from us: MQTT 5 says it in the answer to CONNECT (MQTT 5.0, 3.2.2.3), MQTT 3.1.1 does not."""

from __future__ import annotations

from dataclasses import dataclass

from paho.mqtt.properties import Properties


@dataclass(frozen=True)
class Limits:
    """What may be sent over one connection. The defaults are what holds where the broker says nothing."""

    receive_maximum: int = 65535  # messages of QoS 1 and 2 that wait for their acknowledgement
    packet_bytes: int = 268_435_460  # the longest packet that MQTT can write
    qos: int = 2
    retains: bool = True
    is_v5: bool = True

    def takes(self, topic: str, payload: bytes) -> bool:
        return publish_bytes(topic, payload, is_v5=self.is_v5) <= self.packet_bytes


def read_limits(properties: Properties | None, *, is_v5: bool) -> Limits:
    """Of the CONNACK of a connection; a broker of 3.1.1 has none."""
    if properties is None or not is_v5:
        return Limits(is_v5=is_v5)
    said = {
        "receive_maximum": getattr(properties, "ReceiveMaximum", None),
        "packet_bytes": getattr(properties, "MaximumPacketSize", None),
        "qos": getattr(properties, "MaximumQoS", None),
        "retains": getattr(properties, "RetainAvailable", None),
    }
    return Limits(is_v5=True, **{name: value for name, value in said.items() if value is not None})


def publish_bytes(topic: str, payload: bytes, *, is_v5: bool) -> int:
    """Of a PUBLISH packet with a message id and without properties."""
    rest = 2 + len(topic.encode()) + 2 + (1 if is_v5 else 0) + len(payload)
    return 1 + varint_bytes(rest) + rest


def varint_bytes(number: int) -> int:
    """How long MQTT writes it (1.5.5)."""
    return 1 + sum(number >= limit for limit in (1 << 7, 1 << 14, 1 << 21))
