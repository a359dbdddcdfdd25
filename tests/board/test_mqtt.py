"""Verdicts over real brokers: an outage, a kill or a restart loses none, and a client that is not ours reads them."""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from board.outbox import Outbox
from board.sinks.mqtt import MAX_IN_FLIGHT, MqttSettings, MqttSink
from protocol.broker import BrokerSettings
from protocol.errors import InputError, SinkError
from protocol.messages import Frame, Trigger, Verdict, decode_verdict
from sim.station import LOOPBACK, free_port

WITHIN_S = 20.0
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
# amqtt sends new subscribers retained messages of other topics too, and resends across sessions
needs_mosquitto = pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def open_client(client_id: str) -> mqtt.Client:
    """With a session that the broker keeps."""
    version = MQTTProtocolVersion.MQTTv311  # every broker speaks it
    return mqtt.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False, protocol=version)


class Subscriber:
    """A plain client; what the broker keeps for it while it is away comes when it is back."""

    def __init__(self, port: int, topic: str, client_id: str, qos: int = 1) -> None:
        self.messages: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
        self._topic = topic
        self.subscribed = False
        self._client = open_client(client_id)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topic, qos=qos)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = lambda _client, _data, message: self.messages.put(message)
        self._client.connect(LOOPBACK, port)
        self._client.loop_start()
        wait_until(lambda: self.subscribed)

    def _on_subscribe(self, *_: object) -> None:
        self.subscribed = True

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def next(self) -> mqtt.MQTTMessage:
        return self.messages.get(timeout=WITHIN_S)

    def verdicts(self, count: int) -> list[Verdict]:
        """Until `count` different ones have come, in the order of their first arrival."""
        seen: dict[str, Verdict] = {}
        while len(seen) < count:
            verdict = decode_verdict(bytes(self.next().payload))
            seen.setdefault(verdict.event_id, verdict)
        return list(seen.values())


class MortalBroker:
    """Mosquitto that can be killed. The subscription is in its file before the test starts it, so that the test's
    subscriber misses nothing, whoever connects first."""

    def __init__(self, folder: Path, topic: str) -> None:
        self.settings = BrokerSettings(LOOPBACK, free_port())
        self._folder, self._topic = folder, topic
        (folder / "mosquitto.conf").write_text(
            f"listener {self.settings.port} {LOOPBACK}\nallow_anonymous true\n"
            f"persistence true\npersistence_location {folder}/\nuser root\n"
            "max_inflight_messages 0\n"  # it passes on what it acknowledges, and takes nothing with it into death
        )
        self.start()
        self.subscribe().close()
        self._process.terminate()  # writes its file
        self._process.wait(WITHIN_S)

    def start(self) -> None:
        with (self._folder / "mosquitto.log").open("ab") as log:
            command = [str(MOSQUITTO), "-c", str(self._folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._listens)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(WITHIN_S)

    def subscribe(self) -> Subscriber:
        return Subscriber(self.settings.port, self._topic, "subscriber")

    def read_along(self, subscriber: Subscriber) -> Subscriber:
        """A second reader into the same queue, that acknowledges nothing: what the broker sent before its death is read
        to the end, where the first reader hangs up as soon as an acknowledgement fails."""
        reader = Subscriber(self.settings.port, self._topic, "reader", qos=0)
        reader.messages = subscriber.messages
        return reader

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.settings.port), 1):
            return True
        return False


VERDICTS = "beltsight/plant/line1/verdict"
STATE = "beltsight/plant/line1/state"


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[MortalBroker]:
    if not MOSQUITTO:
        pytest.skip("mosquitto is not installed")
    broker = MortalBroker(tmp_path, VERDICTS)
    yield broker
    broker.kill()


@contextlib.contextmanager
def opened(folder: Path, broker: BrokerSettings, site: str = "plant", **settings: Any) -> Iterator[MqttSink]:
    """A sink whose outbox lies in `folder`; it starts without a broker."""
    how = MqttSettings(folder / "outbox.sqlite", broker_at_start="optional")
    sink = MqttSink(replace(how, **settings), broker, site, "line1", "trivial")
    try:
        yield sink
    finally:
        sink.close()


