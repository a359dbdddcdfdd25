"""A connection to the MQTT broker: MQTT 5 where the broker speaks it, 3.1.1 where not."""

from __future__ import annotations

import math
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from protocol.credentials import Credentials
from protocol.errors import InputError
from protocol.keys import is_loopback
from protocol.limits import Limits, read_limits
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

UNSUPPORTED_PROTOCOL_VERSION = 132  # MQTT 5.0, 3.2.2.2; paho maps 3.1.1's return code 1 to it
SESSION_TAKEN_OVER = 0x8E  # of a DISCONNECT (MQTT 5.0, 3.14.2.1)
TAKEN_OVER_SHOWN_S = 60.0  # longer than two clients of one id take to meet again
ANSWER_WITHIN_S = 5.0
SUBSCRIBE_QOS = 1
CONNECT_WITHIN_S = 30.0  # a name is looked up, then its addresses are tried one after the other
FAREWELL_WITHIN_S = 2.0  # for what is still to be written
RECONNECT_FROM_S, RECONNECT_UP_TO_S = 1.0, 10.0
TURN_S = 0.2
SILENT_S = 0.7
MAX_UNANSWERED = 500  # messages that a durable session is sent before it acknowledges one
MAX_RECEIVED_BYTES = 1 << 16  # a packet; MQTT 5 has the broker hold back what is longer


@dataclass(frozen=True)
class BrokerSettings:
    host: str = "127.0.0.1"
    port: int = 1883
    keepalive_s: int = 15  # the broker publishes the last will after 1.5 × this
    credentials: Credentials = field(default_factory=Credentials)

    def __post_init__(self) -> None:
        require(is_host(self.host), "host", "must be a name or an address, such as broker.plant.example")
        require(1 <= self.port <= 65535, "port", "must be 1..65535")
        require(1 <= self.keepalive_s <= 3600, "keepalive_s", "must be 1..3600")
        is_hidden = self.credentials.ca_file is not None or is_loopback(f"tcp://{self.host}:{self.port}")
        is_safe = is_hidden or self.credentials.password_file is None
        require(is_safe, "credentials.password_file", "needs ca_file: a password does not go over a network in clear")


def is_host(text: str) -> bool:
    """Whether it can be one at all: "" and "a..b" cannot."""
    try:
        return bool(text.encode("idna")) and text.isprintable() and " " not in text
    except UnicodeError:
        return False


@dataclass(frozen=True)
class Will:
    topic: str
    payload: bytes


class Connected:
    """Set while the broker has accepted us; `refusal` is its last answer. Subscribes to `topics` at each connection."""

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics
        self.event = threading.Event()
        self.answered = threading.Event()
        self.refusal: ReasonCode | None = None
        self.limits = Limits()
        self.parting = ""  # why the broker ended the last connection, where it said so
        self.taken_over = 0  # times that another client came under our id

    def on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, properties: Properties | None
    ) -> None:
        self.refusal = code if code.is_failure else None
        if not code.is_failure:
            self.limits = read_limits(properties, is_v5=client.protocol == MQTTProtocolVersion.MQTTv5)
            self.event.set()
            if self._topics:
                client.subscribe([(topic, min(SUBSCRIBE_QOS, self.limits.qos)) for topic in self._topics])
        self.answered.set()

    def on_disconnect(
        self, _client: mqtt.Client, _data: object, flags: mqtt.DisconnectFlags, code: ReasonCode, _props: object
    ) -> None:
        self.parting = str(code) if flags.is_disconnect_packet_from_server else ""
        if flags.is_disconnect_packet_from_server and code.value == SESSION_TAKEN_OVER:
            self.taken_over += 1
        self.event.clear()
        self.answered.set()  # who hangs up without a word is no broker: nothing to wait for


class BrokerClient(mqtt.Client):
    """Its network runs in a supervised thread; without `reconnects` that ends with the connection."""

    reconnects = True

    def start_network(self, supervisor: Supervisor, *, is_needed: bool, name: str = "network") -> None:
        """After `connect`. A process with two connections gives two names: work of a name that was done well has that
        name's failures forgotten.
        """
        # subtle: with this callback other threads leave the writing to the network's own, which they wake; without,
        # they write themselves, in between
        self.on_socket_register_write = lambda *_: None
        self._closing = threading.Event()
        self._network = supervisor.start(name, self._run_network, silent_s=SILENT_S, is_needed=is_needed)
        if not self.reconnects:
            self._network.let_end()

    def stop_network(self) -> None:
        self._network.stop(self._closing.set, ANSWER_WITHIN_S)

    def _run_network(self, supervised: Supervised) -> None:
        wait_s = RECONNECT_FROM_S
        while self._stay_connected(supervised) and not self._closing.is_set() and self.reconnects:
            with supervised.busy(wait_s + SILENT_S):
                self._closing.wait(wait_s)
            wait_s = RECONNECT_FROM_S if self._try_again(supervised) else min(2 * wait_s, RECONNECT_UP_TO_S)

    def _stay_connected(self, supervised: Supervised) -> bool:
        """Until the connection breaks, or `close_broker` has broken it; False if it does not break then."""
        end_s = math.inf
        while self._turn():
            supervised.beat()
            if self._closing.is_set():
                end_s = min(end_s, time.monotonic() + FAREWELL_WITHIN_S)
            if time.monotonic() > end_s:
                return False
        return True

    def _turn(self) -> bool:
        """False when the connection has broken. subtle: paho writes to itself to wake up, over a socket that fails like
        any other, and tells of that by an exception."""
        try:
            return self.loop(TURN_S) == mqtt.MQTT_ERR_SUCCESS
        except OSError:
            return False

    def _try_again(self, supervised: Supervised) -> bool:
        if self._closing.is_set():
            return False
        try:
            with supervised.busy(CONNECT_WITHIN_S):
                self.reconnect()
        except (OSError, ValueError):  # ValueError: of a name that cannot be one
            return False
        return True


