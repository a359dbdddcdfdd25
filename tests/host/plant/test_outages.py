"""The bridge dies, its link breaks, the primary host goes: no verdict is lost, and what comes later is history."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host.plant.__main__ import TURN_S, take_arrivals
from host.plant.inbox import Arrival, Inbox
from protocol.broker import BrokerSettings
from protocol.messages import encode_verdict
from sim.relay import Relay
from sim.station import free_port, start_broker
from tests.host.plant.plant import (
    DISCONNECT,
    GROUP,
    SITE,
    HostApplication,
    Report,
    Station,
    Wire,
    decode_connect,
    is_past,
    parts_of,
    rfc3339,
    start_bridge,
    values_of,
    wait_until,
)

SPARKPLUG = ("--sparkplug", GROUP)
PRIMARY = (*SPARKPLUG, "--primary-host", "scada")
QUIET_S = 1.5
Start = Callable[..., HostApplication]


@pytest.fixture
def line1(plant_port: int) -> Iterator[Station]:
    with contextlib.closing(Station(plant_port)) as station:
        station.is_in("running")
        yield station


@pytest.fixture
def host(plant_port: int, other_python: Path) -> Iterator[HostApplication]:
    host = HostApplication(other_python, plant_port)
    yield host
    host.end()


def bd_seq(message: Report) -> int:
    """Of an NBIRTH or NDEATH."""
    return next(int(metric["long_value"]) for metric in message["raw"] if metric["name"] == "bdSeq")


def data_of(host: HostApplication) -> list[Report]:
    return [message for message in host.of("DDATA", "line1") if "Verdict/Part ID" in values_of(message)]


def test_a_killed_bridge_loses_no_verdict(plant_port: int, line1: Station, host: HostApplication) -> None:
    bridge = start_bridge(plant_port, *SPARKPLUG)
    host.wait_for("DBIRTH", device="line1")
    for part_id in range(20):
        line1.judges(part_id)
    host.wait_for_part(5)
    bridge.kill()
    host.wait_for("NDEATH")
    for part_id in range(20, 60):
        line1.judges(part_id)
    bridge = start_bridge(plant_port, *SPARKPLUG)
    host.wait_for_part(59)
    assert sorted(set(parts_of(host.of("DDATA", "line1")))) == list(range(60))
    bridge.end()


def test_a_bridge_to_home_assistant_beside_it_takes_no_verdict_away(
    plant_port: int, line1: Station, host: HostApplication
) -> None:
    bridges = [start_bridge(plant_port, *SPARKPLUG), start_bridge(plant_port, "--home-assistant")]
    host.wait_for("DBIRTH", device="line1")
    for part_id in range(40):
        line1.judges(part_id)
    host.wait_for_part(39)
    assert sorted(parts_of(host.of("DDATA", "line1"))) == list(range(40))
    for bridge in bridges:
        bridge.end()
        assert not bridge.complaints


def test_a_line_whose_state_the_broker_does_not_give_lives_by_what_else_it_says(
    plant_port: int, host: HostApplication
) -> None:
    """As with RabbitMQ, which gives retained messages to no subscriber with a wildcard."""
    with contextlib.closing(Station(plant_port, "line2")) as line2:
        bridge = start_bridge(plant_port, *SPARKPLUG)
        host.wait_for("NBIRTH")
        line2.judges(1)
        host.wait_for_part(1, "line2")
        line2.reports(parts=1)
        line2.judges(2)
        host.wait_for_part(2, "line2")
        assert not host.of("DDEATH", "line2")
        assert len(host.of("DBIRTH", "line2")) == 1
        line2.is_in("lost", "the station vanished")
        host.wait_for("DDEATH", device="line2")
        bridge.end()


def test_a_bridge_killed_with_verdicts_it_could_not_hand_on_loses_none(
    plant_port: int, line1: Station, host: HostApplication
) -> None:
    bridge = start_bridge(plant_port, *PRIMARY)
    for part_id in range(5):
        line1.judges(part_id)
    time.sleep(QUIET_S)  # they are with the bridge, and the primary host has never been there
    bridge.kill()
    host.announce(online=True)
    bridge = start_bridge(plant_port, *PRIMARY)
    host.wait_for_part(4)
    assert parts_of(host.of("DDATA", "line1")) == list(range(5))
    bridge.end()


def test_verdicts_that_waited_long_are_history(plant_port: int, line1: Station, host: HostApplication) -> None:
    start_bridge(plant_port, *SPARKPLUG).end()  # the broker keeps a session for it from now on
    line1.judges(1, time=rfc3339(time.time() - 3600))
    line1.judges(2)
    bridge = start_bridge(plant_port, *SPARKPLUG)
    host.wait_for_part(2)
    assert [is_past(message) for message in data_of(host)] == [True, False]
    bridge.end()


def test_a_cut_link_is_a_death_by_last_will_and_a_new_number(
    plant_port: int, line1: Station, host: HostApplication
) -> None:
    wire = Wire()
    with contextlib.closing(Relay(plant_port, listener=wire)) as relay:
        bridge = start_bridge(relay.port, *SPARKPLUG)
        for sessions in (1, 2, 3):
            host.wait_for("NBIRTH", sessions)
            host.wait_for("DBIRTH", sessions, device="line1")
            if sessions < 3:
                relay.cut()
                host.wait_for("NDEATH", sessions)
        line1.judges(1)
        host.wait_for_part(1)
        bridge.end()
    host.wait_for("NDEATH", 3)
    assert [bd_seq(birth) for birth in host.of("NBIRTH")] == [0, 1, 2]
    assert [bd_seq(death) for death in host.of("NDEATH")] == [0, 1, 2]
    assert [birth["seq"] for birth in host.of("NBIRTH")] == [0, 0, 0]
    wills = [decode_connect(packets[0][1]).will for packets in wire.sessions()]
    assert len(set(wills)) == len(wills) == 3


def test_a_broker_that_forgets_everything_is_told_again(tmp_path: Path, other_python: Path, port: int) -> None:
    with start_broker(tmp_path, port):
        host, line1 = HostApplication(other_python, port), Station(port)
        line1.is_in("running")
        bridge = start_bridge(port, *SPARKPLUG)
        line1.judges(1)
        host.wait_for_part(1)
    with start_broker(tmp_path, port):
        line1.close()
        with contextlib.closing(Station(port)) as again:
            wait_until(lambda: host.of("NBIRTH")[-1]["seq"] == 0 and len(host.of("NBIRTH")) > 1, "a second birth")
            wait_until(lambda: "running" in [values_of(birth)["State"] for birth in host.of("DBIRTH", "line1")[1:]])
            again.judges(2)
            host.wait_for_part(2)
        bridge.end()
        host.end()


def test_verdicts_of_a_broken_link_come_again_as_history(
    plant_port: int, line1: Station, host: HostApplication
) -> None:
    """They go out while the link stands still, so that nobody knows whether they arrived."""
    with contextlib.closing(Relay(plant_port)) as relay:
        bridge = start_bridge(relay.port, *SPARKPLUG)
        host.wait_for("DBIRTH", device="line1")
        relay.link.delay_s = 0.5
        line1.judges(1)
        time.sleep(0.7)  # it is with the bridge, and its report is on the way back
        relay.link.stalled = True
        relay.cut()
        relay.link.stalled, relay.link.delay_s = False, 0.0
        host.wait_for_part(1)
        line1.judges(2)
        host.wait_for_part(2)
        bridge.end()
    assert [(parts_of([message]), is_past(message)) for message in data_of(host)][-2:] == [([1], True), ([2], False)]


def test_the_same_event_is_reported_once(plant_port: int, line1: Station, host: HostApplication) -> None:
    bridge = start_bridge(plant_port, *SPARKPLUG)
    host.wait_for("DBIRTH", device="line1")
    verdict = line1.judges(1)
    for _ in range(3):  # while it is on its way
        line1.say("verdict", encode_verdict(verdict))
    host.wait_for_part(1)
    time.sleep(QUIET_S)
    for _ in range(2):  # when it has long arrived
        line1.say("verdict", encode_verdict(verdict))
    line1.judges(2)
    host.wait_for_part(2)
    wait_until(lambda: any(values_of(m).get("Bridge/Duplicates dropped") == 5 for m in host.of("NDATA")))
    assert parts_of(host.of("DDATA", "line1")) == [1, 2]
    bridge.end()


def test_a_verdict_that_was_overtaken_is_history(plant_port: int, line1: Station, host: HostApplication) -> None:
    bridge = start_bridge(plant_port, *SPARKPLUG)
    host.wait_for("DBIRTH", device="line1")
    line1.judges(2)
    line1.judges(1, time=rfc3339(time.time() - 2))
    line1.judges(3)
    host.wait_for_part(3)
    assert [is_past(message) for message in data_of(host)] == [False, True, False]
    bridge.end()


def test_a_clock_that_was_ahead_makes_no_history_of_what_follows(
    plant_port: int, line1: Station, host: HostApplication
) -> None:
    bridge = start_bridge(plant_port, *SPARKPLUG)
    host.wait_for("DBIRTH", device="line1")
    line1.judges(1, time=rfc3339(time.time() + 3600))
    host.wait_for_part(1)
    line1.judges(2)
    host.wait_for_part(2)
    assert [is_past(message) for message in data_of(host)] == [False, False]
    bridge.end()


def test_a_dead_lines_last_verdicts_are_reported_between_a_birth_and_a_death(
    plant_port: int, line1: Station, host: HostApplication
) -> None:
    start_bridge(plant_port, *SPARKPLUG).end()
    line1.judges(1)
    line1.is_in("stopped", "switched off")
    bridge = start_bridge(plant_port, *SPARKPLUG)
    host.wait_for_part(1)
    wait_until(lambda: "/DDEATH/" in "".join(message["topic"] for message in host.messages[-2:]))
    kinds = [message["topic"].split("/")[2] for message in host.messages]
    last_session = kinds[len(kinds) - kinds[::-1].index("NBIRTH") :]
    assert [kind for kind in last_session if kind[0] == "D"] == ["DBIRTH", "DDATA", "DDEATH"]
    line1.is_in("running")
    host.wait_for("DBIRTH", kinds.count("DBIRTH") + 1, "line1")
    bridge.end()


def test_what_is_no_message_is_counted_and_harms_nobody(
    plant_port: int, line1: Station, host: HostApplication, tmp_path: Path
) -> None:
    bridge = start_bridge(plant_port, *SPARKPLUG, "--commands", "--folder", str(tmp_path))
    host.wait_for("DBIRTH", device="line1")
    for payload in (b"no verdict", b"[" * 60_000, encode_verdict(line1.judges(1)).replace(b'"line1"', b'"line2"')):
        line1.say("verdict", payload)
    half_a_pair = encode_verdict(line1.judges(2)).replace(b'"reason":""', b'"reason":"\\ud800"')
    line1.say("verdict", half_a_pair.replace(b'"line1-2"', b'"odd"'))
    line1.say("health", b'{"time": "yesterday"}')
    line1.say("health", b"[]")
    line1.say("state", b"{}", retain=False)
    line1.say("cmd/result", b"1")
    for topic in ("NCMD/beltsight-plant", "DCMD/beltsight-plant/line1"):
        line1.send(f"spBv1.0/{GROUP}/{topic}", b"\xff\xff\xff")
    line1.judges(3)
    host.wait_for_part(3)
    wait_until(lambda: any(values_of(m).get("Bridge/Messages refused", 0) == 9 for m in host.of("NDATA")))
    assert parts_of(host.of("DDATA", "line1")).count(3) == 1
    time.sleep(QUIET_S)  # the last acknowledgements
    assert bridge.end() == 0
    aside = [json.loads(line) for line in (tmp_path / "verdicts.set-aside.jsonl").read_text().splitlines()]
    assert [one["verdict"] for one in aside][:2] == ["no verdict", "[" * 60_000]
    assert len(aside) == 3
    assert all(one["reason"] for one in aside)
    bridge = start_bridge(plant_port, *SPARKPLUG, "--commands", "--folder", str(tmp_path))
    line1.judges(4)
    host.wait_for_part(4)
    bridge.end()
    assert not bridge.complaints, "rubbish does not come again"


def test_two_lines_that_differ_in_their_case_alone_are_complained_of(plant_port: int, line1: Station) -> None:
    with contextlib.closing(Station(plant_port, line1.line.upper())) as other:
        other.is_in("running")
        bridge = start_bridge(plant_port, *SPARKPLUG)
        wait_until(lambda: any("but for its case" in complaint for complaint in bridge.complaints))
        bridge.end()


def test_a_signal_at_the_end_of_a_turn_does_not_keep_the_bridge_waiting(plant_port: int) -> None:
    """CPython 3.11's `SimpleQueue.get` waits without end when the handler returns after its deadline."""
    main_thread = threading.main_thread().ident
    assert main_thread
    with contextlib.closing(Inbox(BrokerSettings(port=plant_port), "signalled", SITE, [], is_kept=False)) as inbox:
        signals = threading.Timer(TURN_S / 2, signal.pthread_kill, (main_thread, signal.SIGUSR1))
        rescue = threading.Timer(QUIET_S, inbox.arrivals.put, [Arrival("line1", "state", b"", is_retained=False)])
        before = signal.signal(signal.SIGUSR1, lambda *_: time.sleep(TURN_S))
        signals.start()
        rescue.start()
        arrivals = take_arrivals(inbox)
        rescue.cancel()
        signals.join()
        signal.signal(signal.SIGUSR1, before)
    assert arrivals == [], "only the rescue ended it"


