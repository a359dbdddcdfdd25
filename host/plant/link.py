"""The edge node's own MQTT connection: one object a session, with NDEATH as its last will.

MQTT 3.1.1, which every Sparkplug infrastructure speaks, with a clean session, as the specification asks for.
"""

from __future__ import annotations

import contextlib
import queue
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from protocol.broker import ANSWER_WITHIN_S, BrokerClient, BrokerSettings, Will, close_broker
from protocol.errors import InputError
from protocol.supervision import SUPERVISOR

COMMAND_QOS = 1
DEATH_QOS = 1
FAREWELL_WITHIN_S = 2.0


@dataclass(frozen=True)
class Heard:
    """A message to the edge node. An empty topic: the broker has read everything that was published before a fence."""

    topic: str
    payload: bytes = b""
    fence: int = 0


class Link:
    def __init__(self, client_id: str, ndeath: Will, topics: Sequence[str]) -> None:
        self.was_offered = False  # a CONNECT packet went out
        self.heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._ndeath, self._topics = ndeath, topics
        self._ended = threading.Event()
        self._subscribed = threading.Event()
        self._refusal = ""
        self._client = BrokerClient(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        self._client.reconnects = False
        self._client.will_set(ndeath.topic, ndeath.payload, qos=DEATH_QOS, retain=False)
        self._client.connect_timeout = ANSWER_WITHIN_S
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self._ended.set()
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def open(self, broker: BrokerSettings) -> None:
        """Connect and subscribe. Raises: InputError if no broker answers or it refuses us."""
        broker.credentials.apply(self._client)
        where = f"MQTT broker at {broker.host}:{broker.port}"
        try:
            self._client.connect(broker.host, broker.port, broker.keepalive_s)
        except ssl.SSLError as error:
            raise InputError(f"{where} is not to be trusted ({error}): correct its address, or --ca-file") from None
        except (OSError, ValueError) as error:
            raise InputError(f"no {where} ({error}): start one, or correct its address") from None
        self.was_offered = True
        self._client.start_network(SUPERVISOR, is_needed=True, name="plant network")
        answered = self._subscribed.wait(ANSWER_WITHIN_S)
        if not answered or self._refusal or not self.is_open:
            self.close()
            reason = self._refusal or "it does not answer"
            raise InputError(f"{where} refuses the edge node ({reason}): correct its access rules, or our user")

    @property
    def is_open(self) -> bool:
        return not self._ended.is_set()

    def publish(self, topic: str, payload: bytes) -> None:
        """At QoS 0, never retained: every birth, data and death of a device goes like that."""
        self._client.publish(topic, payload, qos=0, retain=False)

    def fence(self) -> int:
        """Ask the broker for a sign that it has read what was published so far: `heard` brings the same number.

        subtle: QoS 0 has no acknowledgement. A broker reads a connection in order, and answers a subscription, which
        changes nothing when it is there already.
        """
        _, message_id = self._client.subscribe(self._topics[0], COMMAND_QOS)
        return message_id or 0

    def say_farewell(self) -> None:
        """NDEATH, then DISCONNECT, which keeps the broker from publishing the last will as well."""
        with contextlib.suppress(RuntimeError, ValueError):  # of a connection that is gone: the last will does it
            info = self._client.publish(self._ndeath.topic, self._ndeath.payload, qos=DEATH_QOS, retain=False)
            info.wait_for_publish(FAREWELL_WITHIN_S)
        self.close()

    def close(self) -> None:
        close_broker(self._client)
        self._ended.set()

    def _on_connect(self, client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _props: object) -> None:
        if code.is_failure:
            self._refusal = str(code)
            self._subscribed.set()
        else:
            client.subscribe([(topic, COMMAND_QOS) for topic in self._topics])

    def _on_subscribe(
        self, _client: mqtt.Client, _data: object, message_id: int, codes: list[ReasonCode], _props: object
    ) -> None:
        if any(code.is_failure for code in codes):
            self._refusal = "it does not let us subscribe to our commands"
        if self._subscribed.is_set():
            self.heard.put(Heard("", fence=message_id))
        self._subscribed.set()

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        is_state = "/STATE/" in message.topic
        if is_state or not message.retain:  # a retained command would come again at each connection
            self.heard.put(Heard(message.topic, bytes(message.payload)))
