"""Models and configurations brought to running stations: over HTTP, over ssh, tried, and taken back."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host.deploy.serving import serve_package
from host.deploy.sign import sign_package
from host.deploy.ssh import Remote, copy_package
from host.export.trivial import write_trivial_package
from protocol.fitness import Concern, Fitness
from protocol.manifest import MANIFEST, load_package
from protocol.messages import Trigger, clock_id
from protocol.signing import write_signing_pair
from protocol.sockets import open_socket
from protocol.wire import encode_raw_frame
from sim.station import LINE, LOOPBACK, ROOT, SITE, Process, board_config, free_port, start_broker, wait_for_port
from tests.examples import grey_frame, trivial_station
from tests.survival.broker import MOSQUITTO, Subscriber, wait_until

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
NAME = f"{SITE}/{LINE}"
needs_broker = pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")
needs_sshd = pytest.mark.skipif(not SSHD, reason="sshd is not installed")


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, and signed models; `strict` rejects every part, `unsigned` is signed by nobody, `blind` is unfit."""
    folder = tmp_path_factory.mktemp("maker")
    write_signing_pair(folder / "keys", "maker")
    blind = Fitness("unfit", (Concern("unfit", "it sees nothing", "give more pictures"),))
    for name, threshold in (("one", 0.25), ("two", 0.5), ("strict", -0.99), ("unsigned", 0.5), ("blind", 0.5)):
        package = write_trivial_package(folder / name, threshold=threshold, fitness=blind if name == "blind" else None)
        if name != "unsigned":
            sign_package(folder / "keys" / "maker.secret.pem", package)
    return folder


class Station:
    """A board that judges with `one`, what it says, and a belt that brings parts when told."""

    def __init__(self, folder: Path, maker: Path, mqtt_port: int) -> None:
        self.folder, self.mqtt_port = folder, mqtt_port
        shutil.copytree(maker / "one", folder / "models" / "one")
        (folder / "trusted").mkdir(mode=0o755)
        shutil.copy(maker / "keys" / "maker.public.pem", folder / "trusted")
        settings = trivial_station(folder, mqtt_port, model="one")
        config = board_config(settings)
        change = '\n[model_change]\ntrial_parts = 3\nremembered = "memory"\nfetched = "fetched"\n'
        self.config = f'trusted_keys = "trusted"\n{config}{change}'
        (folder / "line.toml").write_text(self.config)
        self._said = Subscriber(mqtt_port, f"beltsight/{NAME}/#", "onlooker")
        self.heard: dict[str, list[dict[str, Any]]] = {}
        endpoint = f"tcp://{LOOPBACK}:{settings.belt_port}"
        self._belt = open_socket("PUSH", endpoint, bind=False, high_water_mark=10, linger_ms=0, timeout_ms=5000)
        self._parts = 0

    def listen(self, name: str) -> list[dict[str, Any]]:
        while not self._said.messages.empty():
            message = self._said.messages.get()
            leaf = message.topic.removeprefix(f"beltsight/{NAME}/")
            self.heard.setdefault(leaf, []).append(json.loads(message.payload))
        return self.heard.get(name, [])

    def judge(self, grey: int = 40) -> dict[str, Any]:
        """The verdict."""
        verdicts = len(self.listen("verdict"))
        trigger = Trigger("run", self._parts, time.monotonic_ns(), clock_id())
        self._belt.send_multipart(encode_raw_frame(trigger, grey_frame(grey), {}))
        self._parts += 1
        wait_until(lambda: len(self.listen("verdict")) > verdicts)
        return self.listen("verdict")[-1]

    def close(self) -> None:
        self._belt.close()
        self._said.close()


@pytest.fixture
def silent(maker: Path, tmp_path: Path) -> Iterator[Station]:
    """With a broker; its program does not run yet."""
    port = free_port()
    with start_broker(tmp_path, port), contextlib.closing(Station(tmp_path, maker, port)) as station:
        yield station


@pytest.fixture
def station(silent: Station) -> Iterator[Station]:
    command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(silent.folder / "line.toml")]
    process = Process("station", command, silent.folder / "board.log")
    try:
        wait_until(lambda: any(state["state"] == "running" for state in silent.listen("state")))
        yield silent
    finally:
        process.stop()


