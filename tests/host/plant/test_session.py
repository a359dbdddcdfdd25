"""One session of the edge node from its first birth to its death, as a host application of another maker sees it.

The story is told once; each test looks at one thing in it. SPARKPLUG.md lists which rule each of them shows.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from host.plant.readings import time_ms
from host.plant.tags import CONTROL_TAGS, LINE_TAGS, NODE_TAGS
from protocol.commands import Order, decode_command
from protocol.messages import Verdict
from sim.relay import Relay
from sim.station import free_port, start_broker
from tests.host.plant.plant import (
    CONNECT,
    DISCONNECT,
    GROUP,
    NODE,
    PUBLISH,
    SUBSCRIBE,
    Connect,
    HostApplication,
    Report,
    Station,
    Wire,
    decode_connect,
    is_past,
    parts_of,
    start_bridge,
    values_of,
    wait_until,
)
from tests.survival.broker import MOSQUITTO
from tests.survival.packets import decode_publish

PARTS = 300  # more than there are sequence numbers
SILENT_S = 1.0
EDGE = ("NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH", "NDEATH")


@dataclass
class Story:
    began_ms: int = 0
    ended_ms: int = 0
    messages: list[Report] = field(default_factory=list)
    packets: list[tuple[int, bytes]] = field(default_factory=list)  # of the edge node's connection
    before_online: list[Report] = field(default_factory=list)
    commands: list[tuple[str, Report]] = field(default_factory=list)  # to line1
    late: Verdict | None = None
    births_before_rebirth: int = 0
    exit_code: int = -1

    def of(self, *kinds: str) -> list[Report]:
        return [message for message in self.messages if message["topic"].split("/")[2] in kinds]

    def published(self) -> Iterator[tuple[str, int, bool]]:
        """Topic, QoS and retain flag of what the edge node sent, as they stand in its packets."""
        for first, content in self.packets:
            if first >> 4 == PUBLISH:
                yield decode_publish(first, content, is_mqtt_5=False).topic, first >> 1 & 3, bool(first & 1)

    @property
    def connect(self) -> Connect:
        first, content = self.packets[0]
        assert first >> 4 == CONNECT
        return decode_connect(content)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, other_python: Path) -> Story:
    if not MOSQUITTO:
        pytest.skip("mosquitto is not installed")
    port, wire, told = free_port(), Wire(), Story()
    with contextlib.ExitStack() as opened:
        opened.enter_context(start_broker(tmp_path_factory.mktemp("plant"), port))
        relay = opened.enter_context(contextlib.closing(Relay(port, listener=wire)))
        line1 = opened.enter_context(contextlib.closing(Station(port)))
        line2 = opened.enter_context(contextlib.closing(Station(port, "line2")))
        host = HostApplication(other_python, port)
        opened.callback(host.end)
        line1.is_in("running")
        line2.is_in("running")
        told.began_ms = time.time_ns() // 1_000_000
        bridge = start_bridge(relay.port, "--sparkplug", GROUP, "--primary-host", "scada", "--commands")
        time.sleep(SILENT_S)  # the primary host has said nothing yet
        told.before_online = host.messages
        host.announce(online=True)
        host.wait_for("NBIRTH")
        host.wait_for("DBIRTH", device="line1")
        host.wait_for("DBIRTH", device="line2")
        tell(line1, line2, host, told)
        told.exit_code = bridge.end()
        host.wait_for("NDEATH")
        told.ended_ms = time.time_ns() // 1_000_000
        told.messages, told.commands = host.messages, list(line1.commands)
        told.packets = next(wire.sessions())
    return told


def tell(line1: Station, line2: Station, host: HostApplication, told: Story) -> None:
    for part_id in range(1, PARTS):
        line1.judges(part_id)
    line1.reports(parts=PARTS, ok=250, reject=50, parts_per_s=4.5)
    line2.judges(1, decision="UNKNOWN", score=None, reason="no frame")
    host.wait_for_part(PARTS - 1)
    told.late = line1.judges(PARTS, late=True)
    host.wait_for_part(PARTS)
    told.births_before_rebirth = len(host.of("NBIRTH"))
    host.command(name="Node Control/Rebirth", value=True, datatype="BOOLEAN")
    host.wait_for("NBIRTH", told.births_before_rebirth + 1)
    host.wait_for("DBIRTH", 2, "line2")
    line1.judges(PARTS + 1)
    host.wait_for_part(PARTS + 1)
    (pause,) = (m["alias"] for m in host.of("DBIRTH", "line1")[0]["metrics"] if m["name"] == "Line Control/Pause")
    host.command(device="line1", alias=pause, value=True, datatype="BOOLEAN")
    host.command(device="line1", name="Line Control/Threshold", value=1.75, datatype="DOUBLE")
    wait_until(lambda: len(line1.commands) == 2, "two commands")
    line2.is_in("lost", "the station vanished")
    host.wait_for("DDEATH", device="line2")


# ---- connection


def test_the_last_will_is_this_sessions_ndeath(story: Story) -> None:
    connect = story.connect
    assert connect.will_topic == f"spBv1.0/{GROUP}/NDEATH/{NODE}"
    assert (connect.will_qos, connect.is_will_retained) == (1, False)
    (ndeath,) = story.of("NDEATH")
    sent = [
        decode_publish(first, content, is_mqtt_5=False)
        for first, content in story.packets
        if first >> 4 == PUBLISH and b"/NDEATH/" in content
    ]
    assert [publish.payload for publish in sent] == [connect.will]
    assert [metric["name"] for metric in ndeath["raw"]] == ["bdSeq"]
    assert ndeath["raw"][0]["datatype"] == 4
    assert ndeath["seq"] is None
    assert {values_of(birth)["bdSeq"] for birth in story.of("NBIRTH")} == {ndeath["raw"][0]["long_value"]} == {0}


def test_the_session_is_clean(story: Story) -> None:
    assert story.connect.is_clean
    assert story.connect.level == 4


def test_commands_and_state_are_subscribed_at_qos_1_before_anything_is_said(story: Story) -> None:
    kinds = [first >> 4 for first, _ in story.packets]
    assert kinds.index(SUBSCRIBE) < kinds.index(PUBLISH)
    content = story.packets[kinds.index(SUBSCRIBE)][1]
    for topic in (f"spBv1.0/{GROUP}/NCMD/{NODE}", f"spBv1.0/{GROUP}/DCMD/{NODE}/+", "spBv1.0/STATE/scada"):
        name = topic.encode()
        assert len(name).to_bytes(2, "big") + name + b"\x01" in content


def test_nothing_is_said_before_the_primary_host_is_online(story: Story) -> None:
    assert story.before_online == []


def test_it_goes_with_ndeath_and_then_disconnect(story: Story) -> None:
    *_, (last_publish, content), (last, _) = (p for p in story.packets if p[0] >> 4 in (PUBLISH, DISCONNECT))
    assert (last_publish >> 4, last >> 4) == (PUBLISH, DISCONNECT)
    assert decode_publish(last_publish, content, is_mqtt_5=False).topic == f"spBv1.0/{GROUP}/NDEATH/{NODE}"
    assert len(story.of("NDEATH")) == 1, "the broker does not publish the last will as well"
    assert story.exit_code == 0


# ---- every message


def test_topics_are_those_of_the_namespace(story: Story) -> None:
    devices = {"DBIRTH", "DDATA", "DDEATH"}
    for message in story.messages:
        namespace, group, kind, node, *device = message["topic"].split("/")
        assert (namespace, group, node) == ("spBv1.0", GROUP, NODE)
        if kind in EDGE:
            assert bool(device) == (kind in devices)
            assert len(device) <= 1


def test_everything_but_ndeath_goes_at_qos_0_and_nothing_is_retained(story: Story) -> None:
    published = list(story.published())
    assert {topic.split("/")[2] for topic, _, _ in published} == set(EDGE)
    for topic, qos, is_retained in published:
        assert qos == (1 if "/NDEATH/" in topic else 0), topic
        assert not is_retained, topic


def test_sequence_numbers_count_round_through_255_and_begin_anew_with_each_nbirth(story: Story) -> None:
    expected = itertools.count()
    numbers = []
    for message in story.of(*EDGE[:-1]):
        if "/NBIRTH/" in message["topic"]:
            expected = itertools.count()
        numbers.append(message["seq"])
        assert message["seq"] == next(expected) % 256
    assert max(numbers) == 255, "the story is long enough to show it"


def test_every_message_says_when_it_was_sent_in_utc(story: Story) -> None:
    for message in story.of(*EDGE[:-1]):
        assert story.began_ms <= message["timestamp"] <= story.ended_ms


# ---- births


def test_nbirth_comes_first_then_each_device_then_data(story: Story) -> None:
    kinds = [message["topic"].split("/")[2] for message in story.of(*EDGE)]
    first = kinds.index("NBIRTH")
    assert first == 0
    assert kinds[:3] == ["NBIRTH", "DBIRTH", "DBIRTH"]
    again = kinds.index("NBIRTH", 1)
    assert kinds[again : again + 3] == ["NBIRTH", "DBIRTH", "DBIRTH"]


def test_births_have_every_metric_that_data_ever_brings(story: Story) -> None:
    tags = {"NBIRTH": NODE_TAGS, "DBIRTH": LINE_TAGS + CONTROL_TAGS}
    for birth in story.of("NBIRTH", "DBIRTH"):
        names = [metric["name"] for metric in birth["raw"]]
        assert sorted(names) == sorted(tag.name for tag in tags[birth["topic"].split("/")[2]])
    born: dict[str, set[str]] = {}
    for message in story.of("NBIRTH", "DBIRTH", "NDATA", "DDATA"):
        place = message["topic"].replace("BIRTH", "DATA")
        if "BIRTH" in message["topic"]:
            born[place] = {metric["name"] for metric in message["metrics"]}
        else:
            assert {metric["name"] for metric in message["metrics"]} <= born[place]


def test_births_give_name_data_type_time_and_value_or_null(story: Story) -> None:
    for birth in story.of("NBIRTH", "DBIRTH"):
        for metric in birth["raw"]:
            assert metric["datatype"] in (4, 10, 11, 12)
            assert metric["timestamp"] <= story.ended_ms
            values = [key for key in metric if key.endswith("_value")]
            assert len(values) == (0 if metric.get("is_null") else 1)


def test_births_list_their_metrics_in_the_order_of_time(story: Story) -> None:
    for birth in story.of("NBIRTH", "DBIRTH"):
        times = [metric["timestamp"] for metric in birth["raw"]]
        assert times == sorted(times)


def test_nbirth_offers_the_rebirth_command(story: Story) -> None:
    for birth in story.of("NBIRTH"):
        (rebirth,) = (metric for metric in birth["raw"] if metric["name"] == "Node Control/Rebirth")
        assert (rebirth["datatype"], rebirth["boolean_value"]) == (11, False)
        assert "alias" not in rebirth


def test_each_metric_has_an_alias_that_no_other_has(story: Story) -> None:
    first_births = [*story.of("NBIRTH")[:1], *story.of("DBIRTH")[:2]]
    metrics = [metric for birth in first_births for metric in birth["raw"]]
    aliases = [metric["alias"] for metric in metrics if metric["name"] != "Node Control/Rebirth"]
    assert len(set(aliases)) == len(aliases) == len(metrics) - 1


def test_no_two_metric_names_differ_in_their_case_alone(story: Story) -> None:
    for birth in story.of("NBIRTH", "DBIRTH"):
        names = [metric["name"].lower() for metric in birth["raw"]]
        assert len(set(names)) == len(names)


def test_a_rebirth_is_complete_and_keeps_its_number_and_its_values(story: Story) -> None:
    births = story.of("NBIRTH")
    assert len(births) == story.births_before_rebirth + 1
    assert values_of(births[-1])["bdSeq"] == values_of(births[0])["bdSeq"]
    again = [birth for birth in story.of("DBIRTH") if birth["topic"].endswith("/line1")][-1]
    assert values_of(again)["Verdict/Part ID"] == PARTS - 1, "the latest part that was no history"
    assert values_of(again)["State"] == "running"


# ---- data


def test_every_verdict_is_reported_once_and_in_order(story: Story) -> None:
    data = [message for message in story.of("DDATA") if message["topic"].endswith("/line1")]
    assert parts_of(data) == list(range(1, PARTS + 2))


def test_data_has_aliases_times_and_data_types_but_no_names(story: Story) -> None:
    """Data types against a "should not" of the specification: some hosts read null for a value without one."""
    for message in story.of("NDATA", "DDATA"):
        assert message["raw"]
        for metric in message["raw"]:
            assert {"alias", "timestamp", "datatype"} <= set(metric)
            assert "name" not in metric


def test_only_what_changed_is_reported(story: Story) -> None:
    values: dict[tuple[str, str], object] = {}
    for message in story.of("NBIRTH", "DBIRTH", "NDATA", "DDATA"):
        is_birth = "BIRTH/" in message["topic"]
        for metric in message["metrics"]:
            key = message["topic"].rpartition("/")[2], metric["name"]
            if not is_birth and not metric["is_historical"]:
                assert values[key] != metric["value"], key
            if not metric["is_historical"]:
                values[key] = metric["value"]


def test_a_late_verdict_is_history_and_whole(story: Story) -> None:
    past = [message for message in story.of("DDATA") if is_past(message)]
    assert parts_of(past) == [PARTS]
    assert len(past[0]["raw"]) == 13
    assert story.late
    assert {metric["timestamp"] for metric in past[0]["raw"]} == {time_ms(story.late.time)}


def test_live_verdicts_are_not_history(story: Story) -> None:
    for message in story.of("DDATA"):
        if not is_past(message):
            assert not any(metric["is_historical"] for metric in message["metrics"])
    assert len([message for message in story.of("DDATA") if not is_past(message)]) > PARTS


def test_a_part_without_a_score_has_a_null(story: Story) -> None:
    data = [message for message in story.of("DDATA") if message["topic"].endswith("/line2")]
    assert values_of(data[0])["Verdict/Decision"] == "UNKNOWN"
    assert values_of(data[0])["Verdict/Reason"] == "no frame"
    born = next(birth for birth in story.of("DBIRTH") if birth["topic"].endswith("/line2"))
    assert "Verdict/Score" in {metric["name"] for metric in born["raw"] if metric.get("is_null")}


def test_counts_come_from_the_health_report(story: Story) -> None:
    values = {name: value for message in story.of("DDATA") for name, value in values_of(message).items()}
    assert (values["Counts/Parts"], values["Counts/OK"], values["Counts/Parts per s"]) == (PARTS, 250, 4.5)


def test_ndata_counts_the_lines(story: Story) -> None:
    assert [values_of(message).get("Bridge/Lines") for message in story.of("NDATA")][-1] == 1


# ---- deaths and commands


def test_a_line_that_is_lost_dies(story: Story) -> None:
    (death,) = story.of("DDEATH")
    assert death["topic"] == f"spBv1.0/{GROUP}/DDEATH/{NODE}/line2"
    assert death["raw"] == []
    last_words = [message for message in story.of("DDATA") if message["topic"].endswith("/line2")][-1]
    assert values_of(last_words)["State"] == "lost"


def test_device_commands_become_the_lines_own(story: Story) -> None:
    (pause, pause_order), (threshold, threshold_order) = story.commands
    assert (pause, threshold) == ("pause", "threshold")
    assert threshold_order["value"] == 1.75
    for name, order in story.commands:
        decoded = decode_command(name, json.dumps(order).encode())
        assert isinstance(decoded, Order)
        assert 0 < decoded.expires_s() - story.began_ms / 1000 < 120
    assert pause_order["id"] != threshold_order["id"]
