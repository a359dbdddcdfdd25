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

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.commands import Commands, Received
from host.trivial import write_trivial_package
from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.commands import MAX_AHEAD_S, MAX_COMMAND_BYTES, decode_command
from protocol.credentials import Credentials
from protocol.errors import MessageError
from protocol.messages import Trigger, clock_id
from protocol.sockets import open_socket
from protocol.wire import EndOfRun, encode_message, encode_raw_frame
from sim.station import LOOPBACK, ROOT, Process, StationSettings, board_config, free_port, wait_for_port
from tests.examples import trivial_station
from tests.protocol.test_credentials import MOSQUITTO, make_authority, make_certificate, needs_broker
from tests.survival.broker import wait_until

NOW_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z
PASSWORD = "a secret of the plant"
USERS = ("line1", "line2", "operator", "viewer")


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def order(number: str, expires_s: float = NOW_S + 30) -> bytes:
    return json.dumps({"id": number, "expires": rfc3339(expires_s)}).encode()


def obey(commands: Commands, name: str, payload: bytes, *, retained: bool = False) -> str:
    """Why not; empty when it was obeyed."""
    answer = commands.obey(Received(name, payload, retained))
    assert answer.obeyed == (answer.reason == "")
    assert answer.command == name
    return answer.reason


def test_pause_and_resume() -> None:
    commands = Commands(lambda: NOW_S)
    assert (obey(commands, "pause", order("1")), commands.paused_by) == ("", "1")
    assert (obey(commands, "pause", order("2")), commands.paused_by) == ("", "2")
    assert (obey(commands, "resume", order("3")), commands.paused_by) == ("", "")


def test_a_copy_is_not_obeyed_again() -> None:
    commands = Commands(lambda: NOW_S)
    obey(commands, "pause", order("1"))
    obey(commands, "resume", order("2"))
    assert "obeyed before" in obey(commands, "pause", order("1"))
    assert commands.paused_by == ""


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
def test_a_command_is_for_now(expires_s: float, why: str) -> None:
    commands = Commands(lambda: NOW_S)
    reason = obey(commands, "pause", order("1", expires_s))
    assert why in reason
    assert bool(commands.paused_by) == (reason == "") == (why == "")


def test_a_retained_command_is_not_obeyed() -> None:
    commands = Commands(lambda: NOW_S)
    assert "without retain" in obey(commands, "pause", order("1"), retained=True)
    assert commands.paused_by == ""


@pytest.mark.parametrize(
    ("name", "payload", "why"),
    [
        ("threshold", order("1"), "unknown command 'threshold': there are pause, resume"),
        ("pause", b"", "is not JSON"),
        ("pause", b"{}", "id: missing"),
        ("pause", order("1").replace(b"}", b', "for_s": 3}'), "for_s: unknown key"),
        ("pause", order(""), "id: must be 1..64 printable"),
        ("pause", order("x" * 65), "id: must be 1..64 printable"),
        ("pause", order("a\nb"), "id: must be 1..64 printable"),
        ("pause", b'{"id": 1, "expires": "2026-01-01T00:00:30Z"}', "id: must be text"),
        ("pause", b'{"id": "1", "expires": "2026-01-01T00:00:30"}', "expires: must be like"),
        ("pause", b'{"id": "1", "expires": "2026-13-01T00:00:30Z"}', "expires: month must be"),
        ("pause", b'{"id": "1", "expires": "tomorrow"}', "expires: must be like"),
        ("pause", b" " * (MAX_COMMAND_BYTES + 1), "at most 1024 are read"),
        ("pause", b"[" * 1000, "is not JSON"),
    ],
)
def test_what_is_no_command_is_refused_with_its_reason(name: str, payload: bytes, why: str) -> None:
    commands = Commands(lambda: NOW_S)
    assert why in obey(commands, name, payload)
    assert commands.paused_by == ""


@given(st.sampled_from(["pause", "resume", "", "result"]), st.binary(max_size=80))
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
            [f"{LINE1}/verdict", f"{LINE1}/state", f"{LINE1}/health", f"{LINE1}/cmd/result"],
            [f"{LINE1}/cmd/pause", f"{LINE2}/verdict", f"{LINE2}/state", f"{LINE2}/cmd/resume", "other"],
        ),
        ("operator", [f"{LINE1}/cmd/pause", f"{LINE2}/cmd/resume"], [f"{LINE1}/verdict", f"{LINE1}/cmd/result"]),
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
    settings = trivial_station(tmp_path, port)
    config = board_config(settings).replace('site = "sim"', 'site = "plant"')
    config = config.replace("[mqtt]\n", "[mqtt]\ncommands = true\n")
    credentials = f'ca_file = "{safe}/ca.pem"\nuser = "line1"\npassword_file = "{safe}/password"\n'
    (tmp_path / "line.toml").write_text(f"{config}\n[broker.credentials]\n{credentials}")
    command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(tmp_path / "line.toml")]
    process = Process("station", command, tmp_path / "board.log")
    try:
        wait_until(lambda: " runs, model " in (tmp_path / "board.log").read_text())
        yield settings
    finally:
        process.stop()


@needs_broker
def test_an_operator_pauses_and_resumes_a_running_station(safe: Path, port: int, station: StationSettings) -> None:
    operator, viewer = Person(safe, port, "operator"), Person(safe, port, "viewer", f"{LINE1}/#")
    endpoint = f"tcp://{LOOPBACK}:{station.belt_port}"
    belt = open_socket("PUSH", endpoint, bind=False, high_water_mark=10, linger_ms=1000, timeout_ms=5000)
    image = np.full((256, 256, 3), 40, np.uint8)

    def heard(name: str) -> list[dict[str, object]]:
        return [json.loads(message.payload) for message in list(viewer.heard) if message.topic == f"{LINE1}/{name}"]

    try:
        wait_until(lambda: len(heard("state")) > 0)
        for number, name in enumerate(("pause", "resume", "pause")):
            payload = order(f"{name}-{min(number, 1)}", time.time() + 30 if number < 2 else time.time() - 30)
            assert operator.may_write(f"{LINE1}/cmd/{name}", payload)
            wait_until(lambda count=number + 1: len(heard("cmd/result")) == count)  # type: ignore[misc]
            belt.send_multipart(encode_raw_frame(Trigger("run", number, time.monotonic_ns(), clock_id()), image, {}))
            wait_until(lambda count=number + 1: len(heard("verdict")) == count)  # type: ignore[misc]
        belt.send_multipart(encode_message(EndOfRun("run", 3)))
    finally:
        belt.close()
        operator.close()
        viewer.close()
    assert [answer["obeyed"] for answer in heard("cmd/result")] == [True, True, False]
    assert [verdict["decision"] for verdict in heard("verdict")] == ["UNKNOWN", "OK", "OK"]
    assert heard("verdict")[0]["reason"] == "paused by command pause-0"
    states = [(state["state"], state["reason"]) for state in heard("state")]
    assert ("stopped", "paused by command pause-0") in states
    assert states[-1] == ("running", "")