def start_deploy(station: Station, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "host.deploy", *words, "--broker", f"{LOOPBACK}:{station.mqtt_port}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def deploy(station: Station, *words: str) -> tuple[int, str]:
    """Exit code, and what it said."""
    process = start_deploy(station, *words)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out + err


@needs_broker
def test_an_unfit_model_goes_nowhere_unless_told_to(station: Station, maker: Path) -> None:
    words = ("deploy", str(maker / "blind"), "--to", NAME, "--watch", "0.5")
    code, said = deploy(station, *words)
    assert code == 2
    assert "blind is unfit: it sees nothing: make a better one as its card says, or say --even-if-unfit" in said
    assert station.judge()["model_id"] == "one"
    assert deploy(station, *words, "--even-if-unfit") == (0, f"{NAME}: blind judges, on trial\n")
    assert station.judge()["model_id"] == "blind"


@needs_broker
def test_a_model_is_fetched_tried_and_rolled_back(station: Station, maker: Path) -> None:
    assert station.judge()["model_id"] == "one"
    code, said = deploy(station, "deploy", str(maker / "two"), "--to", NAME, "--watch", "0.5")
    assert (code, said) == (0, f"{NAME}: two judges, on trial\n")
    assert {station.judge()["model_id"] for _ in range(3)} == {"two"}
    state = station.listen("state")[-1]
    assert (state["model_id"], state["signed_by"]) == ("two", "maker")
    assert state["manifest_sha256"] == load_package(maker / "two").sha256
    assert (station.folder / "fetched" / "two" / MANIFEST).is_file()
    code, said = deploy(station, "rollback", "--to", NAME, "--watch", "0.1")
    assert (code, said) == (0, f"{NAME}: the model before judges, on trial\n")
    assert station.judge()["model_id"] == "one"


@needs_broker
def test_a_model_that_fails_its_trial_is_told(station: Station, maker: Path) -> None:
    process = start_deploy(station, "deploy", str(maker / "strict"), "--to", NAME, "--watch", "60")
    wait_until(lambda: station.listen("state")[-1]["model_id"] == "strict")
    assert [station.judge()["decision"] for _ in range(3)] == ["REJECT"] * 3
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, f"{NAME}: strict judges, on trial\n")
    assert err == f"beltsight: {NAME}: it rejected 3 of its first 3 parts: back to one\n"
    assert station.judge()["model_id"] == "one"


