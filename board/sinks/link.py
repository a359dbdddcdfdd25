"""The station's connection to its broker: what is sent over it, what comes back, what is told again when it returns."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from board.commands import Received
from board.sinks.delivery import MAX_IN_FLIGHT
from protocol.broker import BrokerClient, BrokerSettings, Connected, Will, close_broker, connect_broker
from protocol.commands import ORDERS
from protocol.errors import InputError
from protocol.streams import STATE, Stream, command_topic, topic
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

RECONNECT_EVERY_S = 2.0
CONNECT_WITHIN_S = 60.0  # far more than an attempt takes, which has its own deadlines
MAX_COMMANDS = 16  # received and not yet taken
_T = TypeVar("_T")


class BrokerLink:
    """Until it stands for the first time it is tried again and again; from then on the client keeps it."""

    def __init__(
        self,
        broker: BrokerSettings,
        site: str,
        line: str,
        *,
        obeys: bool,
        last_state: Callable[[], bytes],
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """`obeys`: whether commands are heard. `last_state`: what the broker says for us when we vanish.

        Raises: InputError if the credentials are not in order.
        """
        broker.credentials.apply(mqtt.Client(CallbackAPIVersion.VERSION2))  # now: later it would pass for an outage
        self.broker = broker
        self._site, self._line, self._obeys = site, line, obeys
        self._last_state, self._supervisor = last_state, supervisor
        self._client: BrokerClient | None = None
        self._connected = Connected(())
        self._latest: dict[Stream, bytes] = {}
        self._answers: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()  # message id, why the broker refused it
        self._commands: queue.Queue[Received] = queue.Queue(MAX_COMMANDS)
        self.dropped_commands = 0
        self._retry_at_s = 0.0
        self._attempt: Supervised | None = None
        self._attempted = threading.Event()
        self._refused_at_start: InputError | None = None

    @property
    def is_up(self) -> bool:
        return self._client is not None and self._connected.event.is_set()

    @property
    def is_down(self) -> bool:
        """It was tried, and does not stand."""
        return self._attempted.is_set() and not self.is_up

    def require(self) -> None:
        """Wait for the first attempt. Raises: InputError if it failed."""
        self._attempted.wait(CONNECT_WITHIN_S)
        if self._refused_at_start:
            raise self._refused_at_start

    def send(self, stream: Stream, payload: bytes) -> None:
        """Lost while there is no broker."""
        if self.is_up:
            self.post(stream, payload)

    def post(self, stream: Stream, payload: bytes) -> int | None:
        """The message id, which is not one that waits for its acknowledgement; None before the first connection, and
        where paho could not wake its own thread: whoever needs it sends it again.

        The client keeps the message for a broker that has just gone.

        subtle: paho counts its ids round through 65535 and does not take a message whose id is still in use, which
        the result alone tells. Each call draws the next id, and fewer than `2 * MAX_IN_FLIGHT` are in use.
        """
        if self._client is None:
            return None
        try:
            return self._publish(self._client, stream, payload)
        except OSError:
            return None

    def _publish(self, client: mqtt.Client, stream: Stream, payload: bytes) -> int:
        """Raises: OSError."""
        where = topic(stream, self._site, self._line)
        info = client.publish(where, payload, qos=stream.qos, retain=stream.retain)
        for _ in range(2 * MAX_IN_FLIGHT):
            if info.rc != mqtt.MQTT_ERR_QUEUE_SIZE:
                break
            info = client.publish(where, payload, qos=stream.qos, retain=stream.retain)
        return info.mid

    def tell(self, stream: Stream, payload: bytes) -> None:
        """Of this stream only the latest counts: it is kept for `tell_again`."""
        self._latest[stream] = payload
        self.send(stream, payload)

    def tell_again(self) -> None:
        """The broker is back, and may have forgotten what it retained."""
        for stream, payload in list(self._latest.items()):
            self.send(stream, payload)

    def take_answers(self) -> list[tuple[int, str]]:
        """Ids of the messages that the broker answered, each with its reason for a refusal, else with nothing."""
        return drain(self._answers)

    def take_commands(self) -> list[Received]:
        """What came since the last call, at most `MAX_COMMANDS`."""
        return drain(self._commands)

    def connect_when_due(self) -> None:
        """In a thread of its own: an address that never answers must not hold up the outbox."""
        is_busy = self._attempt is not None and self._attempt.is_alive
        if self._client is not None or is_busy or time.monotonic() < self._retry_at_s:
            return
        self._retry_at_s = time.monotonic() + RECONNECT_EVERY_S
        self._attempt = self._supervisor.start(
            "connection to the broker", self._try_to_connect, silent_s=CONNECT_WITHIN_S, is_once=True
        )

    def renew(self) -> None:
        """Give the connection up: the client makes another one, and sends on it what was not acknowledged."""
        ours = self._client.socket() if self._client else None
        if isinstance(ours, socket.socket):
            with contextlib.suppress(OSError):  # it is gone already
                ours.shutdown(socket.SHUT_RDWR)

    def end_attempt(self, within_s: float) -> None:
        """Nobody asks for another."""
        if self._attempt:
            self._attempt.wait(within_s)

    def close(self) -> None:
        if self._client:
            close_broker(self._client)

    def _try_to_connect(self, _: Supervised) -> None:
        try:
            self._connect()
        except InputError as error:  # an outage: the verdicts wait in the outbox
            self._refused_at_start = error
        finally:
            self._attempted.set()

    def _connect(self) -> None:
        will = Will(topic(STATE, self._site, self._line), self._last_state())
        client_id = f"beltsight-{self._site}-{self._line}"
        topics = [command_topic(self._site, self._line, name) for name in ORDERS] if self._obeys else []
        self._client, self._connected = connect_broker(
            self.broker, client_id, will=will, topics=topics, prepare=self._prepare, supervisor=self._supervisor
        )

    def _prepare(self, client: mqtt.Client) -> None:
        client.max_inflight_messages_set(MAX_IN_FLIGHT)
        client.on_publish = self._on_publish
        client.on_message = self._on_message

    def _on_publish(self, _client: mqtt.Client, _data: object, mid: int, code: ReasonCode, *_: object) -> None:
        # subtle: in MQTT 5 a broker also acknowledges what it refuses, with a code of 0x80 or above
        self._answers.put((mid, str(code) if code.is_failure else ""))

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        name = message.topic.rpartition("/")[2]
        try:
            self._commands.put_nowait(Received(name, bytes(message.payload), message.retain))
        except queue.Full:
            self.dropped_commands += 1


def drain(items: queue.SimpleQueue[_T] | queue.Queue[_T]) -> list[_T]:
    drained = []
    with contextlib.suppress(queue.Empty):
        while True:
            drained.append(items.get_nowait())
    return drained
