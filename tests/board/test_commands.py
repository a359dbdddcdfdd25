"""Commands: bounded, obeyed once and in time; who may send them is held by the example's access rules."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.commands import Commands, Received
from board.records.recording import read_recording
from host.export.trivial import write_trivial_package
from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.commands import (
    MAX_AHEAD_S,
    MAX_COMMAND_BYTES,
    ORDERS,
    Capture,
    Order,
    Pause,
    Resume,
    SetThreshold,
    SwitchModel,
    decode_command,
)
from protocol.credentials import Credentials
from protocol.errors import MessageError
from protocol.messages import Trigger, clock_id
from protocol.sockets import open_socket
from protocol.wire import EndOfRun, encode_message, encode_raw_frame
from sim.station import LOOPBACK, ROOT, Process, StationSettings, board_config, free_port, wait_for_port
from tests.examples import grey_frame, trivial_station
from tests.protocol.test_credentials import MOSQUITTO, make_authority, make_certificate, needs_broker
from tests.survival.broker import wait_until

NOW_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z
PASSWORD = "a secret of the plant"
USERS = ("line1", "line2", "operator", "engineer", "viewer")


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def order(number: str, expires_s: float = NOW_S + 30, **values: object) -> bytes:
    return json.dumps({"id": number, "expires": rfc3339(expires_s), **values}).encode()


class Doer:
    """Keeps what is ordered; refuses thresholds, and begins changes of model that are never done."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.commands = Commands(self._act, lambda: NOW_S)

    def _act(self, order: Order) -> bool:
        if isinstance(order, SetThreshold):
            raise MessageError("not this one")
        self.orders.append(order)
        return not isinstance(order, SwitchModel)

    def obey(self, name: str, payload: bytes, *, retained: bool = False) -> str:
        """Why not; empty when it was obeyed."""
        before = len(self.orders)
        answer = self.commands.obey(Received(name, payload, retained))
        assert answer is not None
        assert answer.obeyed == (answer.reason == "") == (len(self.orders) > before)
        assert answer.command == name
        return answer.reason


@pytest.fixture
def doer() -> Doer:
    return Doer()


def test_orders_are_passed_on_with_what_they_say(doer: Doer) -> None:
    assert doer.obey("pause", order("1")) == ""
    assert doer.obey("resume", order("2")) == ""
    assert doer.obey("capture", order("3", parts=200)) == ""
    assert doer.commands.obey(Received("model", order("4", model="orange-256.2"), False)) is None
    expires = rfc3339(NOW_S + 30)
    assert doer.orders == [
        Pause("1", expires),
        Resume("2", expires),
        Capture("3", expires, 200),
        SwitchModel("4", expires, "orange-256.2"),
    ]
    assert decode_command("threshold", order("5", value=-1.5)) == SetThreshold("5", expires, -1.5)


def test_what_cannot_be_done_is_answered_with_the_reason(doer: Doer) -> None:
    assert doer.obey("threshold", order("1", value=1)) == "not this one"


def test_a_copy_is_not_obeyed_again(doer: Doer) -> None:
    doer.obey("pause", order("1"))
    doer.obey("resume", order("2"))
    assert "obeyed before" in doer.obey("pause", order("1"))


@pytest.mark.parametrize(
    ("expires_s", "why"),
    [
        (NOW_S, "expired 0 s ago"),
        (NOW_S - 60, "expired 60 s ago"),
        (NOW_S + MAX_AHEAD_S + 1, "at most 3600 s"),
        (NOW_S + MAX_AHEAD_S, ""),
        (NOW_S + 1, ""),
    ],
)
def test_a_command_is_for_now(doer: Doer, expires_s: float, why: str) -> None:
    reason = doer.obey("pause", order("1", expires_s))
    assert why in reason
    assert (reason == "") == (why == "")


def test_a_retained_command_is_not_obeyed(doer: Doer) -> None:
    assert "without retain" in doer.obey("pause", order("1"), retained=True)


