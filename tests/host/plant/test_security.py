"""The bridge with TLS, a password and the access rules that we ship; and without what belongs to them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sim.station import LOOPBACK, ROOT, Process, free_port, wait_for_port
from tests.host.plant.plant import GROUP, SITE, Child, HostApplication, Station, parts_of, wait_until
from tests.protocol.test_credentials import PASSWORD, make_authority, make_certificate
from tests.survival.broker import MOSQUITTO

needs_broker = pytest.mark.skipif(
    not (MOSQUITTO and shutil.which("mosquitto_passwd") and shutil.which("openssl")),
    reason="mosquitto, its mosquitto_passwd, or openssl is not installed",
)


@dataclass(frozen=True)
class Plant:
    folder: Path
    port: int  # with TLS, passwords and our access rules
    inside: int  # anything goes: for stations and host application of the test

    def bridge(self, *options: str, user: str = "bridge") -> Child:
        command = [sys.executable, "-m", "host.plant", "--site", SITE, "--broker", f"{LOOPBACK}:{self.port}"]
        secrets = [
            "--ca-file",
            f"{self.folder}/plant.pem",
            "--user",
            user,
            "--password-file",
            f"{self.folder}/password",
        ]
        return Child([*command, *secrets, *options])


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("secure")
    plant = Plant(folder, free_port(), free_port())
    make_authority(folder, "plant")
    make_certificate(folder, "plant", "broker", LOOPBACK)
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "password").chmod(0o600)
    create = ["mosquitto_passwd", "-b", "-c", str(folder / "users"), "bridge", PASSWORD]
    subprocess.run(create, check=True, capture_output=True)
    subprocess.run([*create[:2], *create[3:-2], "reader", PASSWORD], check=True, capture_output=True)
    shutil.copy(ROOT / "board" / "mosquitto" / "acl", folder / "acl")
    (folder / "acl").chmod(0o600)
    (folder / "mosquitto.conf").write_text(
        f"per_listener_settings true\nuser root\nlistener {plant.port} {LOOPBACK}\n"
        f"cafile {folder}/plant.pem\ncertfile {folder}/broker.pem\nkeyfile {folder}/broker.key\n"
        f"allow_anonymous false\npassword_file {folder}/users\nacl_file {folder}/acl\n"
        f"listener {plant.inside} {LOOPBACK}\nallow_anonymous true\n"
    )
    process = Process("broker", [str(MOSQUITTO), "-c", str(folder / "mosquitto.conf")], folder / "broker.log")
    try:
        for port in (plant.port, plant.inside):
            wait_for_port(process, port)
        yield plant
    finally:
        process.stop()


@needs_broker
def test_the_bridge_works_under_the_access_rules_that_we_ship(plant: Plant, other_python: Path) -> None:
    host = HostApplication(other_python, plant.inside)
    with contextlib.closing(Station(plant.inside)) as line1:
        line1.is_in("running")
        bridge = plant.bridge("--sparkplug", GROUP, "--primary-host", "scada", "--home-assistant")
        host.announce(online=True)
        host.wait_for("DBIRTH", device="line1")
        host.command(name="Node Control/Rebirth", value=True, datatype="BOOLEAN")
        host.wait_for("NBIRTH", 2)
        line1.judges(1)
        host.wait_for_part(1)
        command_line = Path(f"/proc/{bridge.process.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{bridge.process.pid}/environ").read_bytes()
        assert PASSWORD.encode() not in command_line + environment
        bridge.kill()
        host.wait_for("NDEATH")
    host.end()
    assert parts_of(host.of("DDATA", "line1")) == [1]


@needs_broker
def test_another_user_is_no_edge_node_and_loses_no_verdict(plant: Plant, other_python: Path) -> None:
    """The broker drops what he says, and tells nobody."""
    with contextlib.closing(Station(plant.inside, "line2")) as line2:
        line2.is_in("running")
        bridge = plant.bridge("--sparkplug", GROUP, user="reader")
        wait_until(lambda: bridge.lines)
        line2.judges(1)
        wait_until(lambda: any("correct its access rules" in complaint for complaint in bridge.complaints))
        bridge.end()
        host = HostApplication(other_python, plant.inside)
        bridge = plant.bridge("--sparkplug", GROUP)
        host.wait_for_part(1, "line2")
        bridge.end()
        host.end()


@needs_broker
def test_an_open_password_file_is_refused(plant: Plant) -> None:
    (plant.folder / "password").chmod(0o644)
    bridge = plant.bridge("--sparkplug", GROUP)
    wait_until(lambda: bridge.process.poll() is not None)
    (plant.folder / "password").chmod(0o600)
    wait_until(lambda: bridge.complaints)
    assert bridge.process.returncode == 2
    assert "600" in bridge.complaints[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give --sparkplug GROUP, --home-assistant, or both"),
        (("--remove", "--sparkplug", "g"), "--remove goes with --home-assistant"),
        (("--sparkplug", "a/b"), "without '/', '+' and '#'"),
        (("--sparkplug", "g", "--broker", "nowhere"), "use the form 127.0.0.1:1883"),
        (("--sparkplug", "g", "--broker", "127.0.0.1:1"), "no MQTT broker at 127.0.0.1:1"),
        (("--sparkplug", "g", "--key-file", "k"), "belong together"),
        (("--sparkplug", "g", "--broker", "example.org:1883", "--user", "u", "--password-file", "p"), "in clear"),
    ],
)
def test_options_that_cannot_be_used_say_so(options: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "-m", "host.plant", "--site", "plant", *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert message in result.stderr