def connect_broker(
    settings: BrokerSettings,
    client_id: str,
    *,
    will: Will | None = None,
    topics: Sequence[str] = (),
    session_s: int = 0,
    reconnects: bool = True,
    prepare: Callable[[mqtt.Client], None],
    supervisor: Supervisor = SUPERVISOR,
) -> tuple[BrokerClient, Connected]:
    """A connected client whose network thread runs and, where it `reconnects`, does so by itself until `close_broker`.

    What the broker does not take of a last will (MQTT 5.0, 3.2.2.3) is left out of it. It subscribes to `topics` at
    QoS 1. `prepare` sets callbacks before the first packet. The broker keeps what it owes this `client_id` for
    `session_s` after it has gone (with MQTT 3.1.1 as long as it likes, unless 0).
    Raises: InputError if no broker answers or it refuses us.
    """

    limits = _ask_limits(settings, client_id, supervisor)

    def prepare_with_will(client: mqtt.Client) -> None:
        if will and limits.takes(will.topic, will.payload):
            client.will_set(will.topic, will.payload, qos=min(1, limits.qos), retain=limits.retains)
        prepare(client)

    version = MQTTProtocolVersion.MQTTv5 if limits.is_v5 else MQTTProtocolVersion.MQTTv311
    client, connected = _connect_with(
        version,
        settings,
        client_id,
        topics,
        prepare_with_will,
        supervisor=supervisor,
        session_s=session_s,
        reconnects=reconnects,
    )
    if not connected.event.is_set():
        close_broker(client)
        raise _refused(settings, connected)
    return client, connected


def _ask_limits(settings: BrokerSettings, client_id: str, supervisor: Supervisor) -> Limits:
    """Ask with a plain CONNECT: some 3.1.1 brokers understand the refusal of MQTT 5, but not its last will. And what a
    last will may be stands in the answer alone.
    """
    version = MQTTProtocolVersion.MQTTv5
    probe, answer = _connect_with(version, settings, f"{client_id}-probe", (), lambda _: None, supervisor=supervisor)
    accepted = answer.event.is_set()
    close_broker(probe)
    if accepted:
        return answer.limits
    if answer.refusal is not None and answer.refusal.value == UNSUPPORTED_PROTOCOL_VERSION:
        return Limits(is_v5=False)
    raise _refused(settings, answer)


def close_broker(client: BrokerClient) -> None:
    client.disconnect()
    client.stop_network()


def _connect_with(
    version: MQTTProtocolVersion,
    settings: BrokerSettings,
    client_id: str,
    topics: Sequence[str],
    prepare: Callable[[mqtt.Client], None],
    *,
    supervisor: Supervisor,
    session_s: int = 0,
    reconnects: bool = True,
) -> tuple[BrokerClient, Connected]:
    is_v5 = version == MQTTProtocolVersion.MQTTv5
    is_clean = None if is_v5 else not session_s  # of a session of 3.1.1; MQTT 5 says it when connecting
    client = BrokerClient(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, clean_session=is_clean)
    client.reconnects = reconnects
    connected = Connected(topics)
    client.on_connect = connected.on_connect
    client.on_disconnect = connected.on_disconnect
    client.connect_timeout = ANSWER_WITHIN_S
    settings.credentials.apply(client)
    prepare(client)
    try:
        bounds = _bounds(session_s) if topics and is_v5 else None
        start = False if session_s and is_v5 else mqtt.MQTT_CLEAN_START_FIRST_ONLY
        client.connect(settings.host, settings.port, settings.keepalive_s, clean_start=start, properties=bounds)
    except ssl.SSLError as error:
        where = f"MQTT broker at {settings.host}:{settings.port}"
        raise InputError(f"{where} is not to be trusted ({error}): correct ca_file, or host and port") from None
    except (OSError, ValueError) as error:  # ValueError: of a name that cannot be one, such as "a..b"
        where = f"{'with TLS ' if settings.credentials.ca_file else ''}at {settings.host}:{settings.port}"
        raise InputError(f"no MQTT broker {where} ({error}): start one, or correct its address") from None
    client.start_network(supervisor, is_needed=True)
    connected.answered.wait(ANSWER_WITHIN_S)
    return client, connected


def _bounds(session_s: int) -> Properties:
    """Of what the broker may send us. subtle: a plain CONNECT has none, see `_ask_limits`."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = MAX_RECEIVED_BYTES
    if session_s:
        properties.SessionExpiryInterval = session_s
        properties.ReceiveMaximum = MAX_UNANSWERED
    return properties


def _refused(settings: BrokerSettings, connected: Connected) -> InputError:
    where = f"MQTT broker at {settings.host}:{settings.port}"
    if connected.refusal is None:
        has_tls = settings.credentials.ca_file is not None
        question = "does it take our certificate?" if has_tls else "is it an MQTT broker?"
        return InputError(f"{where} does not answer: {question}")
    return InputError(f"{where} refuses us ({connected.refusal}): check its listeners and access rules, and our user")