@pytest.mark.parametrize(
    ("name", "payload", "why"),
    [
        ("stop", order("1"), "unknown command 'stop': there are pause, resume, threshold, capture, challenge, model, "),
        ("pause", b"", "is not JSON"),
        ("pause", b"{}", "id: missing"),
        ("pause", order("1").replace(b"}", b', "for_s": 3}'), "for_s: unknown key"),
        ("pause", order(""), "id: must be 1..64 letters"),
        ("pause", order("x" * 65), "id: must be 1..64 letters"),
        ("capture", order("../x", parts=1), "id: must be 1..64 letters"),
        ("pause", b'{"id": 1, "expires": "2026-01-01T00:00:30Z"}', "id: must be text"),
        ("pause", b'{"id": "1", "expires": "2026-01-01T00:00:30"}', "expires: must be like"),
        ("pause", b'{"id": "1", "expires": "2026-13-01T00:00:30Z"}', "expires: month must be"),
        ("pause", b'{"id": "1", "expires": "tomorrow"}', "expires: must be like"),
        ("pause", b" " * (MAX_COMMAND_BYTES + 1), "at most 1024 are read"),
        ("pause", b"[" * 1000, "is not JSON"),
        ("threshold", order("1"), "value: missing"),
        ("threshold", order("1", value="high"), "value: must be a number"),
        ("threshold", order("1", value=float("nan")), "value: must be a finite number"),
        ("threshold", order("1").replace(b"}", b', "value": 1e999}'), "value: must be a finite number"),
        ("capture", order("1", parts=0), "parts: must be 1..10000"),
        ("capture", order("1", parts=10_001), "parts: must be 1..10000"),
        ("model", order("1", model="../x"), "model: must be the name of a folder"),
        ("model", order("1", model=".x"), "model: must be the name of a folder"),
        ("model", order("1", model="a/b"), "model: must be the name of a folder"),
        ("model", order("1", model="a", url="file:///etc/passwd"), "url: must be like http"),
        ("model", order("1", model="a", url="http://host/a b"), "url: must be like http"),
        ("model", order("1", model="a", url="http://user:secret@host/a"), "url: must be like http"),
        ("model", order("1", model="a", url="http://host"), "url: must be like http"),
    ],
)
def test_what_is_no_command_is_refused_with_its_reason(doer: Doer, name: str, payload: bytes, why: str) -> None:
    assert why in doer.obey(name, payload)


@given(st.sampled_from([*ORDERS, "", "result"]), st.binary(max_size=80))
def test_any_bytes_are_refused(name: str, payload: bytes) -> None:
    with pytest.raises(MessageError):
        decode_command(name, payload)


# ---- the example configuration of mosquitto


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the example's comments ask for."""
    folder = tmp_path_factory.mktemp("safe")
    make_authority(folder, "ca")
    make_certificate(folder, "ca", "broker", LOOPBACK)
    for user in USERS:
        flags = ["-b"] if (folder / "users").exists() else ["-c", "-b"]
        subprocess.run(["mosquitto_passwd", *flags, folder / "users", user, PASSWORD], check=True, capture_output=True)
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)
    shutil.copy(ROOT / "board" / "mosquitto" / "acl", folder)
    (folder / "acl").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def port(safe: Path) -> Iterator[int]:
    """Of mosquitto with the example's own lines; only paths and port are ours."""
    port = free_port()
    text = (ROOT / "board" / "mosquitto" / "mosquitto.conf").read_text()
    for ours, theirs in ((f"listener {port} {LOOPBACK}", "listener 8883"), (f"{safe}/", "/etc/mosquitto/beltsight/")):
        assert theirs in text
        text = text.replace(theirs, ours)
    text = text.replace("/var/lib/mosquitto/", f"{safe}/")
    (safe / "mosquitto.conf").write_text(text + "user root\n")
    process = Process("broker", [str(MOSQUITTO), "-c", str(safe / "mosquitto.conf")], safe / "broker.log")
    try:
        wait_for_port(process, port)
        yield port
    finally:
        process.stop()


class Person:
    """Somebody with a password, connected as the station is; refusals of the broker show by their codes."""

    def __init__(self, safe: Path, port: int, user: str, topic: str = "") -> None:
        self.heard: list[mqtt.MQTTMessage] = []
        self._codes: dict[int, int] = {}
        credentials = Credentials(safe / "ca.pem", user=user, password_file=safe / "password")
        settings = BrokerSettings(LOOPBACK, port, credentials=credentials)
        topics = [topic] if topic else []
        self._client, _ = connect_broker(settings, f"client-{user}", topics=topics, prepare=self._prepare)

    def _prepare(self, client: mqtt.Client) -> None:
        client.on_message = lambda _client, _data, message: self.heard.append(message)
        client.on_publish = lambda _client, _data, mid, code, _properties: self._codes.update({mid: code.value})

    def may_write(self, topic: str, payload: bytes = b"x") -> bool:
        mid = self._client.publish(topic, payload, qos=1).mid
        wait_until(lambda: mid in self._codes)
        return self._codes[mid] < 0x80

    def close(self) -> None:
        close_broker(self._client)


LINE1, LINE2 = "beltsight/plant/line1", "beltsight/plant/line2"


