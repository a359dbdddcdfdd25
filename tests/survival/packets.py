"""MQTT as it stands on the wire, for who listens in: which PUBLISH went out, and which was acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocol.errors import InputError
from protocol.messages import decode_verdict

CONNECT, PUBLISH, PUBACK = 1, 3, 4  # MQTT 5.0, table 2-1
MQTT_5 = 5
FIRST_FAILURE = 0x80  # of the reason codes


@dataclass(frozen=True)
class Publish:
    message_id: int | None  # None at QoS 0
    topic: str
    payload: bytes


def read_varint(data: bytes, at: int) -> tuple[int, int] | None:
    """Number and the place behind it; None if it is not all there."""
    value = 0
    for index in range(4):
        if at + index >= len(data):
            return None
        value |= (data[at + index] & 0x7F) << (7 * index)
        if not data[at + index] & 0x80:
            return value, at + index + 1
    raise ValueError("no MQTT: a length of more than four bytes")


class Packets:
    """The packets of one direction of a connection, out of the chunks of a stream."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """First byte and content of each packet that is complete."""
        self._rest += data
        while (length := read_varint(self._rest, 1)) and len(self._rest) >= sum(length):
            size, begin = length
            first, content = self._rest[0], self._rest[begin : begin + size]
            self._rest = self._rest[begin + size :]
            yield first, content


def decode_publish(first: int, content: bytes, *, is_mqtt_5: bool) -> Publish:
    at = 2 + int.from_bytes(content[:2], "big")
    topic, message_id = content[2:at].decode(), None
    if first & 0b110:  # QoS 1 or 2
        message_id, at = int.from_bytes(content[at : at + 2], "big"), at + 2
    properties = read_varint(content, at) if is_mqtt_5 else None
    if properties:
        at = sum(properties)
    return Publish(message_id, topic, content[at:])


class Witness:
    """Hears a station's link (`board` side towards the broker): the events it published, and those acknowledged.

    Given to a `sim.relay.Relay` as its listener. It speaks MQTT 5, as the station does with mosquitto.
    """

    def __init__(self) -> None:
        self.published: set[str] = set()
        self.acknowledged: set[str] = set()
        self._streams: dict[tuple[int, bool], Packets] = {}
        self._waiting: dict[tuple[int, int], str] = {}  # connection and message id → event

    def __call__(self, connection: int, towards_broker: bool, data: bytes) -> None:
        for first, content in self._streams.setdefault((connection, towards_broker), Packets()).feed(data):
            if towards_broker and first >> 4 == PUBLISH:
                self._note_published(connection, decode_publish(first, content, is_mqtt_5=True))
            if not towards_broker and first >> 4 == PUBACK:
                self._note_acknowledged(connection, content)

    def _note_published(self, connection: int, publish: Publish) -> None:
        if publish.topic.endswith("/verdict") and publish.message_id is not None:
            event = event_of(publish.payload)
            self._waiting[connection, publish.message_id] = event
            self.published.add(event)

    def _note_acknowledged(self, connection: int, content: bytes) -> None:
        event = self._waiting.pop((connection, int.from_bytes(content[:2], "big")), None)
        is_refusal = len(content) > 2 and content[2] >= FIRST_FAILURE
        if event is not None and not is_refusal:
            self.acknowledged.add(event)


class Waiting:
    """How many messages of QoS 1 and 2 a client had on their way at most, over any one connection: MQTT 5 has brokers
    end that of a client with more than their Receive Maximum (3.3.4), though mosquitto lets it pass.
    """

    def __init__(self) -> None:
        self.most = 0
        self._ids: dict[int, set[int]] = {}
        self._streams: dict[tuple[int, bool], Packets] = {}

    def __call__(self, connection: int, towards_broker: bool, data: bytes) -> None:
        ids = self._ids.setdefault(connection, set())
        for first, content in self._streams.setdefault((connection, towards_broker), Packets()).feed(data):
            if towards_broker and first >> 4 == PUBLISH:
                message_id = decode_publish(first, content, is_mqtt_5=True).message_id
                ids |= set() if message_id is None else {message_id}
                self.most = max(self.most, len(ids))
            if not towards_broker and first >> 4 == PUBACK:
                ids.discard(int.from_bytes(content[:2], "big"))


def event_of(payload: bytes) -> str:
    try:
        return decode_verdict(payload).event_id
    except InputError as error:
        raise ValueError(f"no verdict on the verdict topic: {error}") from None
