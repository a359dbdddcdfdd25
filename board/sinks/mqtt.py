"""Verdicts over MQTT, through the outbox: stored first, published at QoS 1, removed when the broker acknowledged."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import paho.mqtt.client as mqtt
from numpy.typing import NDArray

from board.outbox import Entry, Outbox
from protocol.broker import BrokerSettings, Connected, Will, close_broker, connect_broker
from protocol.errors import InputError, SinkError
from protocol.messages import Frame, Verdict, decode_verdict, encode_verdict, rfc3339_now
from protocol.streams import HEALTH, STATE, VERDICT, Stream, topic
from protocol.strict import require

MAX_IN_FLIGHT = 64  # verdicts published and not acknowledged: paces a replay after an outage
RECONNECT_EVERY_S = 2.0
IDLE_TURN_S = 0.02
FLUSH_WITHIN_S = 5.0
_T = TypeVar("_T")
LineCondition = Literal["running", "degraded", "stopped", "lost"]


@dataclass(frozen=True)
class MqttSettings:
    outbox: Path = Path("outbox.sqlite")
    max_stored: int = 100_000  # verdicts kept for an absent broker
    when_full: Literal["stop", "drop-oldest"] = "stop"  # stop: reject every part until there is room
    commit_every_ms: float = 20.0  # verdicts of this time share one commit; 0: one each, before the part is done
    broker_at_start: Literal["required", "optional"] = "required"

    def __post_init__(self) -> None:
        require(self.max_stored >= 1, "max_stored", "must be 1 or more")
        require(0 <= self.commit_every_ms <= 10_000, "commit_every_ms", "must be 0..10000")


@dataclass(frozen=True)
class LineState:
    """Retained on the state topic; the broker itself publishes `lost` when the station vanishes."""

    state: LineCondition
    reason: str
    model_id: str
    time: str


class MqttSink:
    """One thread owns the outbox and publishes from it; the line only hands verdicts over."""

    def __init__(self, settings: MqttSettings, broker: BrokerSettings, site: str, line: str, model_id: str) -> None:
        """Raises: InputError if the outbox does not open, or the broker is required and does not answer."""
        self._settings, self._broker = settings, broker
        self._site, self._line, self._model_id = site, line, model_id
        self._outbox = Outbox(settings.outbox)
        self._sent_until = 0
        self._late_until = 0  # entries up to here were stored while no broker listened
        self._offline = True
        self._in_flight: dict[int, int] = {}  # message id → seq
        self._incoming: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._acknowledged: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._removable: list[int] = []  # acknowledged, still in the outbox
        self._wake = threading.Event()
        self._committed = threading.Condition()
        self._handed_over = self._stored = 0
        self._trouble = ""
        self._closing = False
        self._client: mqtt.Client | None = None
        self._connected = Connected()
        self._retry_at_s = 0.0
        self._attempt: threading.Thread | None = None
        self._state = LineState("running", "", model_id, rfc3339_now())
        self.dropped = 0
        if settings.broker_at_start == "required":
            self._connect()
        self._thread = threading.Thread(target=self._run, name="mqtt-outbox", daemon=True)
        self._thread.start()

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:  # noqa: ARG002
        """Raises: SinkError when the outbox is full or does not take it."""
        self._refuse_when_full()
        self._incoming.put(encode_verdict(verdict))
        self._handed_over += 1
        if self._settings.commit_every_ms == 0:
            self._wake.set()
            self._await_commit(self._handed_over)

    def set_state(self, state: LineCondition, reason: str) -> None:
        """Publish the line's state if it changed."""
        if (state, reason) != (self._state.state, self._state.reason):
            self._state = LineState(state, reason, self._model_id, rfc3339_now())
            self._publish_state()

    def publish_health(self, health: dict[str, object]) -> None:
        if self._client and self._connected.event.is_set():
            self._client.publish(self._topic(HEALTH), json.dumps(health), qos=HEALTH.qos)

    @property
    def waiting(self) -> int:
        """Verdicts that the broker has not acknowledged."""
        return self._outbox.count + self._handed_over - self._stored

    def close(self) -> None:
        """Flush what the broker takes within a few seconds; the rest stays in the outbox."""
        deadline_s = time.monotonic() + FLUSH_WITHIN_S
        while self.waiting and self._connected.event.is_set() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        self._closing = True
        self._wake.set()
        self._thread.join(FLUSH_WITHIN_S)
        if self._attempt:
            self._attempt.join(FLUSH_WITHIN_S)
        self.set_state("stopped", "switched off")
        if self._client:
            close_broker(self._client)
        self._outbox.close()

    def _refuse_when_full(self) -> None:
        if self._trouble:
            raise SinkError(self._trouble)
        if self.waiting >= self._settings.max_stored and self._settings.when_full == "stop":
            raise SinkError(f"outbox is full with {self.waiting} verdicts: bring the broker back")

    def _await_commit(self, number: int) -> None:
        with self._committed:
            stored = self._committed.wait_for(lambda: self._stored >= number or self._trouble, FLUSH_WITHIN_S)
        if not stored or self._trouble:
            raise SinkError(self._trouble or "outbox does not answer")

    # ---- the outbox's thread

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._settings.commit_every_ms / 1e3 or IDLE_TURN_S)
            self._wake.clear()
            self._turn()
        self._turn()

    def _turn(self) -> None:
        try:
            self._watch_link()
            self._store_incoming()
            self._remove_acknowledged()
            if not self._offline:
                self._publish_waiting()
            self._trouble = ""
        except SinkError as error:
            self._trouble = str(error)

    def _watch_link(self) -> None:
        if self._client is None:
            self._connect_when_due()
        was_offline, self._offline = self._offline, not self._connected.event.is_set()
        if was_offline and not self._offline:
            self._late_until = self._outbox.last_seq()
            self._publish_state()

    def _store_incoming(self) -> None:
        payloads = _drain(self._incoming)
        if not payloads:
            return
        try:
            self._outbox.add(payloads)
        except SinkError:
            for payload in payloads:  # kept in order for the next turn; the line rejects meanwhile
                self._incoming.put(payload)
            raise
        with self._committed:
            self._stored += len(payloads)
            self._committed.notify_all()
        self._drop_surplus()

    def _drop_surplus(self) -> None:
        surplus = self._outbox.count - self._settings.max_stored
        if surplus > 0 and self._settings.when_full == "drop-oldest":
            self.dropped += self._outbox.drop_oldest(surplus)

    def _remove_acknowledged(self) -> None:
        acknowledged = (self._in_flight.pop(mid, None) for mid in _drain(self._acknowledged))
        self._removable += [seq for seq in acknowledged if seq is not None]
        if self._removable:
            self._outbox.remove(self._removable)
            self._removable = []

    def _publish_waiting(self) -> None:
        room = MAX_IN_FLIGHT - len(self._in_flight)
        if room <= 0 or self._client is None:
            return
        for entry in self._outbox.read_after(self._sent_until, room):
            info = self._client.publish(self._topic(VERDICT), self._payload(entry), qos=VERDICT.qos)
            self._in_flight[info.mid] = entry.seq
            self._sent_until = entry.seq

    def _payload(self, entry: Entry) -> bytes:
        if entry.seq > self._late_until:
            return entry.payload
        return encode_verdict(replace(decode_verdict(entry.payload), late=True))

    # ---- the broker

    def _connect_when_due(self) -> None:
        """In a thread of its own: an address that never answers must not hold up the outbox."""
        is_busy = self._attempt is not None and self._attempt.is_alive()
        if is_busy or self._closing or time.monotonic() < self._retry_at_s:
            return
        self._retry_at_s = time.monotonic() + RECONNECT_EVERY_S
        self._attempt = threading.Thread(target=self._try_to_connect, name="mqtt-connect", daemon=True)
        self._attempt.start()

    def _try_to_connect(self) -> None:
        with contextlib.suppress(InputError):  # an outage: the verdicts wait in the outbox
            self._connect()

    def _connect(self) -> None:
        lost = LineState("lost", "the station vanished", self._model_id, rfc3339_now())
        will = Will(self._topic(STATE), json.dumps(asdict(lost)).encode())
        client_id = f"beltsight-{self._site}-{self._line}"
        self._client, self._connected = connect_broker(self._broker, client_id, will=will, prepare=self._prepare)

    def _prepare(self, client: mqtt.Client) -> None:
        client.max_inflight_messages_set(MAX_IN_FLIGHT)
        client.on_publish = self._on_publish

    def _on_publish(self, _client: mqtt.Client, _data: object, mid: int, *_: object) -> None:
        self._acknowledged.put(mid)

    def _publish_state(self) -> None:
        if self._client and self._connected.event.is_set():
            payload = json.dumps(asdict(self._state))
            self._client.publish(self._topic(STATE), payload, qos=STATE.qos, retain=STATE.retain)

    def _topic(self, stream: Stream) -> str:
        return topic(stream, self._site, self._line)


def _drain(items: queue.SimpleQueue[_T]) -> list[_T]:
    drained = []
    with contextlib.suppress(queue.Empty):
        while True:
            drained.append(items.get_nowait())
    return drained
