"""The page's connection to the broker: what the line says comes in, orders go out and their answers come back."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from host.aside import Aside
from host.dashboard.incoming import check_message
from host.dashboard.station import Station
from host.dashboard.writer import Item, Writer
from protocol.broker import TAKEN_OVER_SHOWN_S, BrokerClient, BrokerSettings, Connected, close_broker, connect_broker
from protocol.commands import Answer, Order
from protocol.errors import BeltsightError, InputError, MessageError
from protocol.messages import decode_json, decode_opinion, decode_verdict, encode_json
from protocol.streams import (
    CHALLENGE,
    COMMAND,
    DRIFT,
    HEALTH,
    RESULT,
    SECOND_OPINION,
    STATE,
    VERDICT,
    command_topic,
    topic,
)
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

SESSION_S = 7 * 24 * 3600  # how long the broker keeps verdicts for a page that is not there
ANSWERED_WITHIN_S = 10.0
SWAPPED_WITHIN_S = 90.0  # a model is verified and tested before the answer
MAX_WAITING = 8  # orders at a time
RECONNECT_S = 2.0
CONNECTED_WITHIN_S = 60.0  # far more than an attempt takes, which has its own deadlines
SILENT_S = 1.0
KEPT = (VERDICT.name, SECOND_OPINION.name)  # in the history


class NoAnswer(BeltsightError):  # noqa: N818 - what the page then says
    """The line did not answer an order in time: it may have been obeyed or not."""


class Link:
    def __init__(
        self,
        broker: BrokerSettings,
        site_and_line: tuple[str, str],
        station: Station,
        writer: Writer,
        *,
        name: str,
        aside: Aside,
        hear: Callable[[Answer], None],
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """Connects, again and again, from a thread, as `name`. `hear` is told every answer of the line, to whomever.

        Raises: InputError if the credentials are not in order.
        """
        self._hear = hear
        broker.credentials.apply(mqtt.Client(CallbackAPIVersion.VERSION2))
        self._broker, self._name = broker, name
        self._site, self._line = site_and_line
        self._station, self._writer, self._aside = station, writer, aside
        self._waiting: dict[str, queue.Queue[Answer]] = {}
        self._client: BrokerClient | None = None
        self._connected: Connected | None = None
        self._stop = threading.Event()
        self._taken_over, self._taken_over_s = 0, -math.inf  # times that another client came under our name
        self.refused = 0  # messages that were none, or not for the history
        station.broker_trouble = "connecting to the broker"
        self._supervisor = supervisor
        self._thread = supervisor.start("broker link", self._watch, silent_s=SILENT_S)

    def send(self, name: str, order: Order) -> Answer:
        """Wait for the line's answer. Raises: NoAnswer."""
        client, connected = self._client, self._connected
        if client is None or connected is None or not connected.event.is_set():
            raise NoAnswer("the broker is not connected: nothing was sent")
        if len(self._waiting) >= MAX_WAITING:
            raise NoAnswer("other orders wait for their answers: try again")
        within_s = SWAPPED_WITHIN_S if name in ("model", "rollback") else ANSWERED_WITHIN_S
        answers: queue.Queue[Answer] = queue.Queue(1)
        self._waiting[order.id] = answers
        try:
            client.publish(command_topic(self._site, self._line, name), encode_json(order), qos=COMMAND.qos)
            return answers.get(timeout=within_s)
        except queue.Empty:
            raise NoAnswer(f"no answer within {within_s:.0f} s: is `commands = true` on the station?") from None
        finally:
            del self._waiting[order.id]

    def close(self) -> None:
        self._thread.stop(self._stop.set, 10.0)
        if self._client:
            close_broker(self._client)

    def _watch(self, supervised: Supervised) -> None:
        while not self._stop.wait(0.2 if self._client else 0):
            supervised.beat()
            if self._client is None:
                with supervised.busy(CONNECTED_WITHIN_S):
                    self._connect()
            elif self._connected:
                self._station.broker_trouble = self._trouble(self._connected)

    def _trouble(self, connected: Connected) -> str:
        if connected.taken_over != self._taken_over:
            self._taken_over, self._taken_over_s = connected.taken_over, time.monotonic()
        if time.monotonic() - self._taken_over_s < TAKEN_OVER_SHOWN_S:
            return f"another page has come as {self._name}, and takes verdicts of ours: give each its own --folder"
        return "" if connected.event.is_set() else "the broker is gone: nothing is known of the line"

    def _connect(self) -> None:
        """subtle: the id is the same at each start, for the broker keeps the session by it."""
        streams = (VERDICT, STATE, HEALTH, SECOND_OPINION, DRIFT, CHALLENGE, RESULT)
        try:
            self._client, self._connected = connect_broker(
                self._broker,
                self._name,
                topics=[self._topic(stream.name) for stream in streams],
                session_s=SESSION_S,
                prepare=self._prepare,
                supervisor=self._supervisor,
            )
        except InputError as error:
            self._station.broker_trouble = str(error)
            self._stop.wait(RECONNECT_S)

    def _prepare(self, client: mqtt.Client) -> None:
        client.manual_ack_set(True)
        client.on_message = self._on_message

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        def stored() -> None:
            client.ack(message.mid, message.qos)

        name = message.topic.removeprefix(self._topic(""))
        payload = bytes(message.payload)
        try:
            item = self._take(name, payload, stored)
        except MessageError as error:
            self.refused += 1  # it would never become one
            if name not in KEPT or self._aside.take(payload, str(error)):
                stored()
            return
        if item:
            self._writer.put(item)
        else:
            stored()

    def _take(self, name: str, payload: bytes, stored: Callable[[], None]) -> Item | None:
        """What is to be stored. Raises: MessageError."""
        if name in KEPT:
            kept = decode_verdict(payload) if name == VERDICT.name else decode_opinion(payload)
            check_message(kept, self._site, self._line)
            return Item(kept, stored)
        if name == STATE.name:
            self._station.take_state(payload)
        elif name == HEALTH.name:
            self._station.take_health(payload)
        elif name == CHALLENGE.name:
            self._station.take_challenge(payload)
        elif name == DRIFT.name:
            self._station.take_drift(payload)
        elif name == RESULT.name:
            self._take_answer(decode_json(Answer, payload))
        return None

    def _take_answer(self, answer: Answer) -> None:
        self._hear(answer)
        waiting = self._waiting.get(answer.id)
        if waiting and waiting.empty():
            waiting.put(answer)

    def _topic(self, name: str) -> str:
        return f"{topic(VERDICT, self._site, self._line).removesuffix(VERDICT.name)}{name}"
