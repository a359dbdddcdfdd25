"""A plant around the bridge: its process, a host application, a line and its messages, and what was on the wire."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, ClassVar

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from protocol.messages import Verdict, encode_verdict
from protocol.reports import LineCondition, LineState
from sim.station import LOOPBACK, ROOT
from tests.examples import VERDICT
from tests.survival.packets import Packets

WITHIN_S = 40.0
GROUP, NODE, SITE = "Works 1", "beltsight-plant", "plant"
Report = dict[str, Any]


def rfc3339(at_s: float) -> str:
    """UTC, with milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + f".{int(at_s % 1 * 1000):03d}Z"


def wait_until(condition: Callable[[], object], what: str = "") -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)


class Child:
    """A process whose lines are read as they come. Those in `alive` were not ended."""

    alive: ClassVar[set[Child]] = set()

    def __init__(self, command: list[str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
        self.alive.add(self)
        self.lines: list[str] = []
        self.complaints: list[str] = []
        self._threads = [
            self._follow(self.process.stdout, self.lines),
            self._follow(self.process.stderr, self.complaints),
        ]

    def write(self, content: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(content) + "\n")
        self.process.stdin.flush()

    def end(self) -> int:
        self.process.terminate()
        code = self.process.wait(WITHIN_S)
        self._release()
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WITHIN_S)
        self._release()

    def _release(self) -> None:
        self.alive.discard(self)
        for thread in self._threads:
            thread.join(WITHIN_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                if pipe:
                    pipe.close()

    @staticmethod
    def _follow(pipe: IO[str] | None, lines: list[str]) -> threading.Thread:
        def follow() -> None:
            for line in pipe or ():
                lines.append(line.rstrip("\n"))

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        return thread


class HostApplication(Child):
    """`host_application.py`, and what it got."""

    def __init__(self, python: Path, port: int, host_id: str = "scada") -> None:
        super().__init__([str(python), str(ROOT / "tests/host/plant/host_application.py"), str(port), GROUP, host_id])
        wait_until(lambda: self.lines or self.process.poll() is not None, "the host application starts")
        assert self.lines, "\n".join(self.complaints)

    @property
    def messages(self) -> list[Report]:
        return [json.loads(line) for line in self.lines[1:]]

    def of(self, kind: str, device: str = "") -> list[Report]:
        """Messages of one type and device, in the order of arrival."""
        topic = "/".join(("spBv1.0", GROUP, kind, NODE, *([device] if device else [])))
        return [message for message in self.messages if message["topic"] == topic]

    def wait_for(self, kind: str, count: int = 1, device: str = "") -> list[Report]:
        wait_until(lambda: len(self.of(kind, device)) >= count, f"{count} {kind} of {device or NODE}")
        return self.of(kind, device)

    def wait_for_part(self, part_id: int, device: str = "line1") -> None:
        wait_until(lambda: part_id in parts_of(self.of("DDATA", device)), f"part {part_id}")

    def announce(self, **state: Any) -> None:
        """STATE: `online`, and if need be `timestamp` and `host`."""
        self.write(state)

    def command(self, **order: Any) -> None:
        """`name` or `alias`, `value`, `datatype`; with `device` a DCMD."""
        self.write({"node": NODE, **order})


def values_of(message: Report) -> dict[str, Any]:
    """Name → value, as pysparkplug reads it."""
    return {metric["name"]: metric["value"] for metric in message["metrics"]}


def parts_of(messages: list[Report]) -> list[int]:
    """Part ids of the verdicts among them."""
    return [values["Verdict/Part ID"] for values in map(values_of, messages) if "Verdict/Part ID" in values]


def is_past(message: Report) -> bool:
    return all(metric["is_historical"] for metric in message["metrics"])


def start_bridge(port: int, *options: str) -> Child:
    """Its subscriptions are there when it returns."""
    command = [sys.executable, "-m", "host.plant", "--site", SITE, "--broker", f"{LOOPBACK}:{port}"]
    command += ["--folder", str(ROOT / "build" / "plant-tests"), *options]
    bridge = Child(command)
    wait_until(lambda: bridge.lines or bridge.process.poll() is not None, "the bridge starts")
    assert bridge.lines, "\n".join(bridge.complaints)
    return bridge


class Station:
    """A line's messages, as `board/run.py` sends them."""

    def __init__(self, port: int, line: str = "line1") -> None:
        self.line = line
        self._sent = 0
        self.commands: list[tuple[str, Report]] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topic("cmd/+"), qos=1)
        self._client.on_message = lambda _client, _data, message: self.commands.append(
            (message.topic.rpartition("/")[2], json.loads(message.payload or b"{}"))
        )
        self._client.connect(LOOPBACK, port)
        self._client.loop_start()
        wait_until(self._client.is_connected)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # no ring of references: paho closes its own sockets when nobody knows it any more
        self._client.on_connect = self._client.on_message = None

    def say(self, leaf: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        self.send(self._topic(leaf), payload, retain=retain, qos=qos)

    def send(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        self._client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(WITHIN_S)

    def is_in(self, state: LineCondition, reason: str = "") -> None:
        content = asdict(LineState(state, reason, "trivial", rfc3339(time.time())))
        self.say("state", json.dumps(content).encode(), retain=True)

    def reports(self, **counts: Any) -> None:
        self.say("health", json.dumps({"time": rfc3339(time.time()), **counts}).encode(), qos=0)

    def judges(self, part_id: int, **changes: Any) -> Verdict:
        """Published at QoS 1, as the outbox does."""
        verdict = replace(
            VERDICT,
            site=SITE,
            line=self.line,
            part_id=part_id,
            event_id=f"{self.line}-{part_id}",
            score=part_id / 8,
            time=rfc3339(time.time()),
        )
        verdict = replace(verdict, **changes)
        self.say("verdict", encode_verdict(verdict))
        return verdict

    def _topic(self, leaf: str) -> str:
        return f"beltsight/{SITE}/{self.line}/{leaf}"


@dataclass(frozen=True)
class Connect:
    """What an MQTT 3.1.1 CONNECT packet says (3.1)."""

    client_id: str
    level: int
    is_clean: bool
    will_qos: int
    is_will_retained: bool
    will_topic: str
    will: bytes


def decode_connect(content: bytes) -> Connect:
    level, flags = content[6], content[7]
    fields, at = [], 10
    while at < len(content):
        size = int.from_bytes(content[at : at + 2], "big")
        fields.append(content[at + 2 : at + 2 + size])
        at += 2 + size
    client_id, topic, will = [*fields, b"", b""][:3]
    return Connect(client_id.decode(), level, bool(flags & 2), flags >> 3 & 3, bool(flags & 32), topic.decode(), will)


CONNECT, PUBLISH, SUBSCRIBE, DISCONNECT = 1, 3, 8, 14
MQTT_3_1_1 = 4


@dataclass
class Wire:
    """What the edge node's connections sent, in order: given to a `sim.relay.Relay` as its listener."""

    sent: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)  # connection → packets
    _streams: dict[int, Packets] = field(default_factory=dict)

    def __call__(self, connection: int, towards_broker: bool, data: bytes) -> None:
        if towards_broker:
            packets = self._streams.setdefault(connection, Packets()).feed(data)
            self.sent.setdefault(connection, []).extend(packets)

    def sessions(self) -> Iterator[list[tuple[int, bytes]]]:
        """Packets of each connection of the edge node, which is the one that speaks MQTT 3.1.1."""
        for _, packets in sorted(self.sent.items()):
            first, content = packets[0]
            if first >> 4 == CONNECT and content[6] == MQTT_3_1_1:
                yield packets
