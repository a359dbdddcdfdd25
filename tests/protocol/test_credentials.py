"""TLS, client certificates, users and passwords, against mosquitto with certificates made here."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from board.checkup.broker import check_broker
from board.config import LineConfig
from board.sinks.mqtt import MqttSettings, MqttSink
from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.credentials import Credentials
from protocol.errors import InputError
from protocol.messages import Frame, Trigger, Verdict
from protocol.strict import FieldError, build
from sim.station import LOOPBACK, ROOT, Process, free_port, wait_for_port

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_broker = pytest.mark.skipif(
    not (MOSQUITTO and shutil.which("mosquitto_passwd") and shutil.which("openssl")),
    reason="mosquitto, its mosquitto_passwd, or openssl is not installed",
)
Command = list[str | Path]
PASSWORD = "a secret of the plant"


def make_authority(folder: Path, name: str) -> None:
    extensions: Command = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    request: Command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={name}",
    ]
    files: Command = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
    subprocess.run([*request, "-subj", f"/CN={name}", *extensions, *files], check=True, capture_output=True)


def make_certificate(folder: Path, authority: str, name: str, address: str) -> None:
    request: Command = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
    subprocess.run(
        [*request, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr"], check=True, capture_output=True
    )
    (folder / f"{name}.ext").write_text(f"subjectAltName=IP:{address}\n")
    pem, key = folder / f"{authority}.pem", folder / f"{authority}.key"
    signed: Command = ["-CA", pem, "-CAkey", key, "-CAcreateserial", "-days", "2"]
    files: Command = ["-in", folder / f"{name}.csr", "-out", folder / f"{name}.pem", "-extfile", folder / f"{name}.ext"]
    sign: Command = ["openssl", "x509", "-req"]
    subprocess.run(sign + signed + files, check=True, capture_output=True)
    (folder / f"{name}.key").chmod(0o600)


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and certificates: of two authorities, the broker, one under another address, a station and a stranger."""
    folder = tmp_path_factory.mktemp("safe")
    for name in ("plant", "elsewhere"):
        make_authority(folder, name)
    make_certificate(folder, "plant", "broker", LOOPBACK)
    make_certificate(folder, "plant", "moved", "127.0.0.99")
    make_certificate(folder, "plant", "station", LOOPBACK)
    make_certificate(folder, "elsewhere", "stranger", LOOPBACK)
    for name, password in (("password", PASSWORD), ("wrong", "guessed")):
        (folder / name).write_text(password + "\n")
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def broker(safe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """One mosquitto with four doors, by their ports."""
    folder, doors = tmp_path_factory.mktemp("broker"), ("password", "certificate", "moved", "plain")
    ports = {door: free_port() for door in doors}
    users = safe / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "station", PASSWORD], check=True, capture_output=True)
    wanted = {
        "password": f"allow_anonymous false\npassword_file {users}",
        "certificate": "require_certificate true\nallow_anonymous true",
        "moved": "allow_anonymous true",
        "plain": f"allow_anonymous false\npassword_file {users}",
    }
    lines = ["per_listener_settings true", "user root"]
    for door, port in ports.items():
        lines += [f"listener {port} {LOOPBACK}", wanted[door]]
        name = "moved" if door == "moved" else "broker"
        if door != "plain":
            lines += [f"cafile {safe / 'plant.pem'}", f"certfile {safe / name}.pem", f"keyfile {safe / name}.key"]
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    process = Process("broker", [str(MOSQUITTO), "-c", str(folder / "mosquitto.conf")], folder / "broker.log")
    try:
        for port in ports.values():
            wait_for_port(process, port)
        yield ports
    finally:
        process.stop()


def connect(port: int, **credentials: Path | str) -> None:
    client, _ = connect_broker(
        BrokerSettings(LOOPBACK, port, credentials=Credentials(**credentials)),  # type: ignore[arg-type]
        "station",
        prepare=lambda _: None,
    )
    close_broker(client)


@needs_broker
def test_a_user_with_the_password_gets_in(safe: Path, broker: dict[str, int]) -> None:
    connect(broker["password"], ca_file=safe / "plant.pem", user="station", password_file=safe / "password")
    connect(broker["plain"], user="station", password_file=safe / "password")


@needs_broker
def test_a_certificate_gets_in(safe: Path, broker: dict[str, int]) -> None:
    connect(
        broker["certificate"],
        ca_file=safe / "plant.pem",
        certificate_file=safe / "station.pem",
        key_file=safe / "station.key",
    )


@needs_broker
def test_a_verdict_goes_through(safe: Path, broker: dict[str, int], tmp_path: Path, verdict: Verdict) -> None:
    credentials = Credentials(safe / "plant.pem", safe / "station.pem", safe / "station.key")
    settings = BrokerSettings(LOOPBACK, broker["certificate"], credentials=credentials)
    with contextlib.closing(MqttSink(MqttSettings(tmp_path / "outbox"), settings, "plant", "line1", "model")) as sink:
        sink.require_broker()
        sink.publish(Frame(Trigger("run", 0, 0, ""), None), verdict, None)
        deadline_s = time.monotonic() + 10
        while sink.waiting and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert sink.waiting == 0


