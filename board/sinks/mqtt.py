"""Verdicts over MQTT, through the outbox: stored first, published at QoS 1, removed when the broker acknowledged.

What can be lost: a killed process loses the verdicts of its last `commit_every_ms`, a power cut those of the last
`sync_every_ms` that the broker had not yet acknowledged. With `commit_every_ms = 0` neither loses any: each verdict is
on the disk before its part is done. Parts whose verdict was lost that way become UNKNOWN when the station is back.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import paho.mqtt.client as mqtt
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from board.commands import Received
from board.records.outbox import Item, Outbox
from board.seams import LastPart
from board.sinks.delivery import MAX_IN_FLIGHT, Delivery
from protocol.broker import BrokerClient, BrokerSettings, Connected, Will, close_broker, connect_broker
from protocol.commands import ORDERS, Answer
from protocol.drift import DriftReport, encode_drift
from protocol.errors import InputError, SinkError
from protocol.manifest import Package
from protocol.messages import Frame, Opinion, Verdict, encode_json, encode_opinion, encode_verdict, rfc3339_now
from protocol.reports import SWITCHED_OFF, ChallengeReport, LineCondition, LineState
from protocol.streams import (
    CHALLENGE,
    DRIFT,
    HEALTH,
    RESULT,
    SECOND_OPINION,
    STATE,
    VERDICT,
    Stream,
    command_topic,
    topic,
)
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

RECONNECT_EVERY_S = 2.0
CONNECT_WITHIN_S = 60.0  # far more than an attempt takes, which has its own deadlines
IDLE_TURN_S = 0.02
FLUSH_WITHIN_S = 5.0
SILENT_S = 0.5
STORE_WITHIN_S = 5.0  # a card that cleans up keeps a commit waiting for a second
REMOVE_WITHIN_S = 1.0  # acknowledged verdicts leave with the next commit, or after this one of their own
MAX_UNREMOVED = 256
REFUSAL_SHOWN_S = 10.0  # how long a refusal of the broker makes the state degraded
MAX_COMMANDS = 16  # received and not yet taken
_T = TypeVar("_T")


@dataclass(frozen=True)
class MqttSettings:
    outbox: Path = Path("outbox.sqlite")
    max_stored: int = 100_000  # verdicts kept for an absent broker, about 100 MB
    when_full: Literal["stop", "drop-oldest"] = "stop"  # stop: reject every part until there is room
    commit_every_ms: float = 20.0  # verdicts of this time share one commit; 0: one each, synced before the part is done
    sync_every_ms: float = 1000.0  # commits of this time share one sync to the disk
    replay_per_s: float = 200.0  # pace of the verdicts that waited for the broker, beside the fresh ones
    broker_at_start: Literal["required", "optional"] = "required"
    commands: bool = False  # obey cmd/…: only where the broker's access rules say who may send which

    def __post_init__(self) -> None:
        require(self.max_stored >= 1, "max_stored", "must be 1 or more")
        require(0 <= self.commit_every_ms <= 10_000, "commit_every_ms", "must be 0..10000")
        require(0 <= self.sync_every_ms <= 600_000, "sync_every_ms", "must be 0..600000")
        require(1 <= self.replay_per_s <= 1_000_000, "replay_per_s", "must be 1..1000000")


class MqttSink:
    """One thread owns the outbox and publishes from it; the line only hands verdicts over."""

    def __init__(
        self,
        settings: MqttSettings,
        broker: BrokerSettings,
        site: str,
        line: str,
        model_id: str,
        *,
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """Begins to connect, and does not wait for it. Raises: InputError if the outbox does not open, or
        the broker's credentials are not in order.
        """
        broker.credentials.apply(mqtt.Client(CallbackAPIVersion.VERSION2))  # now: later it would pass for an outage
        self._settings, self._broker, self._supervisor = settings, broker, supervisor
        self._site, self._line = site, line
        self._outbox = Outbox(settings.outbox)
        self.last_part = self._outbox.last_part  # of the run of this program before this one
        self._delivery = Delivery(self._outbox, settings.replay_per_s)
        self._offline = True
        self._newest_event = ""
        self._incoming: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._uncommitted: list[Item] = []
        self._answers: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()  # message id, why the broker refused it
        self._unsynced_since_s: float | None = None
        self._unremoved_since_s = 0.0
        self._refusal, self._refusal_until_s = "", 0.0
        self._wake = threading.Event()
        self._committed = threading.Condition()
        self._handed_over = self._stored = 0
        self._trouble = ""
        self._closing = False
        self._commands: queue.Queue[Received] = queue.Queue(MAX_COMMANDS)
        self.dropped_commands = 0
        self._client: BrokerClient | None = None
        self._connected = Connected(())
        self._retry_at_s = 0.0
        self._attempt: Supervised | None = None
        self._attempted = threading.Event()
        self._refused_at_start: InputError | None = None
        self._drift: DriftReport | None = None
        self._challenge: ChallengeReport | None = None
        self._state = LineState("stopped", "starting", model_id, rfc3339_now())
        self.dropped = 0  # verdicts that a full outbox lost, where that is wanted
        self.farewell = SWITCHED_OFF  # reason of the last state
        self.refused = 0  # answers of the broker that it will not have a verdict; it is sent again
        self._thread = supervisor.start("outbox", self._run, silent_s=SILENT_S + settings.commit_every_ms / 1e3)

    def require_broker(self) -> None:
        """Wait for the first attempt to connect, where the settings want that. Raises: InputError if it failed."""
        if self._settings.broker_at_start == "required":
            self._attempted.wait(CONNECT_WITHIN_S)
            if self._refused_at_start:
                raise self._refused_at_start

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:  # noqa: ARG002
        """Raises: SinkError when the outbox is full or does not take it."""
        if verdict.event_id != self._newest_event:  # the line tries again with one that was taken, but not committed
            self._refuse_when_full()
            self._incoming.put(Item(encode_verdict(verdict), LastPart(verdict.run, verdict.part_id)))
            self._newest_event = verdict.event_id
            self._handed_over += 1
        if self._settings.commit_every_ms == 0:
            self._wake.set()
            self._await_commit(self._handed_over)

    def set_state(self, state: LineCondition, reason: str) -> None:
        """Publish the line's state if it changed."""
        if (state, reason) != (self._state.state, self._state.reason):
            self._state = replace(self._state, state=state, reason=reason, time=rfc3339_now())
            self._publish_state()

    @property
    def state(self) -> LineState:
        """The latest, published or not."""
        return self._state

    def set_model(self, package: Package) -> None:
        """What the state names from now on."""
        state = replace(
            self._state,
            model_id=package.manifest.id,
            manifest_sha256=package.sha256,
            signed_by=package.signed_by,
        )
        if state != self._state:
            self._state = replace(state, time=rfc3339_now())
            self._publish_state()

    def publish_health(self, health: dict[str, object]) -> None:
        if self._client and self._connected.event.is_set():
            self._client.publish(self._topic(HEALTH), json.dumps(health), qos=HEALTH.qos)

    def publish_opinion(self, opinion: Opinion) -> None:
        if self._client and self._connected.event.is_set():
            self._client.publish(self._topic(SECOND_OPINION), encode_opinion(opinion), qos=SECOND_OPINION.qos)

    def publish_challenge(self, report: ChallengeReport) -> None:
        """Retained, and sent again with each connection."""
        self._challenge = report
        self._publish_challenge()

    def publish_drift(self, report: DriftReport) -> None:
        """Retained, and told again at each connection: only the latest counts."""
        self._drift = report
        self._publish_drift()

    def take_commands(self) -> list[Received]:
        """What came since the last call, at most `MAX_COMMANDS`."""
        return _drain(self._commands)

    def publish_answer(self, answer: Answer) -> None:
        if self._client and self._connected.event.is_set():
            self._send(self._client, RESULT, encode_json(answer))

    @property
    def waiting(self) -> int:
        """Verdicts that the broker has not acknowledged."""
        return self._outbox.count - len(self._delivery.acknowledged) + self._handed_over - self._stored

    @property
    def complaint(self) -> str:
        """What is wrong with outbox or broker, as far as the line must say it; empty when nothing is."""
        if self._trouble:
            return self._trouble
        if self.dropped and self.waiting >= self._settings.max_stored:
            return f"outbox is full: {self.dropped} verdicts dropped so far: bring the broker back"
        if self._attempted.is_set() and not self._connected.event.is_set():
            return f"no broker at {self._broker.host}:{self._broker.port}: bring it back; verdicts wait in the outbox"
        if time.monotonic() < self._refusal_until_s:
            return f"the broker refuses verdicts ({self._refusal}): correct its access rules"
        return ""

    def counters(self) -> dict[str, object]:
        """For the health report."""
        aside = self._outbox.set_aside
        return {
            "unacknowledged": self.waiting,
            "dropped_verdicts": self.dropped,
            "refused_by_broker": self.refused,
            "dropped_commands": self.dropped_commands,
            "damaged_outbox": str(aside) if aside else "",
        }

    def close(self) -> None:
        """Flush what the broker takes within a few seconds; the rest stays in the outbox."""
        deadline_s = time.monotonic() + FLUSH_WITHIN_S
        while self.waiting and self._connected.event.is_set() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        self._thread.stop(self._tell_to_end, FLUSH_WITHIN_S)
        if self._attempt:
            self._attempt.wait(FLUSH_WITHIN_S)
        self.set_state("stopped", self.farewell)
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

    def _tell_to_end(self) -> None:
        self._closing = True
        self._wake.set()

    def _run(self, supervised: Supervised) -> None:
        while not self._closing:
            self._wake.wait(self._settings.commit_every_ms / 1e3 or IDLE_TURN_S)
            self._wake.clear()
            with supervised.busy(STORE_WITHIN_S):
                self._turn()
        self._turn()

    def _turn(self) -> None:
        try:
            self._watch_link()
            self._take_answers()
            self._store()
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
            self._delivery.begin_replay()
            self._publish_state()
            self._publish_drift()
            self._publish_challenge()

    def _take_answers(self) -> None:
        for message_id, refusal in _drain(self._answers):
            if refusal:
                self.refused += 1
                self._refusal, self._refusal_until_s = refusal, time.monotonic() + REFUSAL_SHOWN_S
                self._delivery.note_refused(message_id)
            else:
                self._delivery.note_acknowledged(message_id)

    def _store(self) -> None:
        """Commit what came and what can go, when there is reason to. Raises: SinkError."""
        self._uncommitted += _drain(self._incoming)
        if not self._delivery.acknowledged:
            self._unremoved_since_s = time.monotonic()
        if not self._uncommitted and not self._must_remove(len(self._delivery.acknowledged)):
            self._sync_when_due()
            return
        try:
            self._commit(self._uncommitted)
        except SinkError:
            self._commit([])  # on a full disk this may be what makes room; what came waits for the next turn
            raise
        with self._committed:
            self._stored += len(self._uncommitted)
            self._uncommitted = []
            self._committed.notify_all()
        self._drop_surplus()

    def _must_remove(self, count: int) -> bool:
        overdue = time.monotonic() - self._unremoved_since_s > REMOVE_WITHIN_S
        return count > 0 and (self._closing or overdue or count >= MAX_UNREMOVED)

    def _commit(self, items: list[Item]) -> None:
        is_synced = bool(items) and (self._settings.commit_every_ms == 0 or self._is_sync_due())
        removable, self._delivery.acknowledged = self._delivery.acknowledged, []
        try:
            self._outbox.store(items, removable, sync=is_synced)
        except SinkError:
            self._delivery.acknowledged = removable
            raise
        if is_synced:
            self._unsynced_since_s = None
        elif items and self._unsynced_since_s is None:
            self._unsynced_since_s = time.monotonic()

    def _is_sync_due(self) -> bool:
        since_s = self._unsynced_since_s
        if since_s is None:
            return self._settings.sync_every_ms == 0
        return self._closing or (time.monotonic() - since_s) * 1e3 >= self._settings.sync_every_ms

    def _sync_when_due(self) -> None:
        if self._unsynced_since_s is not None and self._is_sync_due():
            self._outbox.sync()
            self._unsynced_since_s = None

    def _drop_surplus(self) -> None:
        surplus = self._outbox.count - self._settings.max_stored
        if surplus > 0 and self._settings.when_full == "drop-oldest":
            self.dropped += self._outbox.drop_oldest(surplus)

    def _publish_waiting(self) -> None:
        if self._client is None:
            return
        for entry in self._delivery.next():
            self._delivery.note_published(self._send(self._client, VERDICT, entry.payload), entry)

    # ---- the broker

    def _connect_when_due(self) -> None:
        """In a thread of its own: an address that never answers must not hold up the outbox."""
        is_busy = self._attempt is not None and self._attempt.is_alive
        if is_busy or self._closing or time.monotonic() < self._retry_at_s:
            return
        self._retry_at_s = time.monotonic() + RECONNECT_EVERY_S
        self._attempt = self._supervisor.start(
            "connection to the broker", self._try_to_connect, silent_s=CONNECT_WITHIN_S, is_once=True
        )

    def _try_to_connect(self, _: Supervised) -> None:
        try:
            self._connect()
        except InputError as error:  # an outage: the verdicts wait in the outbox
            self._refused_at_start = error
        finally:
            self._attempted.set()

    def _connect(self) -> None:
        lost = replace(self._state, state="lost", reason="the station vanished", time=rfc3339_now())
        will = Will(self._topic(STATE), encode_json(lost))
        client_id = f"beltsight-{self._site}-{self._line}"
        topics = [command_topic(self._site, self._line, name) for name in ORDERS] if self._settings.commands else []
        self._client, self._connected = connect_broker(
            self._broker, client_id, will=will, topics=topics, prepare=self._prepare, supervisor=self._supervisor
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

    def _publish_state(self) -> None:
        if self._client and self._connected.event.is_set():
            self._send(self._client, STATE, encode_json(self._state))

    def _publish_challenge(self) -> None:
        if self._challenge and self._client and self._connected.event.is_set():
            self._send(self._client, CHALLENGE, encode_json(self._challenge))

    def _publish_drift(self) -> None:
        if self._drift and self._client and self._connected.event.is_set():
            self._send(self._client, DRIFT, encode_drift(self._drift))

    def _send(self, client: mqtt.Client, stream: Stream, payload: bytes) -> int:
        """At QoS 1. The message id, which is not one that waits for its acknowledgement.

        subtle: paho counts its ids round through 65535 and does not take a message whose id is still in use, which
        the result alone tells. Each call draws the next id, and fewer than `2 * MAX_IN_FLIGHT` are in use.
        """
        info = client.publish(self._topic(stream), payload, qos=stream.qos, retain=stream.retain)
        for _ in range(2 * MAX_IN_FLIGHT):
            if info.rc != mqtt.MQTT_ERR_QUEUE_SIZE:
                break
            info = client.publish(self._topic(stream), payload, qos=stream.qos, retain=stream.retain)
        return info.mid

    def _topic(self, stream: Stream) -> str:
        return topic(stream, self._site, self._line)


def _drain(items: queue.SimpleQueue[_T] | queue.Queue[_T]) -> list[_T]:
    drained = []
    with contextlib.suppress(queue.Empty):
        while True:
            drained.append(items.get_nowait())
    return drained
