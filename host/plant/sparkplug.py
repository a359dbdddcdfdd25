"""The Sparkplug dialect: lines become devices, verdicts and states their data, commands of the plant the line's."""

from __future__ import annotations

import time
from collections.abc import Callable

from host.aside import Aside
from host.plant.edge_node import Device, EdgeNode, Names, encode_ndeath, follow
from host.plant.inbox import Arrival, Inbox
from host.plant.link import Heard, Link
from host.plant.orders import Orders
from host.plant.payload import decode_command
from host.plant.primary_host import PrimaryHost
from host.plant.readings import count_values, decode_verdict_of, is_alive, state_values, time_ms
from host.plant.tags import REBIRTH, verdict_values
from host.plant.waiting import Parcel, Waiting
from protocol.broker import BrokerSettings, Will
from protocol.console import STDERR
from protocol.errors import InputError, MessageError
from protocol.messages import decode_json
from protocol.reports import LineState
from protocol.streams import HEALTH, RESULT, STATE, VERDICT, client_id, is_topic_level

RECONNECT_EVERY_S = 2.0
HEARD_WITHIN_S = 5.0  # our own NBIRTH, from the broker
HISTORICAL_AFTER_MS = 10_000  # older verdicts waited somewhere: in an outbox, in the broker's queue, here
MAX_LINES = 256  # what is named by a topic is bounded