# ---- the primary host


def test_while_the_primary_host_is_offline_verdicts_wait(
    plant_port: int, line1: Station, host: HostApplication
) -> None:
    wire = Wire()
    with contextlib.closing(Relay(plant_port, listener=wire)) as relay:
        host.announce(online=True, timestamp=1000)
        bridge = start_bridge(relay.port, *PRIMARY)
        host.wait_for("DBIRTH", device="line1")
        host.announce(online=False, timestamp=1000)
        host.wait_for("NDEATH")
        for part_id in range(5):
            line1.judges(part_id)
        wait_until(lambda: len(list(wire.sessions())) == 2)
        time.sleep(QUIET_S)
        assert len(host.of("NBIRTH")) == 1, "it waits"
        assert data_of(host) == []
        host.announce(online=True, timestamp=1001)
        host.wait_for_part(4)
        bridge.end()
    first = next(wire.sessions())
    assert first[-1][0] >> 4 == DISCONNECT
    assert parts_of(data_of(host)) == list(range(5))
    assert [bd_seq(birth) for birth in host.of("NBIRTH")] == [0, 1]


def test_old_news_of_the_primary_host_and_news_of_others_change_nothing(
    plant_port: int, line1: Station, host: HostApplication
) -> None:
    host.announce(online=True, timestamp=1000, host="another")
    bridge = start_bridge(plant_port, *PRIMARY)
    time.sleep(QUIET_S)
    assert host.messages == [], "another host's state is nothing to us"
    host.announce(online=False, timestamp=2000)
    host.announce(online=True, timestamp=1999)
    time.sleep(QUIET_S)
    assert host.messages == [], "it is older than what came before"
    host.announce(online=True, timestamp=2000)
    host.wait_for("DBIRTH", device="line1")
    host.announce(online=False, timestamp=1999)
    host.announce(online=False, timestamp=5000, host="another")
    line1.judges(1)
    host.wait_for_part(1)
    time.sleep(QUIET_S)
    assert host.of("NDEATH") == []
    bridge.end()


