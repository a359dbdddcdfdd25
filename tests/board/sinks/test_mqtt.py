"""Verdicts over real brokers: an outage, a kill or a restart loses none, and a client that is not ours reads them."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from board.records.outbox import Item, Outbox
from board.seams import LastPart
from board.sinks.delivery import MAX_IN_FLIGHT, MAX_LATE_IN_FLIGHT, Delivery
from board.sinks.link import BrokerLink
from board.sinks.mqtt import MqttSettings, MqttSink
from protocol.broker import BrokerSettings
from protocol.drift import DriftReport, decode_drift
from protocol.errors import InputError, SinkError
from protocol.messages import Frame, Trigger, Verdict, decode_verdict, encode_verdict
from protocol.supervision import SUPERVISOR, Supervised
from sim.relay import Relay
from sim.station import LOOPBACK
from tests.survival.broker import ANYTHING, MOSQUITTO, WITHIN_S, MortalBroker, Subscriber, wait_until
from tests.survival.packets import Waiting, Witness, event_of

# amqtt sends new subscribers retained messages of other topics too, and resends across sessions
needs_mosquitto = pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")


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
        sink.require_broker()
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


def refused(sink: MqttSink) -> int:
    return int(str(sink.counters()["refused_by_broker"]))


def part_ids(verdicts: list[Verdict]) -> list[int]:
    return [verdict.part_id for verdict in verdicts]


def stored(folder: Path) -> int:
    """What another program sees in the outbox's file."""
    with contextlib.closing(sqlite3.connect(folder / "outbox.sqlite")) as db:
        return int(db.execute("SELECT COUNT(*) FROM verdict").fetchone()[0])