@contextlib.contextmanager
def subscribed(broker: BrokerSettings, topic: str) -> Iterator[Subscriber]:
    subscriber = Subscriber(broker.port, topic, f"subscriber-{topic}")
    try:
        yield subscriber
    finally:
        subscriber.close()


FRAME = Frame(Trigger("run", 0, 0, ""), None)


def publish(sink: MqttSink, sample: Verdict, numbers: Iterable[int]) -> None:
    for number in numbers:
        sink.publish(FRAME, replace(sample, event_id=f"event-{number}", part_id=number), None)


def part_ids(verdicts: list[Verdict]) -> list[int]:
    return [verdict.part_id for verdict in verdicts]


def stored(folder: Path) -> int:
    """What another program sees in the outbox's file."""
    with contextlib.closing(sqlite3.connect(folder / "outbox.sqlite")) as db:
        return int(db.execute("SELECT COUNT(*) FROM verdict").fetchone()[0])


# ---- a broker that is there (a site of its own for each test: they share the broker)


def test_verdicts_arrive_whole_and_in_order(tmp_path: Path, broker: BrokerSettings, verdict: Verdict) -> None:
    count = 3 * MAX_IN_FLIGHT
    with (
        subscribed(broker, "beltsight/order/line1/verdict") as subscriber,
        opened(tmp_path, broker, "order", broker_at_start="required") as sink,
    ):
        publish(sink, verdict, range(count))
        arrived = subscriber.verdicts(count)
    assert arrived == [replace(verdict, event_id=f"event-{i}", part_id=i) for i in range(count)]


def test_what_the_broker_acknowledged_is_deleted(tmp_path: Path, broker: BrokerSettings, verdict: Verdict) -> None:
    with opened(tmp_path, broker, "ack", broker_at_start="required") as sink:
        publish(sink, verdict, range(10))
        wait_until(lambda: sink.waiting == 0)
        assert stored(tmp_path) == 0


def test_closing_flushes(tmp_path: Path, broker: BrokerSettings, verdict: Verdict) -> None:
    with subscribed(broker, "beltsight/flush/line1/verdict") as subscriber:
        with opened(tmp_path, broker, "flush", broker_at_start="required", commit_every_ms=200) as sink:
            publish(sink, verdict, range(100))
        assert part_ids(subscriber.verdicts(100)) == list(range(100))
    assert stored(tmp_path) == 0


@needs_mosquitto
def test_the_state_is_retained_and_ends_as_stopped(tmp_path: Path, broker: BrokerSettings) -> None:
    topic = "beltsight/states/line1/state"

    def next_state(subscriber: Subscriber) -> tuple[str, str]:
        state = json.loads(subscriber.next().payload)
        assert set(state) == {"state", "reason", "model_id", "time"}
        return state["state"], state["reason"]

    with opened(tmp_path, broker, "states", broker_at_start="required") as sink:
        with subscribed(broker, topic) as early:
            assert next_state(early) == ("running", "")
            sink.set_state("degraded", "arm: broken")
            assert next_state(early) == ("degraded", "arm: broken")
        with subscribed(broker, topic) as late:
            message = late.next()
            assert message.retain
            assert json.loads(message.payload)["state"] == "degraded"
            sink.set_state("degraded", "arm: broken")
            sink.set_state("running", "")
            assert next_state(late) == ("running", ""), "the same state is not published twice"
    with subscribed(broker, topic) as after:
        assert next_state(after) == ("stopped", "switched off")


VANISHING_STATION = """
import sys, time
from pathlib import Path
from board.sinks.mqtt import MqttSettings, MqttSink
from protocol.broker import BrokerSettings
sink = MqttSink(MqttSettings(Path(sys.argv[1])), BrokerSettings(port=int(sys.argv[2])), "will", "line1", "trivial")
time.sleep(60)
"""


@needs_mosquitto
def test_a_killed_station_is_lost(tmp_path: Path, broker: BrokerSettings) -> None:
    with subscribed(broker, "beltsight/will/line1/state") as subscriber:
        command = [sys.executable, "-c", VANISHING_STATION, str(tmp_path / "outbox.sqlite"), str(broker.port)]
        with subprocess.Popen(command) as station:
            assert json.loads(subscriber.next().payload)["state"] == "running"
            station.kill()
        assert json.loads(subscriber.next().payload)["state"] == "lost"
    with subscribed(broker, "beltsight/will/+/state") as later:
        assert json.loads(later.next().payload)["state"] == "lost", "the last will is retained"