def test_a_host_that_vanishes_is_offline_by_its_last_will(
    plant_port: int, host: HostApplication, other_python: Path
) -> None:
    other = HostApplication(other_python, plant_port, "historian")
    other.announce(online=True)
    bridge = start_bridge(plant_port, *SPARKPLUG, "--primary-host", "historian")
    host.wait_for("NBIRTH")
    other.process.send_signal(signal.SIGKILL)
    host.wait_for("NDEATH")
    other.kill()
    bridge.end()


# ---- commands


def test_commands_are_not_taken_unless_asked_for(plant_port: int, line1: Station, host: HostApplication) -> None:
    wire = Wire()
    with contextlib.closing(Relay(plant_port, listener=wire)) as relay:
        bridge = start_bridge(relay.port, *SPARKPLUG)
        (birth,) = host.wait_for("DBIRTH", device="line1")
        assert not any("Control" in metric["name"] for metric in birth["metrics"])
        host.command(device="line1", name="Line Control/Pause", value=True, datatype="BOOLEAN")
        line1.judges(1)
        host.wait_for_part(1)
        bridge.end()
    assert line1.commands == []
    assert not any(b"DCMD" in content for packets in wire.sessions() for _, content in packets)


@pytest.mark.parametrize(
    "order",
    [
        {"name": "Line Control/Pause", "value": False, "datatype": "BOOLEAN"},
        {"name": "Line Control/Pause", "value": 1, "datatype": "INT32"},
        {"name": "Line Control/Threshold", "value": True, "datatype": "BOOLEAN"},
        {"name": "Line Control/Threshold", "value": float("nan"), "datatype": "DOUBLE"},
        {"name": "Verdict/Threshold", "value": 1.0, "datatype": "DOUBLE"},
        {"name": "no such tag", "value": True, "datatype": "BOOLEAN"},
        {"alias": 4711, "value": True, "datatype": "BOOLEAN"},
        {"name": "Line Control/Pause", "value": True, "datatype": "BOOLEAN", "device": "line9"},
    ],
)
def test_what_is_no_command_commands_nothing(order: Report, commanded: tuple[Station, HostApplication]) -> None:
    station, host = commanded
    host.command(**{"device": "line1", **order})
    host.command(device="line1", name="Line Control/Resume", value=True, datatype="BOOLEAN")
    wait_until(lambda: station.commands)
    assert [name for name, _ in station.commands] == ["resume"]
    station.commands.clear()


