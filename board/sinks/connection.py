"""One connection to the broker and what is on its way over it, within what the broker takes (protocol/limits.py)."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import paho.mqtt.client as mqtt
from paho.mqtt.reasoncodes import ReasonCode

from protocol.broker import BrokerClient, Connected, close_broker
from protocol.limits import Limits

_T = TypeVar("_T")
OWN_RESERVE = 4  # of paho's own bound, which must never be the one that holds a message back
MAX_ID_TRIES = 256


@dataclass(frozen=True)
class Answer:
    """The broker has a message, or refuses it."""

    message_id: int
    refusal: str  # empty: it has it
    is_too_long: bool = False  # for this broker, whenever it is sent


PACKET_TOO_LARGE = 0x95  # MQTT 5.0, 3.4.2.1


class Connection:
    """Any thread may publish; answers are the outbox's thread's. A new one is made when this one has ended."""

    def __init__(self, at_once: int, on_answer: Callable[[], None]) -> None:
        """`at_once`: how many messages may wait for their acknowledgement, where the broker takes that many."""
        self._at_once, self._on_answer = at_once, on_answer
        self._lock = threading.Lock()
        self._heard: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._settled: list[Answer] = []
        self._waiting: set[int] = set()
        self._client: BrokerClient | None = None
        self.connected = Connected(())

    def prepare(self, client: mqtt.Client) -> None:
        """Before the first packet."""
        client.max_inflight_messages_set(self._at_once + OWN_RESERVE)
        client.on_publish = self._on_publish

    def begin(self, client: BrokerClient, connected: Connected) -> None:
        """The broker has accepted it."""
        self._client, self.connected = client, connected

    @property
    def is_up(self) -> bool:
        return self._client is not None and self.connected.event.is_set()

    @property
    def limits(self) -> Limits:
        return self.connected.limits

    @property
    def room(self) -> int:
        """How many messages may still go before the broker acknowledges one."""
        with self._lock:
            return self._room()

    def publish(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> int | None:
        """The message id, to come back in an answer, at once where the broker takes QoS 0 alone. None where nothing
        was sent: the connection is gone, has no room, or paho could not wake its own thread.
        """
        with self._lock:
            if self._client is None or (qos > 0 and self._room() <= 0):
                return None
            qos, retain = min(qos, self.limits.qos), retain and self.limits.retains
            try:
                message_id = self._publish(self._client, topic, payload, qos, retain=retain)
            except OSError:
                return None
            if qos > 0:
                self._waiting.add(message_id)
            return message_id

    def take_answers(self) -> list[Answer]:
        with self._lock:
            self._settle()
            answers, self._settled = self._settled, []
        return answers

    def hang_up(self) -> None:
        """Without a word, as of a connection on which nothing is acknowledged."""
        ours = self._client.socket() if self._client else None
        if isinstance(ours, socket.socket):
            with contextlib.suppress(OSError):  # it is gone already
                ours.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._client:
            close_broker(self._client)

    def _publish(self, client: BrokerClient, topic: str, payload: bytes, qos: int, *, retain: bool) -> int:
        """subtle: paho counts its ids round through 65535 and does not take a message whose id is still in use, which
        the result alone tells. Each call draws the next id, and far fewer than `MAX_ID_TRIES` are in use.

        Raises: OSError.
        """
        info = client.publish(topic, payload, qos=qos, retain=retain)
        for _ in range(MAX_ID_TRIES):
            if info.rc != mqtt.MQTT_ERR_QUEUE_SIZE:
                break
            info = client.publish(topic, payload, qos=qos, retain=retain)
        return info.mid

    def _room(self) -> int:
        self._settle()
        return min(self._at_once, self.limits.receive_maximum) - len(self._waiting)

    def _settle(self) -> None:
        """subtle: under the lock an id is among those that wait before its answer is looked at."""
        for answer in drain(self._heard):
            self._waiting.discard(answer.message_id)
            self._settled.append(answer)

    def _on_publish(self, _client: mqtt.Client, _data: object, mid: int, code: ReasonCode, *_: object) -> None:
        # subtle: in MQTT 5 a broker also acknowledges what it refuses, with a code of 0x80 or above
        refusal = str(code) if code.is_failure else ""
        self._heard.put(Answer(mid, refusal, is_too_long=code.value == PACKET_TOO_LARGE))
        self._on_answer()


def drain(items: queue.SimpleQueue[_T] | queue.Queue[_T]) -> list[_T]:
    drained = []
    with contextlib.suppress(queue.Empty):
        while True:
            drained.append(items.get_nowait())
    return drained