@needs_mosquitto
def test_health_is_published(tmp_path: Path, broker: BrokerSettings) -> None:
    with (
        subscribed(broker, "beltsight/well/line1/health") as subscriber,
        opened(tmp_path, broker, "well", broker_at_start="required") as sink,
    ):
        sink.publish_health({"parts": 3})
        assert json.loads(subscriber.next().payload) == {"parts": 3}


VERDICT_KEYS = set(Verdict.__dataclass_fields__)


@needs_mosquitto
def test_a_client_that_is_not_ours_reads_the_verdict(tmp_path: Path, broker: BrokerSettings, verdict: Verdict) -> None:
    program = shutil.which("mosquitto_sub")
    if not program:
        pytest.skip("mosquitto_sub is not installed")
    topic = "beltsight/alien/line1/verdict"
    client = [program, "-h", LOOPBACK, "-p", str(broker.port), "-q", "1", "-c", "-i", "alien", "-t", topic]
    subprocess.run([*client, "-E"], check=True, timeout=WITHIN_S)  # only subscribes; the broker keeps what comes
    with opened(tmp_path, broker, "alien", broker_at_start="required") as sink:
        publish(sink, verdict, [7])
    read = subprocess.run([*client, "-C", "1"], check=True, timeout=WITHIN_S, capture_output=True)
    content = json.loads(read.stdout)
    assert set(content) == VERDICT_KEYS
    assert content == {**asdict(verdict), "event_id": "event-7"}


# ---- a broker that is not


def test_an_absent_broker_says_what_to_do(tmp_path: Path, port: int) -> None:
    settings = MqttSettings(tmp_path / "outbox.sqlite")
    with pytest.raises(InputError, match=f"no MQTT broker at {LOOPBACK}:{port} .*: start one, or correct"):
        MqttSink(settings, BrokerSettings(LOOPBACK, port), "plant", "line1", "trivial")


@needs_mosquitto
def test_a_broker_that_comes_later_gets_everything_marked_as_late(
    tmp_path: Path, mortal: MortalBroker, verdict: Verdict
) -> None:
    count = 2 * MAX_IN_FLIGHT
    with opened(tmp_path, mortal.settings) as sink:
        publish(sink, verdict, range(count))
        wait_until(lambda: stored(tmp_path) == count)
        mortal.start()
        with contextlib.closing(mortal.subscribe()) as subscriber:
            arrived = subscriber.verdicts(count)
            publish(sink, verdict, [count])
            (fresh,) = subscriber.verdicts(1)
        wait_until(lambda: sink.waiting == 0)
    assert part_ids(arrived) == list(range(count))
    assert all(one.late for one in arrived)
    assert (fresh.part_id, fresh.late) == (count, False)


@needs_mosquitto
def test_a_broker_killed_while_verdicts_flow_loses_none(tmp_path: Path, mortal: MortalBroker, verdict: Verdict) -> None:
    mortal.start()
    subscriber = mortal.subscribe()
    reader = mortal.read_along(subscriber)
    with (
        contextlib.closing(subscriber),
        contextlib.closing(reader),
        opened(tmp_path, mortal.settings, broker_at_start="required") as sink,
    ):
        publish(sink, verdict, range(100))
        before = subscriber.verdicts(50)
        publish(sink, verdict, range(100, 200))
        mortal.kill()
        publish(sink, verdict, range(200, 300))
        wait_until(lambda: stored(tmp_path) >= 100)
        mortal.start()
        publish(sink, verdict, range(300, 310))
        once = {one.event_id: one for one in before}
        while len(once) < 310:  # some come twice
            one = decode_verdict(bytes(subscriber.next().payload))
            once.setdefault(one.event_id, one)
        wait_until(lambda: sink.waiting == 0)
    assert sorted(part_ids(list(once.values()))) == list(range(310))
    assert not any(once[f"event-{number}"].late for number in range(50))
    assert stored(tmp_path) == 0


