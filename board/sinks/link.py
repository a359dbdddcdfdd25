"""The station's link to its broker: what is sent over it, what comes back, what is told again when it returns."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from board.commands import Received
from board.sinks.connection import Answer, Connection, drain
from board.sinks.delivery import MAX_IN_FLIGHT
from protocol.broker import TAKEN_OVER_SHOWN_S, BrokerSettings, Will, connect_broker
from protocol.commands import ORDERS
from protocol.errors import InputError
from protocol.limits import Limits
from protocol.streams import STATE, Stream, client_id, command_topic, topic
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

RECONNECT_EVERY_S = 2.0
CONNECT_WITHIN_S = 60.0  # far more than an attempt takes, which has its own deadlines
SAID_WITHIN_S = 0.7  # that the broker is not there; the line asks every 0.2 s
TELL_WITHIN_S = 2.0  # the last state, at the end
FLAPS, FLAPPING_WITHIN_S = 3, 30.0  # so many breaks in such a time are no accident
MAX_COMMANDS = 16  # received and not yet taken
MAX_UNSENT = 16  # answers to commands


class BrokerLink:
    """It is tried again and again, each time with a connection of its own, from a thread of its own."""

    def __init__(
        self,
        broker: BrokerSettings,
        site: str,
        line: str,
        *,
        obeys: bool,
        last_state: Callable[[], bytes],
        on_answer: Callable[[], None] = lambda: None,
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """`obeys`: whether commands are heard. `last_state`: what the broker says for us when we vanish. `on_answer`
        hears, in another thread, that there is something for `take_answers`.

        Raises: InputError if the credentials are not in order.
        """
        broker.credentials.apply(mqtt.Client(CallbackAPIVersion.VERSION2))  # now: later it would pass for an outage
        self.broker = broker
        self.client_id = client_id("station", site, line)
        self._site, self._line, self._obeys = site, line, obeys
        self._last_state, self._on_answer, self._supervisor = last_state, on_answer, supervisor
        self._connection = Connection(MAX_IN_FLIGHT, on_answer)
        self._telling = threading.Lock()
        self._latest: dict[Stream, bytes] = {}
        self._untold: dict[Stream, None] = {}  # of these streams the latest has not gone
        self._unsent: deque[tuple[Stream, bytes]] = deque(maxlen=MAX_UNSENT)
        self._commands: queue.Queue[Received] = queue.Queue(MAX_COMMANDS)
        self.dropped_commands = 0
        self.too_long = 0  # messages of the line about itself that the broker does not take
        self.connections = 0  # that stood, with the present one
        self._taken_over, self._taken_over_s = 0, -math.inf
        self._ended_s: deque[float] = deque(maxlen=FLAPS)  # of the connections before
        self._retry_at_s = 0.0
        self._down_since_s = time.monotonic()
        self._attempt: Supervised | None = None
        self._attempted = threading.Event()
        self._refused_at_start: InputError | None = None

    @property
    def is_up(self) -> bool:
        return self._connection.is_up

    @property
    def is_down(self) -> bool:
        """It was tried, or should stand by now, and does not."""
        if self.is_up:
            self._down_since_s = time.monotonic()
            return False
        return self._attempted.is_set() or time.monotonic() - self._down_since_s > SAID_WITHIN_S

    @property
    def limits(self) -> Limits:
        """Of the broker, at the latest connection."""
        return self._connection.limits

    @property
    def room(self) -> int:
        """How many messages at QoS 1 the broker takes now."""
        return self._connection.room

    @property
    def taken_over(self) -> int:
        """How often another client came under our id."""
        return self._taken_over + self._connection.connected.taken_over

    @property
    def is_flapping(self) -> bool:
        """Lately the connection broke several times, and each time the broker took the next one."""
        now_s = time.monotonic()
        return sum(now_s - ended_s < FLAPPING_WITHIN_S for ended_s in self._ended_s) >= FLAPS

    @property
    def is_taken_over(self) -> bool:
        """Another one did lately."""
        if self._connection.connected.taken_over:
            self._taken_over_s = time.monotonic()
        return time.monotonic() - self._taken_over_s < TAKEN_OVER_SHOWN_S

    def require(self) -> None:
        """Wait for the first attempt. Raises: InputError if it failed."""
        self._attempted.wait(CONNECT_WITHIN_S)
        if self._refused_at_start:
            raise self._refused_at_start

    def post(self, stream: Stream, payload: bytes) -> int | None:
        """The message id; None where it could not go."""
        where = topic(stream, self._site, self._line)
        return self._connection.publish(where, payload, stream.qos, retain=stream.retain)

    def send(self, stream: Stream, payload: bytes) -> None:
        """At QoS 0 lost while there is no broker; at QoS 1 the latest few wait until one takes them."""
        if stream.qos == 0:
            if self.is_up:
                self._say(stream, payload)
            return
        with self._telling:
            self._unsent.append((stream, payload))
        self.flush()

    def tell(self, stream: Stream, payload: bytes) -> None:
        """Of this stream only the latest counts: it is kept for `tell_again`."""
        with self._telling:
            self._latest[stream] = payload
            self._untold[stream] = None
        self.flush()

    def tell_again(self) -> None:
        """The broker is back, and may have forgotten what it retained."""
        with self._telling:
            self._untold = dict.fromkeys(self._latest)
        self.flush()

    def flush(self) -> bool:
        """Send what waits, as far as the broker takes it: whether nothing waits any more."""
        with self._telling:
            while self.is_up and self._untold:
                stream = next(iter(self._untold))
                if not self._say(stream, self._latest[stream]):
                    return False
                del self._untold[stream]
            while self.is_up and self._unsent:
                if not self._say(*self._unsent[0]):
                    return False
                self._unsent.popleft()
            return not (self._untold or self._unsent)

    def _say(self, stream: Stream, payload: bytes) -> bool:
        """False where it has to be tried again. What is too long for the broker is passed over, and counted."""
        if not self.limits.takes(topic(stream, self._site, self._line), payload):
            self.too_long += 1
            return True
        return self.post(stream, payload) is not None

    def take_answers(self) -> list[Answer]:
        """To what was posted over the present connection."""
        return self._connection.take_answers()

    def take_commands(self) -> list[Received]:
        """What came since the last call, at most `MAX_COMMANDS`."""
        return drain(self._commands)

    def connect_when_due(self) -> None:
        """In a thread of its own: an address that never answers must not hold up the outbox."""
        is_busy = self._attempt is not None and self._attempt.is_alive
        if self.is_up or is_busy or time.monotonic() < self._retry_at_s:
            return
        self._retry_at_s = time.monotonic() + RECONNECT_EVERY_S
        self._attempt = self._supervisor.start(
            "connection to the broker", self._try_to_connect, silent_s=CONNECT_WITHIN_S, is_once=True
        )

    def renew(self) -> None:
        """Give the connection up: another one is made."""
        self._connection.hang_up()

    def end_attempt(self, within_s: float) -> None:
        """Nobody asks for another."""
        if self._attempt:
            self._attempt.wait(within_s)

    def close(self) -> None:
        deadline_s = time.monotonic() + TELL_WITHIN_S
        while not self.flush() and self.is_up and time.monotonic() < deadline_s:
            time.sleep(0.01)
        self._connection.close()

    def _try_to_connect(self, _: Supervised) -> None:
        try:
            self._connect()
        except InputError as error:  # an outage: the verdicts wait in the outbox
            self._refused_at_start = error
        finally:
            self._attempted.set()

    def _connect(self) -> None:
        """Raises: InputError."""
        self._connection.close()
        will = Will(topic(STATE, self._site, self._line), self._last_state())
        topics = [command_topic(self._site, self._line, name) for name in ORDERS] if self._obeys else []
        connection = Connection(MAX_IN_FLIGHT, self._on_answer)

        def prepare(client: mqtt.Client) -> None:
            connection.prepare(client)
            client.on_message = self._on_message

        connection.begin(
            *connect_broker(
                self.broker,
                self.client_id,
                will=will,
                topics=topics,
                reconnects=False,
                prepare=prepare,
                supervisor=self._supervisor,
            )
        )
        self._taken_over += self._connection.connected.taken_over
        if self.connections:
            self._ended_s.append(time.monotonic())
        self._connection = connection
        self.connections += 1

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        name = message.topic.rpartition("/")[2]
        try:
            self._commands.put_nowait(Received(name, bytes(message.payload), message.retain))
        except queue.Full:
            self.dropped_commands += 1
