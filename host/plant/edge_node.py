"""What a Sparkplug edge node says, in its order: births, deaths, data, each with the next sequence number.

It knows no broker: `publish(topic, payload)` sends at QoS 0, in order. SPARKPLUG.md says which test shows which rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from host.plant.payload import DataType, Metric, Value, encode_birth, encode_data
from host.plant.tags import ALIASES_EACH, BD_SEQ, CONTROL_TAGS, LINE_TAGS, NODE_TAGS, Tags
from protocol.strict import require

NAMESPACE = "spBv1.0"
SEQUENCE = 256  # sequence numbers, and birth-death numbers, count round through 0..255
Publish = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Names:
    """Who the edge node is."""

    group: str
    node: str

    def __post_init__(self) -> None:
        for key in ("group", "node"):
            require(is_sparkplug_id(getattr(self, key)), key, "must be printable, 1..64 long, without '/', '+' and '#'")

    def topic(self, message_type: str, device: str = "") -> str:
        """E.g. spBv1.0/plant/DDATA/beltsight/line1."""
        return "/".join((NAMESPACE, self.group, message_type, self.node, *([device] if device else [])))


def is_sparkplug_id(name: str) -> bool:
    return 0 < len(name) <= 64 and name.isprintable() and not set(name) & set("/+#")


def encode_ndeath(bd_seq: int, now_ms: int) -> bytes:
    """Of the session whose NBIRTH has the same number."""
    return encode_birth([Metric(BD_SEQ.name, DataType.INT64, bd_seq, now_ms)], None, None)


def follow(number: int) -> int:
    """The sequence number, or birth-death number, after this one."""
    return (number + 1) % SEQUENCE


class Device:
    def __init__(self, name: str, number: int, *, is_commanded: bool, now_ms: int) -> None:
        """`number` is 1, 2, … and gives the aliases, which no other device has."""
        self.name = name
        self.is_born = False
        tags = LINE_TAGS + (CONTROL_TAGS if is_commanded else ())
        self.tags = Tags(tags, number * ALIASES_EACH, now_ms)


class EdgeNode:
    """Owned by one thread. Values may be noted at any time; nothing is sent before `give_birth`, nor after `lose`."""

    def __init__(
        self,
        names: Names,
        publish: Publish,
        clock_ms: Callable[[], int],
        *,
        is_commanded: bool,
        names_in_data: bool = False,
    ) -> None:
        self.names, self._names_in_data = names, names_in_data
        self.is_born = False
        self.devices: dict[str, Device] = {}
        self._publish, self._clock_ms, self._is_commanded = publish, clock_ms, is_commanded
        self._tags = Tags(NODE_TAGS, 1, clock_ms())
        self._seq = 0

    def device(self, name: str) -> Device:
        """Known from the first call on."""
        if name not in self.devices:
            number = len(self.devices) + 1
            self.devices[name] = Device(name, number, is_commanded=self._is_commanded, now_ms=self._clock_ms())
        return self.devices[name]

    def give_birth(self, bd_seq: int, alive: list[Device]) -> None:
        """NBIRTH and a DBIRTH for each device that lives. Also what a rebirth is."""
        self._seq = 0
        self.is_born = True
        self._tags.update({BD_SEQ.name: bd_seq}, self._clock_ms())
        now_ms = self._clock_ms()
        self._publish(self.names.topic("NBIRTH"), encode_birth(self._tags.all(), now_ms, self._next_seq()))
        for device in self.devices.values():
            device.is_born = False
        for device in alive:
            self.bear(device)

    def bear(self, device: Device) -> None:
        """DBIRTH."""
        device.is_born = True
        payload = encode_birth(device.tags.all(), self._clock_ms(), self._next_seq())
        self._publish(self.names.topic("DBIRTH", device.name), payload)

    def bury(self, device: Device) -> None:
        """DDEATH."""
        device.is_born = False
        self._publish(self.names.topic("DDEATH", device.name), encode_data([], self._clock_ms(), self._next_seq()))

    def lose(self) -> None:
        """The connection is gone, and with it everything that was born."""
        self.is_born = False
        for device in self.devices.values():
            device.is_born = False

    def note(self, values: Mapping[str, Value]) -> None:
        """Of the edge node itself: an NDATA if it is news."""
        now_ms = self._clock_ms()
        news = self._tags.update(values, now_ms)
        if news and self.is_born:
            self._publish(self.names.topic("NDATA"), self._data(news, now_ms))

    def note_device(self, device: Device, values: Mapping[str, Value], timestamp_ms: int) -> None:
        """A DDATA if it is news."""
        self._send_data(device, device.tags.update(values, timestamp_ms))

    def report_past(self, device: Device, values: Mapping[str, Value], timestamp_ms: int) -> None:
        """A DDATA of what was then, whatever was said since."""
        self._send_data(device, device.tags.past(values, timestamp_ms))

    def _send_data(self, device: Device, metrics: list[Metric]) -> None:
        if metrics and device.is_born:
            self._publish(self.names.topic("DDATA", device.name), self._data(metrics, self._clock_ms()))

    def _data(self, metrics: list[Metric], now_ms: int) -> bytes:
        return encode_data(metrics, now_ms, self._next_seq(), names=self._names_in_data)

    def _next_seq(self) -> int:
        seq, self._seq = self._seq, follow(self._seq)
        return seq