@needs_broker
@pytest.mark.parametrize(
    ("door", "password", "found"),
    [
        ("password", "password", "with TLS, as station"),
        ("plain", "password", "without TLS, as station"),
        ("password", "wrong", "refuses us"),
        ("moved", "password", "is not to be trusted"),
    ],
)
def test_the_doctor_shows_itself_as_the_station_does(
    safe: Path, broker: dict[str, int], door: str, password: str, found: str
) -> None:
    ca_file = None if door == "plain" else safe / "plant.pem"
    credentials = Credentials(ca_file=ca_file, user="station", password_file=safe / password)
    settings = BrokerSettings(LOOPBACK, broker[door], credentials=credentials)
    finding = check_broker(LineConfig("trivial", broker=settings))[0]
    assert found in finding.found
    assert finding.level == ("OK" if "as station" in found else "FAIL")


@needs_broker
@pytest.mark.parametrize("credentials", [{}, {"user": "station"}, {"user": "station", "password_file": "wrong"}])
def test_without_the_password_nobody_gets_in(safe: Path, broker: dict[str, int], credentials: dict[str, str]) -> None:
    known = {key: safe / value if key.endswith("_file") else value for key, value in credentials.items()}
    with pytest.raises(InputError, match=r"refuses us .*: check its listeners and access rules, and our user"):
        connect(broker["password"], ca_file=safe / "plant.pem", **known)


@needs_broker
@pytest.mark.parametrize("name", ["", "stranger"])
def test_without_a_certificate_of_the_authority_nobody_gets_in(safe: Path, broker: dict[str, int], name: str) -> None:
    own = {"certificate_file": safe / f"{name}.pem", "key_file": safe / f"{name}.key"} if name else {}
    with pytest.raises(InputError, match=r"does not answer: does it take our certificate\?"):
        connect(broker["certificate"], ca_file=safe / "plant.pem", **own)


@needs_broker
@pytest.mark.parametrize(
    ("authority", "door", "message"),
    [
        ("elsewhere", "password", r"not to be trusted \(.*certificate verify failed.*\): correct ca_file"),
        ("plant", "moved", r"not to be trusted \(.*IP address mismatch.*\): correct ca_file, or host"),
        ("plant", "plain", "no MQTT broker with TLS at"),
    ],
)
def test_a_broker_that_is_not_ours_gets_no_password(
    safe: Path, broker: dict[str, int], authority: str, door: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        connect(broker[door], ca_file=safe / f"{authority}.pem", user="station", password_file=safe / "password")


@needs_broker
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
@pytest.mark.parametrize("secret", ["password_file", "key_file"])
def test_a_station_whose_secret_is_open_to_others_does_not_start(
    safe: Path, tmp_path: Path, trivial_package: object, mode: int, secret: str
) -> None:
    """Even one that need not wait for its broker."""
    values = {"ca_file": "plant.pem", "user": "station", "password_file": "password"}
    values |= {"certificate_file": "station.pem", "key_file": "station.key"}
    for name in values.values():
        if (safe / name).exists():
            shutil.copy(safe / name, tmp_path / name)
    (tmp_path / values[secret]).chmod(mode)
    models = getattr(trivial_package, "folder").parent  # noqa: B009
    text = f'model = "trivial"\nmodels_dir = "{models}"\n[mqtt]\nbroker_at_start = "optional"\n[broker.credentials]\n'
    (tmp_path / "line.toml").write_text(text + "".join(f'{key} = "{value}"\n' for key, value in values.items()))
    command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(tmp_path / "line.toml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    path = tmp_path / values[secret]
    assert (ended.returncode, ended.stderr) == (2, f"beltsight: {path} is open to others: chmod 600 {path}\n")
    assert PASSWORD not in ended.stdout


def test_secrets_that_cannot_be_used_say_so(tmp_path: Path) -> None:
    for name, content in (("empty", b"\n"), ("bytes", b"\xff\xfe"), ("none.pem", b"nothing")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    plain = Credentials(user="station", password_file=tmp_path / "password")
    for credentials, message in (
        (plain, "cannot read .*password .*: correct its path"),
        (replace(plain, password_file=tmp_path / "empty"), "has no password: write it on one line"),
        (replace(plain, password_file=tmp_path / "bytes"), "cannot read the password .*: write it on one line"),
        (Credentials(ca_file=tmp_path / "none.pem"), "is no certificate .*: give the CA's in PEM form"),
    ):
        with pytest.raises(InputError, match=message):
            connect_broker(BrokerSettings(credentials=credentials), "station", prepare=lambda _: None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"credentials": {"key_file": "k"}}, "certificate_file: and key_file belong together"),
        ({"credentials": {"certificate_file": "c", "key_file": "k"}}, "certificate_file: needs ca_file"),
        ({"credentials": {"password_file": "p"}}, "password_file: needs a user"),
        ({"host": "plant", "credentials": {"user": "u", "password_file": "p"}}, "does not go over a network in clear"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        build(BrokerSettings, settings)