@needs_broker
@pytest.mark.parametrize(
    ("user", "allowed", "forbidden"),
    [
        (
            "line1",
            [f"{LINE1}/{name}" for name in ("verdict", "state", "health", "drift", "second-opinion", "challenge")],
            [f"{LINE1}/cmd/pause", f"{LINE2}/verdict", f"{LINE2}/state", f"{LINE2}/cmd/resume", "other"],
        ),
        (
            "operator",
            [f"{LINE1}/cmd/pause", f"{LINE2}/cmd/resume", f"{LINE1}/cmd/capture", f"{LINE1}/cmd/challenge"],
            [f"{LINE1}/cmd/threshold", f"{LINE1}/cmd/model", f"{LINE1}/verdict", f"{LINE1}/cmd/result"],
        ),
        (
            "engineer",
            [f"{LINE1}/cmd/threshold", f"{LINE2}/cmd/model", f"{LINE1}/cmd/rollback", f"{LINE1}/cmd/challenge"],
            [f"{LINE1}/verdict", f"{LINE1}/cmd/result", f"{LINE1}/challenge"],
        ),
        ("viewer", [], [f"{LINE1}/cmd/pause", f"{LINE1}/cmd/resume", f"{LINE1}/verdict", f"{LINE1}/state"]),
    ],
)
def test_the_access_rules_hold(safe: Path, port: int, user: str, allowed: list[str], forbidden: list[str]) -> None:
    person = Person(safe, port, user)
    try:
        assert [topic for topic in (*allowed, *forbidden) if person.may_write(topic)] == allowed
    finally:
        person.close()


@needs_broker
def test_a_station_hears_its_own_commands_alone_and_a_viewer_none(safe: Path, port: int) -> None:
    station, viewer = Person(safe, port, "line2", "beltsight/#"), Person(safe, port, "viewer", "beltsight/#")
    operator, line1 = Person(safe, port, "operator"), Person(safe, port, "line1")
    people = (station, viewer, operator, line1)
    try:
        time.sleep(0.3)  # the subscriptions
        for line in (LINE1, LINE2):
            assert operator.may_write(f"{line}/cmd/pause")
        assert line1.may_write(f"{LINE1}/verdict")  # in the order of arrival: behind the commands
        wait_until(lambda: bool(viewer.heard) and len(station.heard) >= 2)
    finally:
        for person in people:
            person.close()
    assert [message.topic for message in station.heard] == [f"{LINE2}/cmd/pause", f"{LINE1}/verdict"]
    assert [message.topic for message in viewer.heard] == [f"{LINE1}/verdict"]


@pytest.fixture
def station(safe: Path, port: int, tmp_path: Path) -> Iterator[StationSettings]:
    """`board/run.py` as user line1 over TLS."""
    write_trivial_package(tmp_path / "models" / "trivial")
    write_trivial_package(tmp_path / "models" / "stricter", threshold=-0.9)
    settings = trivial_station(tmp_path, port)
    config = board_config(settings).replace('site = "sim"', 'site = "plant"')
    assert "commands = true" in config
    credentials = f'ca_file = "{safe}/ca.pem"\nuser = "line1"\npassword_file = "{safe}/password"\n'
    (tmp_path / "line.toml").write_text(f"{config}\n[broker.credentials]\n{credentials}")
    command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(tmp_path / "line.toml")]
    process = Process("station", command, tmp_path / "board.log")
    try:
        wait_until(lambda: " runs, model " in (tmp_path / "board.log").read_text())
        yield settings
    finally:
        process.stop()


class Plant:
    """An engineer who commands, a viewer who hears all, and a belt that brings one grey part at a time."""

    def __init__(self, safe: Path, port: int, station: StationSettings) -> None:
        self._engineer, self._viewer = Person(safe, port, "engineer"), Person(safe, port, "viewer", f"{LINE1}/#")
        endpoint = f"tcp://{LOOPBACK}:{station.belt_port}"
        self._belt = open_socket("PUSH", endpoint, bind=False, high_water_mark=10, linger_ms=1000, timeout_ms=5000)
        self._parts = 0
        wait_until(lambda: bool(self.heard("state")))

    def heard(self, name: str) -> list[dict[str, Any]]:
        return [
            json.loads(message.payload) for message in list(self._viewer.heard) if message.topic == f"{LINE1}/{name}"
        ]

    def command(self, name: str, payload: bytes) -> dict[str, Any]:
        """The answer."""
        answers = len(self.heard("cmd/result"))
        assert self._engineer.may_write(f"{LINE1}/cmd/{name}", payload)
        wait_until(lambda: len(self.heard("cmd/result")) > answers)
        return self.heard("cmd/result")[answers]

    def judge(self, grey: int) -> dict[str, Any]:
        """The verdict."""
        trigger = Trigger("run", self._parts, time.monotonic_ns(), clock_id())
        self._belt.send_multipart(encode_raw_frame(trigger, grey_frame(grey), {}))
        self._parts += 1
        wait_until(lambda: len(self.heard("verdict")) == self._parts)
        return self.heard("verdict")[-1]

    def close(self) -> None:
        self._belt.send_multipart(encode_message(EndOfRun("run", self._parts)))
        for one in (self._belt, self._engineer, self._viewer):
            one.close()