def stored_events(folder: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(folder / "outbox.sqlite")) as db:
        return {event_of(payload) for (payload,) in db.execute("SELECT payload FROM verdict")}


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
        wait_until(lambda: stored(tmp_path) == 0)


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
        assert set(state) == {"state", "reason", "model_id", "time", "manifest_sha256", "signed_by"}
        return state["state"], state["reason"]

    with opened(tmp_path, broker, "states", broker_at_start="required") as sink:
        with subscribed(broker, topic) as early:
            assert next_state(early) == ("stopped", "starting")
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
from board.sinks.link import BrokerLink
from board.sinks.mqtt import MqttSettings, MqttSink
from protocol.broker import BrokerSettings
sink = MqttSink(MqttSettings(Path(sys.argv[1])), BrokerSettings(port=int(sys.argv[2])), "will", "line1", "trivial")
sink.require_broker()
time.sleep(60)
"""


@needs_mosquitto
def test_a_killed_station_is_lost(tmp_path: Path, broker: BrokerSettings) -> None:
    with subscribed(broker, "beltsight/will/line1/state") as subscriber:
        command = [sys.executable, "-c", VANISHING_STATION, str(tmp_path / "outbox.sqlite"), str(broker.port)]
        with subprocess.Popen(command) as station:
            assert json.loads(subscriber.next().payload)["state"] == "stopped"
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
    where = BrokerSettings(LOOPBACK, port)
    with (
        pytest.raises(InputError, match=f"no MQTT broker at {LOOPBACK}:{port} .*: start one, or correct"),
        opened(tmp_path, where, broker_at_start="required"),
    ):
        pass


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
    """The outbox lets go only what was acknowledged on the wire; the broker alone may lose, and only what it had
    acknowledged before it was killed."""
    mortal.start()
    witness = Witness()
    with (
        contextlib.closing(Relay(mortal.settings.port, listener=witness)) as relay,
        contextlib.closing(mortal.subscribe()) as subscriber,
        contextlib.closing(mortal.read_along()) as reader,
        opened(tmp_path, BrokerSettings(LOOPBACK, relay.port), broker_at_start="required") as sink,
    ):
        publish(sink, verdict, range(100))
        before = subscriber.verdicts(50)
        publish(sink, verdict, range(100, 200))
        mortal.kill()
        publish(sink, verdict, range(200, 300))
        wait_until(lambda: "event-299" in stored_events(tmp_path))
        kept, let_go = stored_events(tmp_path), set(witness.acknowledged)
        mortal.start()
        publish(sink, verdict, range(300, 310))
        wait_until(lambda: sink.waiting == 0)
        publish(sink, verdict, [310])  # the broker passes it on after all others
        arrived = {one.event_id for one in before + subscriber.until("event-310") + reader.until_now()}
    everything = {f"event-{number}" for number in range(311)}
    assert everything - let_go - {f"event-{number}" for number in range(300, 311)} <= kept
    assert everything - arrived <= let_go
    assert not any(one.late for one in before)
    assert stored(tmp_path) == 0


@needs_mosquitto
def test_a_broker_that_restarts_keeps_what_comes_before_its_subscriber(
    tmp_path: Path, mortal: MortalBroker, verdict: Verdict
) -> None:
    """An order of reconnection that the test before this one leaves to chance."""
    with opened(tmp_path, mortal.settings) as sink:
        publish(sink, verdict, range(100))
        wait_until(lambda: stored(tmp_path) == 100)
        mortal.start()
        wait_until(lambda: sink.waiting == 0)
        with contextlib.closing(mortal.subscribe()) as subscriber:
            assert part_ids(subscriber.verdicts(100)) == list(range(100))


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
        assert sink.last_part == LastPart("run", 4)
        publish(sink, verdict, [5])
        arrived = subscriber.verdicts(6)
    assert part_ids([one for one in arrived if one.late]) == list(range(5))
    assert part_ids([one for one in arrived if not one.late]) == [5], "it need not wait for the others"


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
        numbers = iter(range(1, 100_000))
        wait_until(lambda: refuses(sink, verdict, next(numbers)))
        assert "database is locked" in sink.complaint
        other.close()
        wait_until(lambda: not refuses(sink, verdict, next(numbers)))
        wait_until(lambda: "locked" not in sink.complaint and stored(tmp_path) == sink.waiting)
    outbox = Outbox(tmp_path / "outbox.sqlite")
    kept = [decode_verdict(entry.payload).part_id for entry in outbox.read_after(0, 100_000)]
    assert kept == sorted(set(kept)), "in order, and each once"
    assert outbox.last_part == LastPart("run", kept[-1])
    outbox.close()


def refuses(sink: MqttSink, verdict: Verdict, number: int) -> bool:
    try:
        publish(sink, verdict, [number])
    except SinkError as error:
        return "database is locked" in str(error)
    return False


def test_a_verdict_that_could_not_be_committed_at_once_is_not_stored_twice(
    tmp_path: Path, port: int, verdict: Verdict
) -> None:
    """The line hands it over again until it is on the disk."""
    with opened(tmp_path, BrokerSettings(LOOPBACK, port), commit_every_ms=0) as sink:
        other = sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        wait_until(lambda: refuses(sink, verdict, 0))
        other.close()
        wait_until(lambda: not refuses(sink, verdict, 0))
        wait_until(lambda: stored(tmp_path) == 1)
        time.sleep(0.1)
        assert stored(tmp_path) == sink.waiting == 1


@needs_mosquitto
def test_a_verdict_that_the_broker_refuses_is_kept_and_sent_again(
    tmp_path: Path, mortal: MortalBroker, verdict: Verdict
) -> None:
    """MQTT 5 acknowledges also what the access rules forbid, with a code that says so."""
    mortal.allow("topic readwrite nothing/#")
    mortal.start()
    with opened(tmp_path, mortal.settings, broker_at_start="required") as sink:
        publish(sink, verdict, range(3))
        wait_until(lambda: refused(sink) >= 3)
        assert (sink.waiting, stored(tmp_path)) == (3, 3)
        assert "refuses verdicts (Not authorized)" in sink.complaint
        mortal.allow(ANYTHING)
        with contextlib.closing(mortal.subscribe()) as subscriber:
            arrived = subscriber.verdicts(3)
        wait_until(lambda: sink.waiting == 0)
    assert part_ids(arrived) == [0, 1, 2]
    assert all(one.late for one in arrived)


@needs_mosquitto
def test_a_replay_is_paced_and_leaves_room_for_fresh_verdicts(
    tmp_path: Path, mortal: MortalBroker, verdict: Verdict
) -> None:
    with opened(tmp_path, mortal.settings, replay_per_s=40.0) as sink:
        publish(sink, verdict, range(100))
        wait_until(lambda: stored(tmp_path) == 100)
        mortal.start()
        with contextlib.closing(mortal.subscribe()) as subscriber:
            first = subscriber.verdicts(1)
            started_s = time.monotonic()
            publish(sink, verdict, [100])
            arrived = first + subscriber.verdicts(100)
            lasted_s = time.monotonic() - started_s
    late = part_ids([one for one in arrived if one.late])
    assert late == list(range(100))
    assert part_ids(arrived).index(100) < 60, "it overtook the rest of the 100"
    assert lasted_s > (100 - 2 * MAX_LATE_IN_FLIGHT) / 40


def test_counters_name_what_was_lost(tmp_path: Path, port: int, verdict: Verdict) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(b"no database" * 100)
    with opened(tmp_path, BrokerSettings(LOOPBACK, port), max_stored=2, when_full="drop-oldest") as sink:
        publish(sink, verdict, range(5))
        wait_until(lambda: sink.dropped == 3)
        assert sink.counters() == {
            "unacknowledged": 2,
            "dropped_verdicts": 3,
            "refused_by_broker": 0,
            "dropped_commands": 0,
            "damaged_outbox": str(tmp_path / "outbox.sqlite.damaged-1"),
            "set_aside": 0,
            "set_aside_file": "",
            "taken_over": 0,
        }
        assert sink.complaint == "outbox is full, verdicts are dropped: bring the broker back"


# ---- a broker that takes less than others


@contextlib.contextmanager
def limited(folder: Path, *lines: str) -> Iterator[MortalBroker]:
    if not MOSQUITTO:
        pytest.skip("mosquitto is not installed")
    broker = MortalBroker(folder, VERDICTS, "\n".join(lines))
    try:
        yield broker
    finally:
        broker.kill()


@pytest.mark.parametrize("receive_maximum", [1, 10])
def test_a_broker_that_takes_few_at_once_gets_them_all(tmp_path: Path, verdict: Verdict, receive_maximum: int) -> None:
    count, waiting = 3 * MAX_IN_FLIGHT, Waiting()
    with (
        limited(tmp_path, f"max_inflight_messages {receive_maximum}") as mortal,
        contextlib.closing(Relay(mortal.settings.port, listener=waiting)) as relay,
        opened(tmp_path, BrokerSettings(LOOPBACK, relay.port)) as sink,
    ):
        publish(sink, verdict, range(count))
        wait_until(lambda: stored(tmp_path) == count)
        mortal.start()
        with contextlib.closing(mortal.subscribe()) as subscriber:
            publish(sink, verdict, range(count, count + 5))
            for number in range(20):
                sink.set_state("degraded", f"reason {number}")
            arrived = subscriber.verdicts(count + 5)
        wait_until(lambda: sink.waiting == 0)
    assert sorted(part_ids(arrived)) == list(range(count + 5))
    assert waiting.most <= receive_maximum


def test_a_verdict_too_long_for_the_broker_is_set_aside_and_the_others_go_on(tmp_path: Path, verdict: Verdict) -> None:
    with limited(tmp_path, "max_packet_size 1200") as mortal, opened(tmp_path, mortal.settings) as sink:
        publish(sink, verdict, range(20))
        publish(sink, replace(verdict, reason="x" * 1500), [20])
        publish(sink, verdict, range(21, 60))
        mortal.start()
        with contextlib.closing(mortal.subscribe()) as subscriber:
            arrived = subscriber.verdicts(59)
        wait_until(lambda: sink.waiting == 0)
        aside = tmp_path / "outbox.sqlite.set-aside.jsonl"
        assert sink.complaint == f"verdicts that this broker cannot be sent are in {aside}: raise its limits"
        assert (sink.counters()["set_aside"], sink.counters()["set_aside_file"]) == (1, str(aside))
    assert sorted(part_ids(arrived)) == [*range(20), *range(21, 60)]
    (line,) = aside.read_text().splitlines()
    entry = json.loads(line)
    assert entry["reason"].startswith("too long for the broker (")
    assert decode_verdict(json.dumps(entry["verdict"]).encode()).part_id == 20
    with opened(tmp_path, mortal.settings) as sink:
        assert sink.counters()["set_aside"] == 1, "counted until somebody takes the file away"


def test_a_report_too_long_for_the_broker_costs_no_connection(tmp_path: Path, verdict: Verdict) -> None:
    """It would end that of a client that sends it (MQTT 5.0, 3.2.2.3.6)."""
    with limited(tmp_path, "max_packet_size 1200") as mortal, opened(tmp_path, mortal.settings) as sink:
        mortal.start()
        wait_until(lambda: sink.complaint == "" and sink._link.is_up)
        sink.publish_health({"stages_ms": "x" * 2000})
        sink.set_state("degraded", "y" * 2000)
        publish(sink, verdict, range(5))
        wait_until(lambda: sink.waiting == 0)
        assert sink.complaint.startswith("the broker takes 1200 bytes a packet")
        assert sink._link.connections == 1


def test_a_verdict_that_can_be_put_nowhere_stays_and_holds_up_no_other(tmp_path: Path, verdict: Verdict) -> None:
    (tmp_path / "outbox.sqlite.set-aside.jsonl").mkdir()
    with limited(tmp_path, "max_packet_size 1200") as mortal, opened(tmp_path, mortal.settings) as sink:
        mortal.start()
        publish(sink, replace(verdict, reason="x" * 1500), [0])
        publish(sink, verdict, [1])
        wait_until(lambda: sink.waiting == 1)
        assert "set-aside.jsonl" in sink.complaint
    assert stored_events(tmp_path) == {"event-0"}


def test_a_broker_without_acknowledgements_and_retained_messages_is_spoken_to(tmp_path: Path, verdict: Verdict) -> None:
    limits = ("max_qos 0", "retain_available false")
    with limited(tmp_path, *limits) as mortal, opened(tmp_path, mortal.settings) as sink:
        mortal.start()
        with contextlib.closing(mortal.subscribe()) as subscriber:
            wait_until(lambda: "Maximum QoS 0" in sink.complaint)
            publish(sink, verdict, range(5))
            assert part_ids(subscriber.verdicts(5)) == list(range(5))
        wait_until(lambda: sink.waiting == 0)


def test_a_broker_that_hangs_up_on_one_verdict_gets_the_others(
    tmp_path: Path, broker: BrokerSettings, verdict: Verdict
) -> None:
    """As one does that has a limit, and does not say it."""

    def hang_up(_number: int, towards_broker: bool, data: bytes) -> None:
        if towards_broker and b"too long" in data:
            relay.cut()

    with (
        contextlib.closing(Relay(broker.port, listener=hang_up)) as relay,
        subscribed(broker, "beltsight/poison/line1/verdict") as subscriber,
        opened(tmp_path, BrokerSettings(LOOPBACK, relay.port), "poison", broker_at_start="required") as sink,
    ):
        publish(sink, verdict, range(3))
        publish(sink, replace(verdict, reason="too long"), [3])
        publish(sink, verdict, range(4, 10))
        arrived = subscriber.verdicts(9)
        wait_until(lambda: sink.waiting == 0)
    assert sorted(part_ids(arrived)) == [0, 1, 2, *range(4, 10)]
    (line,) = (tmp_path / "outbox.sqlite.set-aside.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"].startswith("the broker hangs up on it")


@needs_mosquitto
def test_two_stations_of_one_line_say_so(tmp_path: Path, broker: BrokerSettings) -> None:
    with (
        opened(tmp_path / "a", broker, "twice", broker_at_start="required") as first,
        opened(tmp_path / "b", broker, "twice", broker_at_start="required") as second,
    ):
        # newer brokers say why they end a connection
        wait_until(lambda: "beltsight-station-twice-line1-" in first.complaint)
        wait_until(lambda: "beltsight-station-twice-line1-" in second.complaint)


def test_a_broker_that_says_so_is_understood(tmp_path: Path) -> None:
    """MQTT 5: CONNACK, then DISCONNECT with "session taken over"; the first connection asks for limits alone."""
    with socket.create_server((LOOPBACK, 0)) as server:

        def serve(_: Supervised) -> None:
            for farewell in (b"", b"\xe0\x01\x8e"):
                caller, _address = server.accept()
                with caller:
                    caller.recv(1000)
                    caller.sendall(b"\x20\x03\0\0\0")
                    caller.settimeout(2.0)
                    with contextlib.suppress(TimeoutError):
                        caller.recv(1000)  # subtle: what is said before the connection stands is a refusal
                    caller.sendall(farewell)
                    with contextlib.suppress(TimeoutError):
                        caller.recv(1000)

        thread = SUPERVISOR.start("broker", serve, silent_s=None, is_once=True)
        with opened(tmp_path, BrokerSettings(LOOPBACK, server.getsockname()[1])) as sink:
            wait_until(lambda: sink.complaint.startswith("another client came as beltsight-station-plant-line1-"))
            assert sink.counters()["taken_over"] == 1
        assert thread.wait(WITHIN_S)


def test_names_with_hyphens_are_two_clients(broker: BrokerSettings) -> None:
    lines = (("works", "north-1"), ("works-north", "1"))
    links = [BrokerLink(broker, site, line, obeys=False, last_state=lambda: b"") for site, line in lines]
    assert links[0].client_id != links[1].client_id


def test_a_broker_that_goes_is_said_within_a_second(tmp_path: Path, mortal: MortalBroker) -> None:
    mortal.start()
    with opened(tmp_path, mortal.settings, broker_at_start="required") as sink:
        mortal.kill()
        wait_until(lambda: sink.complaint.startswith("no broker at 127.0.0.1:"))
        mortal.start()
        wait_until(lambda: sink.complaint == "")


# ---- the order of delivery


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with contextlib.closing(Outbox(tmp_path / "outbox.sqlite")) as opened_outbox:
        yield opened_outbox


def store(outbox: Outbox, sample: Verdict, numbers: Iterable[int]) -> None:
    payloads = (encode_verdict(replace(sample, part_id=number)) for number in numbers)
    outbox.store([Item(payload, LastPart("run", 0)) for payload in payloads])


def take(delivery: Delivery, from_id: int = 0) -> list[tuple[int, bool]]:
    """Publish what is due: part ids, and whether they are marked as late."""
    taken = []
    for message_id, entry in enumerate(delivery.next(), from_id):
        delivery.note_published(message_id, entry)
        one = decode_verdict(entry.payload)
        taken.append((one.part_id, one.late))
    return taken


def test_what_was_on_its_way_when_the_link_broke_goes_again_in_order(outbox: Outbox, verdict: Verdict) -> None:
    """Whether it arrived nobody knows."""
    delivery = Delivery(outbox, 1000.0, Clock())
    store(outbox, verdict, range(4))
    assert take(delivery) == [(0, False), (1, False), (2, False), (3, False)]
    delivery.note_acknowledged(0)
    store(outbox, verdict, [4])
    delivery.begin_replay()
    store(outbox, verdict, [5])
    assert take(delivery, 10) == [(5, False), (1, True), (2, True), (3, True), (4, True)]
    for message_id in range(10, 15):
        delivery.note_acknowledged(message_id)
    assert delivery.acknowledged == [1, 6, 2, 3, 4, 5]


def test_a_second_outage_during_a_replay_sends_nothing_twice(outbox: Outbox, verdict: Verdict) -> None:
    clock = Clock()
    store(outbox, verdict, range(100))
    delivery = Delivery(outbox, 10.0, clock)
    delivery.begin_replay()
    first = take(delivery)
    assert first == [(number, True) for number in range(MAX_LATE_IN_FLIGHT)]
    store(outbox, verdict, [100])
    assert take(delivery, 500) == [(100, False)]
    for message_id in (*range(MAX_LATE_IN_FLIGHT), 500):
        delivery.note_acknowledged(message_id)
    clock.now_s += 60
    delivery.begin_replay()
    store(outbox, verdict, [101])
    assert take(delivery, 600) == [(101, False), *((number, True) for number in range(32, 64))]
    for message_id in range(600, 633):
        delivery.note_acknowledged(message_id)
    clock.now_s += 1.05
    assert take(delivery, 700) == [(number, True) for number in range(64, 74)], "ten a second"
    assert take(delivery, 800) == []


def test_a_long_pause_is_no_burst(outbox: Outbox, verdict: Verdict) -> None:
    clock = Clock()
    store(outbox, verdict, range(300))
    delivery = Delivery(outbox, 10.0, clock)
    delivery.begin_replay()
    clock.now_s += 3600
    assert len(take(delivery)) == MAX_LATE_IN_FLIGHT


def test_a_refused_verdict_waits_and_comes_again_in_order(outbox: Outbox, verdict: Verdict) -> None:
    clock = Clock()
    delivery = Delivery(outbox, 1000.0, clock)
    store(outbox, verdict, range(3))
    assert take(delivery) == [(0, False), (1, False), (2, False)]
    for message_id in (2, 0):
        delivery.note_refused(message_id)
    assert take(delivery, 10) == []
    clock.now_s += 5.1
    assert take(delivery, 20) == [(0, True), (2, True)], "1 is still on its way"


def test_an_acknowledgement_that_does_not_come_is_overdue(outbox: Outbox, verdict: Verdict) -> None:
    clock = Clock()
    delivery = Delivery(outbox, 1000.0, clock)
    store(outbox, verdict, range(2))
    take(delivery)
    clock.now_s += 2.9
    assert not delivery.is_overdue
    clock.now_s += 0.2
    assert delivery.is_overdue
    delivery.begin_replay()
    assert not delivery.is_overdue
    take(delivery, 10)
    clock.now_s += 3.1
    for message_id in (10, 11):
        assert delivery.is_overdue
        delivery.note_acknowledged(message_id)
    assert not delivery.is_overdue


def test_a_broker_that_acknowledges_nothing_is_said_and_gets_another_connection(
    tmp_path: Path, broker: BrokerSettings, verdict: Verdict
) -> None:
    connections: set[int] = set()
    relay = Relay(broker.port, listener=lambda number, _towards, _data: connections.add(number))
    try:
        with opened(tmp_path, BrokerSettings(LOOPBACK, relay.port), broker_at_start="required") as sink:
            before = max(connections)
            relay.link.stalled = True
            publish(sink, verdict, range(3))
            wait_until(lambda: sink.complaint != "")  # while the other connection is made, that there is no broker
            wait_until(lambda: max(connections) > before)
            relay.link.stalled = False
            wait_until(lambda: sink.waiting == 0 and not sink.complaint)
    finally:
        relay.close()


def test_bytes_that_are_no_verdict_do_not_stop_the_others(outbox: Outbox, verdict: Verdict) -> None:
    """Out of a file that was damaged."""
    outbox.store([Item(b"\xff{", LastPart("run", 0)), Item(b"[1]", LastPart("run", 1))])
    store(outbox, verdict, [2])
    delivery = Delivery(outbox, 1000.0, Clock())
    delivery.begin_replay()
    assert [entry.payload[:3] for entry in delivery.next()] == [b"\xff{", b"[1]", b'{"e']


@needs_mosquitto
def test_a_message_id_that_is_still_in_use_costs_no_verdict(
    tmp_path: Path, mortal: MortalBroker, verdict: Verdict
) -> None:
    """Paho's count has come round to ids whose acknowledgement is still on its way."""
    mortal.start()
    with subscribed(mortal.settings, VERDICTS) as subscriber, opened(tmp_path, mortal.settings) as sink:
        publish(sink, verdict, range(10))
        assert part_ids(subscriber.verdicts(10)) == list(range(10))
        wait_until(lambda: sink.waiting == 0)
        holding = threading.Thread(target=mortal.hold, args=(1.0,))
        holding.start()
        publish(sink, verdict, range(10, 20))
        wait_until(lambda: stored(tmp_path) == 10)
        time.sleep(0.2)  # published
        client = sink._link._connection._client
        assert client is not None
        client._last_mid -= 10
        publish(sink, verdict, range(20, 30))
        assert part_ids(subscriber.verdicts(20)) == list(range(10, 30))
        holding.join()
        wait_until(lambda: sink.waiting == 0)


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


def test_the_latest_drift_report_is_told_when_the_broker_comes_and_comes_back(
    tmp_path: Path, mortal: MortalBroker
) -> None:
    """Retained: who subscribes later has it too; the broker that was killed has forgotten it."""
    topic = "beltsight/plant/line1/drift"
    report = DriftReport("drifting", "brightness fell", (), 300, "a.jpg", "trivial", "2026-01-01T00:00:00.000Z")
    with opened(tmp_path, mortal.settings) as sink:
        sink.publish_drift(replace(report, state="steady"))
        sink.publish_drift(report)
        for _ in range(2):
            mortal.start()
            with subscribed(mortal.settings, topic) as subscriber:
                assert decode_drift(bytes(subscriber.next().payload)) == report
            mortal.kill()