def test_a_restarted_station_sends_what_the_last_one_could_not(
    tmp_path: Path, broker: BrokerSettings, port: int, verdict: Verdict
) -> None:
    with opened(tmp_path, BrokerSettings(LOOPBACK, port), "again") as sink:
        publish(sink, verdict, range(5))
    assert stored(tmp_path) == 5
    with (
        subscribed(broker, "beltsight/again/line1/verdict") as subscriber,
        opened(tmp_path, broker, "again", broker_at_start="required") as sink,
    ):
        publish(sink, verdict, [5])
        arrived = subscriber.verdicts(6)
    assert part_ids(arrived) == list(range(6))
    assert all(one.late for one in arrived[:5])


def test_a_full_outbox_stops_the_line(tmp_path: Path, port: int, verdict: Verdict) -> None:
    with opened(tmp_path, BrokerSettings(LOOPBACK, port), max_stored=3) as sink:
        publish(sink, verdict, range(3))
        for _ in range(2):
            with pytest.raises(SinkError, match="outbox is full with 3 verdicts: bring the broker back"):
                publish(sink, verdict, [3])
        wait_until(lambda: stored(tmp_path) == 3)
        assert sink.waiting == 3


@pytest.mark.parametrize("commit_every_ms", [0, 50])
def test_a_full_outbox_drops_the_oldest_where_that_is_wanted(
    tmp_path: Path, port: int, verdict: Verdict, commit_every_ms: int
) -> None:
    settings: dict[str, Any] = {"max_stored": 3, "when_full": "drop-oldest", "commit_every_ms": commit_every_ms}
    with opened(tmp_path, BrokerSettings(LOOPBACK, port), **settings) as sink:
        publish(sink, verdict, range(10))
        wait_until(lambda: sink.dropped == 7)
        assert sink.waiting == 3
    outbox = Outbox(tmp_path / "outbox.sqlite")
    assert [decode_verdict(entry.payload).part_id for entry in outbox.read_after(0, 10)] == [7, 8, 9]
    outbox.close()


def test_a_verdict_committed_at_once_is_in_the_file_when_publish_returns(
    tmp_path: Path, port: int, verdict: Verdict
) -> None:
    with opened(tmp_path, BrokerSettings(LOOPBACK, port), commit_every_ms=0) as sink:
        for number in range(5):
            publish(sink, verdict, [number])
            assert stored(tmp_path) == number + 1


def test_a_file_that_takes_no_verdict_refuses_the_next_ones_and_recovers(
    tmp_path: Path, port: int, verdict: Verdict
) -> None:
    with opened(tmp_path, BrokerSettings(LOOPBACK, port), commit_every_ms=1) as sink:
        other = sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        publish(sink, verdict, [0])
        wait_until(lambda: refuses(sink, verdict))
        other.close()
        wait_until(lambda: stored(tmp_path) >= 1)
        wait_until(lambda: not refuses(sink, verdict))


def refuses(sink: MqttSink, verdict: Verdict) -> bool:
    try:
        publish(sink, verdict, [1])
    except SinkError as error:
        return "database is locked" in str(error)
    return False


def test_closing_without_a_broker_does_not_wait(tmp_path: Path, port: int, verdict: Verdict) -> None:
    with opened(tmp_path, BrokerSettings(LOOPBACK, port)) as sink:
        publish(sink, verdict, [0])
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 2


def test_an_address_that_never_answers_does_not_hold_up_the_outbox(tmp_path: Path, verdict: Verdict) -> None:
    """A listener that accepts and says nothing: verdicts are stored all the same, within a fraction of the attempt."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = MqttSettings(outbox=tmp_path / "outbox.sqlite", commit_every_ms=0, broker_at_start="optional")
        broker = BrokerSettings(port=silent.getsockname()[1])
        sink = MqttSink(settings, broker, "plant", "line1", "model")
        try:
            time.sleep(0.1)  # the attempt has begun
            started_s = time.monotonic()
            sink.publish(FRAME, verdict, None)  # returns once it is stored
            assert time.monotonic() - started_s < 1.0
        finally:
            sink.close()