@pytest.fixture
def plant(safe: Path, port: int, station: StationSettings) -> Iterator[Plant]:
    plant = Plant(safe, port, station)
    yield plant
    plant.close()


def soon(number: str, **values: object) -> bytes:
    return order(number, time.time() + 30, **values)


@needs_broker
def test_an_operator_pauses_and_resumes_a_running_station(plant: Plant) -> None:
    assert plant.command("pause", soon("7"))["obeyed"]
    verdict = plant.judge(40)
    assert (verdict["decision"], verdict["reason"]) == ("UNKNOWN", "paused by command 7")
    assert plant.command("resume", soon("8"))["obeyed"]
    assert plant.judge(40)["decision"] == "OK"
    assert not plant.command("pause", soon("7"))["obeyed"]
    assert not plant.command("pause", order("9", time.time() - 30))["obeyed"]
    assert plant.judge(40)["decision"] == "OK"
    states = [(state["state"], state["reason"]) for state in plant.heard("state")]
    assert ("stopped", "paused by command 7") in states
    assert states[-1] == ("running", "")


@needs_broker
def test_an_engineer_moves_the_threshold_of_a_running_station(plant: Plant) -> None:
    assert plant.judge(40)["decision"] == "OK"
    assert plant.command("threshold", soon("1", value=-0.8))["obeyed"]
    verdict = plant.judge(40)
    assert (verdict["decision"], verdict["threshold"]) == ("REJECT", -0.8)
    answer = plant.command("threshold", soon("2", value=1e300))
    assert (answer["obeyed"], "no part, however bad, would be rejected" in answer["reason"]) == (False, True)
    assert plant.judge(40)["threshold"] == -0.8


@needs_broker
def test_a_known_bad_part_that_is_judged_ok_stops_a_running_station(plant: Plant) -> None:
    assert plant.command("challenge", soon("c1", parts=2))["obeyed"]
    assert plant.judge(240)["decision"] == "REJECT"
    verdict = plant.judge(40)
    assert (verdict["decision"], verdict["reason"]) == ("UNKNOWN", "known-bad part of challenge c1: it was judged OK")
    wait_until(lambda: bool(plant.heard("challenge")))
    report = plant.heard("challenge")[0]
    assert (report["passed"], report["failed"], report["parts"], report["rejected"]) == (False, True, 2, 1)
    assert (report["id"], report["model_id"], report["threshold"]) == ("c1", "trivial", 0.25)
    verdict = plant.judge(40)
    assert (verdict["decision"], verdict["reason"]) == ("UNKNOWN", "the last challenge failed: pass another one")
    wait_until(lambda: plant.heard("state")[-1]["state"] == "alarm")


@needs_broker
def test_an_operator_captures_good_parts_of_a_running_station(plant: Plant, tmp_path: Path) -> None:
    assert plant.command("capture", soon("cap-1", parts=2))["obeyed"]
    assert "2 parts are left" in plant.command("capture", soon("cap-2", parts=2))["reason"]
    for grey in (40, 240, 46, 52):
        plant.judge(grey)
    folder = tmp_path / "recordings" / "captures" / "cap-1"
    wait_until(lambda: len([*folder.glob("*")]) == 1 and (next(folder.glob("*"))).stat().st_size > 2 * 256 * 256 * 3)
    (recording,) = folder.glob("*")
    wait_until(lambda: len([*read_recording(recording)]) == 2)
    kept = [record.frame.image for record in read_recording(recording)]
    assert [round(float(image.mean())) for image in kept if image is not None] == [40, 46]


@needs_broker
def test_an_engineer_changes_the_model_of_a_running_station(plant: Plant) -> None:
    assert plant.judge(40)["decision"] == "OK"
    answer = plant.command("model", soon("m1", model="absent"))
    assert (answer["obeyed"], "no model at" in answer["reason"]) == (False, True)
    assert plant.judge(40)["model_id"] == "trivial"
    assert plant.command("model", soon("m2", model="stricter"))["obeyed"]
    verdict = plant.judge(40)
    assert (verdict["decision"], verdict["model_id"], verdict["threshold"]) == ("REJECT", "stricter", -0.9)
    assert plant.heard("state")[-1]["model_id"] == "stricter"
    assert plant.command("rollback", soon("m3"))["obeyed"]
    assert plant.judge(40)["model_id"] == "trivial"
    wait_until(lambda: plant.heard("state")[-1]["model_id"] == "trivial")