class Sparkplug:
    """Owned by one thread."""

    def __init__(
        self,
        names: Names,
        broker: BrokerSettings,
        inbox: Inbox,
        *,
        host: PrimaryHost,
        orders: Orders | None,
        aside: Aside,
        names_in_data: bool = False,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`orders` None: the plant commands nothing."""
        self._names, self._broker, self._inbox = names, broker, inbox
        self._host, self._orders, self._clock_ms = host, orders, clock_ms
        self._node = EdgeNode(
            names, self._publish, clock_ms, is_commanded=orders is not None, names_in_data=names_in_data
        )
        self._alive: set[str] = set()
        self._newest_ms: dict[str, int] = {}  # of each line's latest verdict that was no history
        self._waiting = Waiting(inbox.acknowledge)
        self._refused, self._aside = 0, aside
        self._link: Link | None = None
        self._bd_seq = 0  # of the next CONNECT
        self._offered = 0  # of the last one
        self._retry_at_s = 0.0
        self._is_taken = False  # the broker has passed on what we say in this session
        self._born_at_s = 0.0
        self._complaint = ""

    def take(self, arrival: Arrival) -> None:
        """From a station. A verdict is acknowledged here, once the plant has it; what is none, once it is set aside."""
        try:
            self._take(arrival)
        except (MessageError, ValueError) as error:
            self._refused += 1
            if arrival.leaf == VERDICT.name:
                if self._aside.take(arrival.payload, str(error)):
                    self._inbox.acknowledge(arrival)
            else:
                self._complain(f"a message on {arrival.line}/{arrival.leaf} is refused: {error}")

    def turn(self) -> None:
        """Connect, listen to the plant, send what waits. Never waits for long."""
        self._connect_when_due()
        self._listen()
        if self._link and not self._link.is_open:
            self._lose("the plant's broker hung up")
        if self._link and self._node.is_born and not self._host.is_online:
            self._link.say_farewell()
            self._lose("the primary host is offline")
        if self._link and not self._node.is_born and self._host.is_online:
            self._give_birth()
        if self._node.is_born:
            self._settle()

    def close(self) -> None:
        if self._link:
            self._link.say_farewell()

    # ---- from the stations

    def _take(self, arrival: Arrival) -> None:
        """Raises: MessageError or ValueError."""
        device = self._device(arrival.line)
        if arrival.leaf == VERDICT.name:
            verdict = decode_verdict_of(arrival)
            self._waiting.take(verdict, arrival)
            if not (verdict.late or self._is_old(time_ms(verdict.time))):
                self._alive.add(device.name)  # subtle: not every broker gives us the state that it retains
        elif arrival.leaf == STATE.name:
            self._take_state(device, decode_json(LineState, arrival.payload))
        elif arrival.leaf == HEALTH.name:
            values, at_ms = count_values(arrival.payload)
            self._node.note_device(device, values, at_ms)
            self._alive.add(device.name)
        elif arrival.leaf == RESULT.name and self._orders:
            self._node.note_device(device, self._orders.read_answer(arrival.payload), self._clock_ms())

    def _take_state(self, device: Device, state: LineState) -> None:
        # subtle: the broker says `lost` in words, and with a time, that are as old as the connection
        at_ms = self._clock_ms() if state.state == "lost" else time_ms(state.time)
        self._node.note_device(device, state_values(state), at_ms)
        if is_alive(state):
            self._alive.add(device.name)
        else:
            self._alive.discard(device.name)

    def _device(self, line: str) -> Device:
        if line not in self._node.devices:
            if not is_topic_level(line) or len(self._node.devices) >= MAX_LINES:
                raise MessageError(f"line {line!r:.80} is one too many, or has no name for a device")
            if line.lower() in map(str.lower, self._node.devices):
                self._complain(f"line {line} has the name of another but for its case: rename one")
        return self._node.device(line)

    # ---- to the plant

    def _settle(self) -> None:
        """Everything that lives is born before its data; what waited goes; what died is buried."""
        living = self._living()
        for device in living:
            if not device.is_born:
                self._node.bear(device)
        self._hand_on_all()
        for device in self._node.devices.values():
            if device.is_born and device not in living:
                self._node.bury(device)
        self._node.note(
            {
                "Bridge/Lines": len(living),
                "Bridge/Duplicates dropped": self._waiting.duplicates,
                "Bridge/Messages refused": self._refused,
            }
        )
        if self._link:
            self._waiting.set_fence(self._link.fence)

    def _hand_on_all(self) -> None:
        """subtle: a broker whose rules forbid it drops what goes at QoS 0 without a word. Verdicts wait for the sign
        that it does not: our own NBIRTH, come back.
        """
        if self._is_taken:
            while (parcel := self._waiting.next()) is not None:
                self._hand_on(parcel)
        elif time.monotonic() - self._born_at_s > HEARD_WITHIN_S:
            topic = self._names.topic("NBIRTH")
            self._complain(f"the broker drops what the edge node says: correct its access rules, also to read {topic}")

    def _hand_on(self, parcel: Parcel) -> None:
        verdict = parcel.verdict
        device = self._node.device(verdict.line)
        if not device.is_born:  # its station is gone, and had more to say
            self._node.bear(device)
        at_ms = time_ms(verdict.time)
        if self._is_past(parcel, at_ms):
            self._node.report_past(device, verdict_values(verdict), at_ms)
        else:
            # a clock that was ahead for a while must not make history of all that follows
            self._newest_ms[device.name] = min(at_ms, self._clock_ms())
            self._node.note_device(device, verdict_values(verdict), at_ms)

    def _is_past(self, parcel: Parcel, at_ms: int) -> bool:
        """Whether it must not change the plant's picture of the present."""
        is_overtaken = at_ms < self._newest_ms.get(parcel.verdict.line, 0)
        return parcel.verdict.late or parcel.was_sent or self._is_old(at_ms) or is_overtaken

    def _is_old(self, at_ms: int) -> bool:
        return at_ms < self._clock_ms() - HISTORICAL_AFTER_MS

    def _living(self) -> list[Device]:
        """None while we hear of none."""
        if not self._inbox.connected.event.is_set():
            return []
        return [device for device in self._node.devices.values() if device.name in self._alive]

    def _publish(self, topic: str, payload: bytes) -> None:
        if self._link:
            self._link.publish(topic, payload)

    # ---- from the plant

    def _listen(self) -> None:
        while self._link and not self._link.heard.empty():
            heard = self._link.heard.get()
            try:
                self._hear(heard)
            except MessageError as error:
                self._refused += 1
                self._complain(f"a message of the plant is refused: {error}")

    def _hear(self, heard: Heard) -> None:
        """Raises: MessageError."""
        if not heard.topic:
            self._waiting.pass_fence(heard.fence)
        elif heard.topic == self._host.topic:
            self._host.note(heard.topic, heard.payload)
        elif heard.topic == self._names.topic("NBIRTH"):
            self._is_taken = True
        elif heard.topic == self._names.topic("NCMD"):
            self._obey_node_command(heard.payload)
        else:
            self._obey_device_command(heard.topic.rpartition("/")[2], heard.payload)

    def _obey_node_command(self, payload: bytes) -> None:
        for written in decode_command(payload):
            if written.name == REBIRTH.name and written.value is True and self._node.is_born:
                self._give_birth()

    def _obey_device_command(self, name: str, payload: bytes) -> None:
        device = self._node.devices.get(name)
        if device is None or self._orders is None:
            return
        for written in decode_command(payload):
            tag = device.tags.name_of(written.name, written.alias)
            order = self._orders.order(tag, written.value)
            if order:
                self._inbox.publish(self._orders.topic(name, order.command), order.payload)

    # ---- the session

    def _connect_when_due(self) -> None:
        if self._link or time.monotonic() < self._retry_at_s:
            return
        self._retry_at_s = time.monotonic() + RECONNECT_EVERY_S
        ndeath = Will(self._names.topic("NDEATH"), encode_ndeath(self._bd_seq, self._clock_ms()))
        topics = [self._names.topic("NCMD"), self._names.topic("NBIRTH")]
        if self._orders:
            topics.append(self._names.topic("DCMD", "+"))
        if self._host.topic:
            topics.append(self._host.topic)
        link = Link(client_id("edge-node", self._names.group, self._names.node), ndeath, topics)
        self._host.begin_session()
        try:
            link.open(self._broker)
            self._link = link
        except InputError as error:
            self._complain(str(error))
        if link.was_offered:
            self._bd_seq, self._offered = follow(self._bd_seq), self._bd_seq

    def _give_birth(self) -> None:
        self._complaint = ""
        self._born_at_s = time.monotonic()
        self._node.give_birth(self._offered, self._living())

    def _lose(self, reason: str) -> None:
        self._complain(reason)
        if self._link:
            self._link.close()
        self._link, self._is_taken = None, False
        self._node.lose()
        self._waiting.lose()

    def _complain(self, text: str) -> None:
        """Once, until something else is wrong."""
        if text != self._complaint:
            self._complaint = text
            STDERR.write(f"beltsight: {text}")