@pytest.fixture(scope="module")
def commanded(
    tmp_path_factory: pytest.TempPathFactory, other_python: Path
) -> Iterator[tuple[Station, HostApplication]]:
    port = free_port()
    with start_broker(tmp_path_factory.mktemp("commanded"), port), contextlib.closing(Station(port)) as station:
        station.is_in("running")
        bridge = start_bridge(port, *SPARKPLUG, "--commands")
        host = HostApplication(other_python, port)
        host.command(name="Node Control/Rebirth", value=True, datatype="BOOLEAN")
        host.wait_for("DBIRTH", device="line1")
        yield station, host
        host.end()
        bridge.end()


def test_a_lines_answer_is_reported_and_its_threshold_shown(commanded: tuple[Station, HostApplication]) -> None:
    station, host = commanded
    host.command(device="line1", name="Line Control/Threshold", value=0.75, datatype="DOUBLE")
    wait_until(lambda: station.commands)
    _, order = station.commands.pop()
    answer = f'{{"id":"{order["id"]}","command":"threshold","obeyed":true,"reason":"","time":"2026-01-01T00:00:00Z"}}'
    station.say("cmd/result", answer.encode())
    wait_until(lambda: any("Command/ID" in values_of(message) for message in host.of("DDATA", "line1")))
    values = values_of(host.of("DDATA", "line1")[-1])
    assert (values["Command/ID"], values["Command/Obeyed"]) == (order["id"], True)
    assert values["Line Control/Threshold"] == 0.75


def test_only_true_asks_for_a_rebirth(commanded: tuple[Station, HostApplication]) -> None:
    station, host = commanded
    births = len(host.of("NBIRTH"))
    host.command(name="Node Control/Rebirth", value=False, datatype="BOOLEAN")
    host.command(name="Node Control/Rebirth", value=1, datatype="INT32")
    time.sleep(QUIET_S)
    station.judges(4711)
    host.wait_for_part(4711)
    assert len(host.of("NBIRTH")) == births


def test_a_retained_command_is_not_obeyed(plant_port: int, line1: Station, host: HostApplication) -> None:
    """It would be obeyed again at each connection."""
    host.command(name="Node Control/Rebirth", value=True, datatype="BOOLEAN", retain=True)
    host.command(device="line1", name="Line Control/Pause", value=True, datatype="BOOLEAN", retain=True)
    host.announce(online=True)
    bridge = start_bridge(plant_port, *PRIMARY, "--commands")
    host.wait_for("DBIRTH", device="line1")
    line1.judges(1)
    host.wait_for_part(1)
    time.sleep(QUIET_S)
    assert line1.commands == []
    assert len(host.of("NBIRTH")) == 1
    bridge.end()