@needs_broker
def test_what_cannot_be_deployed_says_why(station: Station, maker: Path, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        code, said = deploy(station, *words, "--watch", "0")
        assert code == 2
        assert said.startswith("beltsight: ")
        assert said.count("\n") == 1
        return said

    assert "is not signed, and stations fetch only what is" in refused("deploy", str(maker / "unsigned"), "--to", NAME)
    assert "no model at" in refused("deploy", str(tmp_path / "none"), "--to", NAME)
    assert "write SITE/LINE" in refused("deploy", str(maker / "two"), "--to", "line1")
    assert "one judges already" in refused("deploy", str(maker / "one"), "--to", NAME)
    assert "no model before this one" in refused("rollback", "--to", NAME)
    assert "correct --serve" in refused("deploy", str(maker / "two"), "--to", NAME, "--serve", "192.0.2.1")
    assert "write HOST or HOST:PORT" in refused("deploy", str(maker / "two"), "--to", NAME, "--serve", ":80")
    foreign = write_trivial_package(tmp_path / "größe")
    sign_package(maker / "keys" / "maker.secret.pem", foreign)
    assert "(model: must be the name of a folder" in refused("deploy", str(foreign), "--to", NAME)


@needs_broker
def test_the_fleet_shows_who_runs_what(station: Station, maker: Path) -> None:
    station.judge()
    wait_until(lambda: any(health.get("parts") == 1 for health in station.listen("health")))
    code, said = deploy(station, "fleet", "--wait", "2.5")
    (row,) = (line for line in said.splitlines() if NAME in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    sha256 = load_package(maker / "one").sha256[:12]
    assert code == 0
    assert cells[:8] == [NAME, "running", "one", sha256, "maker", "1", "0.0%", "0"]


def test_nothing_but_the_package_is_served(maker: Path) -> None:
    package = load_package(maker / "two")
    with serve_package(package, LOOPBACK) as url:
        with urllib.request.urlopen(f"{url}/{MANIFEST}") as answer:
            manifest = (maker / "two" / MANIFEST).read_bytes()
            assert (answer.read(), answer.headers["Content-Length"]) == (manifest, str(len(manifest)))
        root = url.split("/", 3)
        base = "/".join(root[:3])
        for path in (f"{url}/../one/{MANIFEST}", f"{url}/", url, f"{base}/two/{MANIFEST}", f"{base}/", f"{url}/x"):
            with pytest.raises(urllib.error.HTTPError, match="404") as caught:
                urllib.request.urlopen(path)
            caught.value.close()


def test_a_file_that_is_gone_is_not_found(tmp_path: Path) -> None:
    package = load_package(write_trivial_package(tmp_path / "two"))
    with serve_package(package, LOOPBACK) as url:
        (tmp_path / "two" / MANIFEST).unlink()
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            urllib.request.urlopen(f"{url}/{MANIFEST}")
        caught.value.close()


# ---- over ssh


@pytest.fixture
def ssh_config(tmp_path: Path) -> Iterator[Path]:
    """ssh's, for a server of this machine that lets one key in."""
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("server", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "client.pub", folder / "authorized")
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress {LOOPBACK}\nHostKey {folder}/server\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nStrictModes no\nPasswordAuthentication no\nUsePAM no\nSubsystem sftp internal-sftp\n"
    )
    config = folder / "config"
    config.write_text(
        f"Host board\n  HostName {LOOPBACK}\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder}/client\n"
        f"  UserKnownHostsFile {folder}/known\n  StrictHostKeyChecking accept-new\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd of Debian wants it
    server = Process("sshd", [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], folder / "sshd.log")
    try:
        wait_for_port(server, port)
        yield config
    finally:
        server.stop()


@needs_broker
@needs_sshd
def test_a_model_is_copied_over_ssh(station: Station, maker: Path, ssh_config: Path) -> None:
    folder = station.folder / "fetched"
    words = ("--to", NAME, "--ssh", "board", "--ssh-config", str(ssh_config), "--folder", str(folder), "--watch", "0")
    assert deploy(station, "deploy", str(maker / "two"), *words) == (0, f"{NAME}: two judges, on trial\n")
    assert station.judge()["model_id"] == "two"
    assert [path.name for path in folder.iterdir()] == ["two"]
    other = write_trivial_package(station.folder / "two", threshold=0.9)
    code, said = deploy(station, "deploy", str(other), *words)
    assert (code, "another model of the name two is there" in said) == (2, True)
    assert [path.name for path in folder.iterdir()] == ["two"]
    copy_package(Remote("board", ssh_config), load_package(maker / "two"), str(folder))
    assert [path.name for path in folder.iterdir()] == ["two"]
    assert load_package(folder / "two").manifest.threshold.value == 0.5
    code, said = deploy(station, "deploy", str(maker / "two"), "--to", NAME, "--ssh", "nobody@board.invalid")
    assert (code, said.startswith("beltsight: nobody@board.invalid: ")) == (2, True)


@needs_broker
@needs_sshd
def test_a_configuration_that_does_not_run_is_taken_back(silent: Station, ssh_config: Path) -> None:
    folder = silent.folder
    restart = folder / "restart.sh"
    restart.write_text(
        f"cd {folder}\n[ -f pid ] && kill $(cat pid) && tail --pid=$(cat pid) -f /dev/null\n"
        f"setsid {sys.executable} {ROOT}/board/run.py --config line.toml >> board.log 2>&1 < /dev/null &\n"
        "echo $! > pid\n"
    )
    place = ("--ssh", "board", "--ssh-config", str(ssh_config), "--place", str(folder / "line.toml"))
    words = ("--to", NAME, *place, "--restart", f"sh {restart}")
    try:
        subprocess.run(["sh", str(restart)], check=True)
        wait_until(lambda: any(state["state"] == "running" for state in silent.listen("state")))
        fresh = folder / "fresh.toml"
        fresh.write_text(silent.config.replace("[model_change]", "[model_change]\nmost_rejected = 0.5"))
        assert deploy(silent, "deploy", "--config", str(fresh), *words) == (0, f"{NAME}: runs with {fresh}\n")
        assert (folder / "line.toml").read_text() == fresh.read_text()
        assert (folder / "line.toml").stat().st_mode & 0o777 == 0o600
        fresh.write_text("model = 3\n")
        code, said = deploy(silent, "deploy", "--config", str(fresh), *words)
        assert (code, "model: must be text" in said) == (2, True)
        kept = (folder / "line.toml").read_text()
        fresh.write_text(silent.config.replace('model = "one"', 'model = "absent"'))
        code, said = deploy(silent, "deploy", "--config", str(fresh), *words, "--patience", "8")
        assert (code, "it has its configuration of before again" in said) == (2, True)
        assert (folder / "line.toml").read_text() == kept
        assert silent.judge()["decision"] == "OK"
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
