"""What the stations say, through a session that the broker keeps: verdicts that come while we are away wait there.

Every message of QoS 1 is acknowledged by `Inbox.acknowledge` and not before; what never was comes again.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from dataclasses import dataclass

import paho.mqtt.client as mqtt

from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.streams import Stream, topic

SESSION_S = 7 * 24 * 3600  # how long the broker keeps verdicts for a bridge that is away
DELIVERY_QOS = 1


@dataclass(frozen=True)
class Arrival:
    """A message from a station."""

    line: str
    leaf: str  # the stream's name
    payload: bytes
    is_retained: bool
    message_id: int = 0  # 0: nothing to acknowledge
    session: int = 0  # number of the broker's session: ids begin anew with each


class Inbox:
    """The connection to the stations' broker; `arrivals` is filled by its network thread."""

    def __init__(
        self, broker: BrokerSettings, client_id: str, site: str, streams: Sequence[Stream], *, is_kept: bool
    ) -> None:
        """`is_kept`: the broker keeps what comes while we are away.

        Raises: InputError if no broker answers or it refuses us.
        """
        # subtle: no SimpleQueue, whose `get` forgets its timeout when a signal comes at the end of it (CPython 3.11)
        self.arrivals: queue.Queue[Arrival] = queue.Queue()
        self._session = 0
        topics = [topic(stream, site, "+") for stream in streams]
        self._client, self.connected = connect_broker(
            broker, client_id, topics=topics, session_s=SESSION_S if is_kept else 0, prepare=self._prepare
        )

    def acknowledge(self, arrival: Arrival) -> None:
        if arrival.message_id and arrival.session == self._session:
            self._client.ack(arrival.message_id, DELIVERY_QOS)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """At QoS 1; what cannot go now goes when the broker is back."""
        self._client.publish(topic, payload, qos=DELIVERY_QOS, retain=retain)

    def close(self) -> None:
        """The broker goes on keeping the session."""
        close_broker(self._client)

    def _prepare(self, client: mqtt.Client) -> None:
        client.manual_ack_set(True)
        client.on_message = self._on_message
        accepted = client.on_connect

        def on_connect(*packet: object) -> None:
            flags = packet[2]
            if isinstance(flags, mqtt.ConnectFlags) and not flags.session_present:
                self._session += 1
            if accepted:
                accepted(*packet)  # type: ignore[arg-type]

        client.on_connect = on_connect

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        # subtle: a broker that begins a new session numbers its messages anew, and an old number would acknowledge
        # a message that nobody has handed on
        message_id = message.mid if message.qos else 0
        levels = message.topic.split("/", 3)
        line, leaf = levels[2:] if len(levels) == 4 else ("", "")
        payload = bytes(message.payload)
        self.arrivals.put(Arrival(line, leaf, payload, bool(message.retain), message_id, self._session))
