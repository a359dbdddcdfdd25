"""`beltsight doctor` finds what is wrong, says what to do, and disturbs nobody."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from board.alarms.challenge import ChallengeSettings
from board.checkup import machine
from board.checkup.camera import (
    DISCRETE,
    FRAMESIZES,
    FRAMESIZES_BYTES,
    QUERYCAP,
    QUERYCAP_BYTES,
    VIDEO_CAPTURE,
    check_camera,
)
from board.checkup.challenge import check_challenge
from board.checkup.gate import check_gate
from board.config import decode_config
from board.records.audit import AuditLog
from board.records.outbox import Item, Outbox
from board.records.set_aside import SetAside
from board.seams import LastPart
from board.sources.camera import CameraSettings
from host.export.trivial import write_trivial_package
from protocol.broker import BrokerSettings
from protocol.fitness import Concern, Fitness
from protocol.messages import encode_json, rfc3339_now
from protocol.reports import ChallengeReport
from sim.station import LOOPBACK, Process, free_port, start_board, wait_for_port
from tests.examples import trivial_station
from tests.survival.broker import Subscriber

ROOT = Path(__file__).resolve().parents[3]
Report = dict[str, dict[str, str]]


def ask(config: Path, *options: str, python: tuple[str, ...] = ()) -> tuple[int, Report]:
    """Exit code and, by its check, each finding; of several of one name the worst."""
    command = [sys.executable, *python, "-m", "board.doctor", "--json", "--config", str(config), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["sound"] == (done.returncode == 0)
    findings: Report = {}
    for finding in sorted(report["findings"], key=lambda one: ["OK", "WARN", "FAIL"].index(one["level"])):
        findings[finding["check"]] = finding
    return done.returncode, findings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_trivial_package(tmp_path / "models" / "trivial")
    return tmp_path


@pytest.fixture
def config(folder: Path, broker: BrokerSettings) -> Path:
    """An installation in order, at a site of its own."""
    path = folder / "line.toml"
    path.write_text(
        f'model = "trivial"\nmodels_dir = "models"\nsite = "{folder.name}"\n'
        f'[broker]\nhost = "{broker.host}"\nport = {broker.port}\n'
        '[mqtt]\noutbox = "outbox.sqlite"\ncommands = true\n'
    )
    return path


def add(config: Path, text: str) -> None:
    config.write_text(config.read_text() + text)


def test_an_installation_in_order(config: Path) -> None:
    code, report = ask(config)
    assert code == 0
    assert report["engine arm"]["found"] == "arm-onnxruntime gives the golden maps bit for bit"
    assert report["known-bad parts"]["level"] == "OK"
    assert report["model"]["level"] == report["outbox"]["level"] == report["disk for the outbox"]["level"] == "OK"
    assert report["access"]["found"].startswith("the broker grants ")
    assert report["station"]["found"] == "none has spoken on this broker yet"
    assert not (config.parent / "outbox.sqlite").exists()  # looked for, not made


def test_lines_for_people(config: Path) -> None:
    shutil.rmtree(config.parent / "models" / "trivial")
    command = [str(ROOT / "scripts" / "beltsight"), "doctor", "--config", str(config)]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 1
    assert "OK   numpy: " in done.stdout
    assert f"FAIL model: no model at {config.parent / 'models' / 'trivial'}\n" in done.stdout
    assert "     → make one with scripts/export.sh, or correct `model`\n" in done.stdout


def test_a_threshold_that_nothing_reaches(config: Path) -> None:
    config.write_text("threshold = 7.9376\n" + config.read_text())
    code, report = ask(config)
    assert (code, report["model"]["level"]) == (1, "FAIL")
    assert "no part, however bad, would be rejected" in report["model"]["found"]


@pytest.mark.parametrize(
    ("last", "level"),
    [("", "WARN"), ("passed", "OK"), ("failed", "FAIL")],
)
def test_when_real_known_bad_parts_were_tried_last(tmp_path: Path, last: str, level: str) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    if last:
        report = ChallengeReport(
            passed=last == "passed",
            failed=last == "failed",
            parts=3,
            rejected=3,
            reason="",
            id="7",
            model_id="trivial",
            threshold=0.25,
            time=rfc3339_now(),
        )
        audit.append(encode_json(report))
    settings = ChallengeSettings(due_every_h=8, audit=tmp_path / "audit.jsonl")
    assert [finding.level for finding in check_challenge(settings)] == [level]


def test_without_such_challenges_nothing_is_said_of_them_and_forgetting_them_is_named() -> None:
    assert list(check_challenge(ChallengeSettings())) == []
    (finding,) = check_challenge(ChallengeSettings(due_every_h=8))
    assert finding.level == "WARN"
    assert "audit" in finding.remedy


def test_as_a_file_on_a_board(config: Path, tmp_path: Path) -> None:
    """Laid out as on a flashed card: board/, protocol/, and config/line.toml, which is found without being named."""
    card = tmp_path / "card"
    for name in ("board", "protocol"):
        shutil.copytree(ROOT / name, card / name, ignore=shutil.ignore_patterns("__pycache__"))
    (card / "config").mkdir()
    models = config.parent / "models"
    (card / "config" / "line.toml").write_text(config.read_text().replace('"models"', f'"{models}"'))
    command = [sys.executable, str(card / "board" / "doctor.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"OK   configuration: {card / 'config' / 'line.toml'}" in done.stdout


@pytest.mark.parametrize("words", [["doctor", "--wat"], ["cure"], []])
def test_bad_usage_is_exit_code_2(words: list[str]) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(ROOT / "scripts" / "beltsight"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 2
    assert "beltsight" in done.stderr


def test_a_configuration_that_does_not_load_is_one_finding_of_many(config: Path) -> None:
    add(config, "[drfit]\n")
    code, report = ask(config)
    assert code == 1
    assert report["configuration"]["found"].endswith("line.toml:10: drfit")
    assert report["configuration"]["remedy"].startswith("unknown key; known keys are model, ")
    assert report["numpy"]["level"] == "OK"


def test_a_configuration_that_anybody_may_write(config: Path) -> None:
    config.chmod(0o666)
    code, report = ask(config)
    assert code == 1
    assert report["configuration"]["remedy"] == f"chmod go-w {config}"


def test_missing_packages_are_named_and_no_traceback(config: Path) -> None:
    code, report = ask(config, python=("-S",))  # without site-packages
    assert code == 1
    assert report["numpy"]["remedy"] == "pip install 'numpy>=1.21'"
    assert report["paho.mqtt"]["remedy"] == "pip install 'paho-mqtt>=2.1'"
    assert "packages are missing" in report["station"]["found"]


def test_a_model_that_was_altered(config: Path) -> None:
    with (config.parent / "models" / "trivial" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    code, report = ask(config)
    assert code == 1
    assert "is not the file that was exported" in report["model"]["found"]
    assert "engine arm" not in report  # nothing of it is run


def test_a_model_that_was_judged_unfit(config: Path) -> None:
    package = config.parent / "models" / "trivial"
    shutil.rmtree(package)
    write_trivial_package(package, fitness=Fitness("unfit", (Concern("unfit", "it sees nothing", "look"),)))
    _, report = ask(config)
    assert report["model"]["level"] == "FAIL"
    assert report["model"]["found"] == "trivial is unfit: it sees nothing"
    assert 'even_if_unfit = ["trivial"]' in report["model"]["remedy"]
    add(config, '[model_change]\neven_if_unfit = ["trivial"]\n')
    assert ask(config)[1]["model"]["level"] == "OK"


def test_an_engine_that_cannot_run(config: Path) -> None:
    add(config, '[engines]\norder = ["arm", "remote"]\n[engines.remote]\nendpoint = "tcp://127.0.0.1:1"\n')
    code, report = ask(config)
    assert code == 1
    assert report["engine arm"]["level"] == "OK"
    assert report["engine remote"]["level"] == "FAIL"


def test_a_broker_that_is_not_there(config: Path, broker: BrokerSettings) -> None:
    config.write_text(config.read_text().replace(str(broker.port), str(free_port())))
    code, report = ask(config)
    assert code == 1
    assert report["broker"]["remedy"] == "start one, or correct its address"


STRICT = """\
listeners:
  default:
    type: tcp
    bind: {address}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin:
    allow_anonymous: true
  amqtt.plugins.topic_checking.TopicAccessControlListPlugin:
    acl:
      anonymous: ["beltsight/+/+/state", "beltsight/+/+/health"]
"""


@pytest.fixture
def strict_broker(tmp_path: Path) -> Iterator[int]:
    """Where nobody may hear commands, and whoever asks is told so: mosquitto grants what it then does not deliver."""
    port = free_port()
    (tmp_path / "amqtt.yaml").write_text(STRICT.format(address=f"{LOOPBACK}:{port}"))
    command = [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(tmp_path / "amqtt.yaml")]
    process = Process("broker", command, tmp_path / "broker.log")
    wait_for_port(process, port)
    yield port
    process.stop()


def test_commands_that_may_not_be_heard(config: Path, broker: BrokerSettings, strict_broker: int) -> None:
    config.write_text(config.read_text().replace(str(broker.port), str(strict_broker)))
    code, report = ask(config)
    assert code == 1
    assert f"may not subscribe to beltsight/{config.parent.name}/line1/cmd/pause" in report["access"]["found"]
    assert report["broker"]["level"] == "OK"


def test_secrets_that_others_may_read(config: Path) -> None:
    (config.parent / "password").write_text("secret\n")
    (config.parent / "password").chmod(0o644)
    add(config, '[broker.credentials]\nuser = "station"\npassword_file = "password"\n')
    code, report = ask(config)
    assert code == 1
    assert report["secrets"]["remedy"] == f"chmod 600 {config.parent / 'password'}"
    (config.parent / "password").chmod(0o600)
    assert ask(config)[1]["secrets"]["found"] == "1 files, closed to others"


@pytest.mark.parametrize(("stored", "level"), [(2, "OK"), (6, "WARN"), (10, "FAIL")])
def test_what_waits_in_the_outbox(config: Path, stored: int, level: str) -> None:
    """Counted beside the station that has the file open, and which goes on storing."""
    config.write_text(config.read_text().replace('"outbox.sqlite"', '"outbox.sqlite"\nmax_stored = 10'))
    outbox = Outbox(config.parent / "outbox.sqlite")
    outbox.store([Item(b"{}", LastPart("run", number)) for number in range(stored)])
    _, report = ask(config)
    outbox.store([Item(b"{}", LastPart("run", stored))])
    outbox.close()
    assert report["outbox"]["level"] == level
    assert report["disk for the outbox"]["level"] == "OK"
    assert report["outbox"]["found"].startswith(f"{stored} verdicts wait")


def test_what_was_set_aside_is_named(config: Path) -> None:
    aside = SetAside(config.parent / "outbox.sqlite")
    aside.add(b"{}", "too long")
    _, report = ask(config)
    assert report["set aside"]["level"] == "WARN"
    assert report["set aside"]["found"].startswith("1 verdicts that the broker cannot be sent are in ")


def test_a_station_that_runs_is_left_alone(folder: Path, broker: BrokerSettings) -> None:
    """It says how it is, and notices nothing: its connection stays, the board's logic is not touched."""
    station = trivial_station(folder, broker.port)
    with start_board(station) as board:
        states = Subscriber(broker.port, "beltsight/sim/line1/state", "doctor-states")
        while json.loads(states.next().payload)["state"] != "running":
            board.check()
        config = folder / "line.toml"
        text = config.read_text().replace('order = ["arm"]', 'order = ["arm", "fpga"]')
        assert text != config.read_text()
        (folder / "as-on-the-board.toml").write_text(text)
        code, report = ask(folder / "as-on-the-board.toml")
        board.check()
        while not states.messages.empty():  # the first may come twice: with the connection, and with the news
            assert json.loads(states.next().payload)["state"] == "running"
        states.close()
    assert report["station"]["found"] == "running"
    assert "not tried: the station of process" in report["engine fpga"]["found"]
    assert report["engine arm"]["level"] == "OK"
    assert code == 1  # no pynq on this machine, and no CMA memory
    assert report["CMA memory"]["level"] == "FAIL"


# ---- the machine


@pytest.mark.parametrize(
    ("year", "synchronised", "level"),
    [(1970, True, "FAIL"), (2026, True, "OK"), (2026, False, "WARN"), (2150, True, "FAIL")],
)
def test_the_clock(year: int, synchronised: bool, level: str) -> None:
    finding = machine.check_clock(datetime(year, 7, 1, tzinfo=timezone.utc), is_synchronised=synchronised)
    assert finding.level == level
    assert bool(finding.remedy) == (level != "OK")


def test_the_kernel_says_whether_its_clock_is_synchronised() -> None:
    """As `adjtimex --print` or timedatectl would; here only that it can be asked."""
    assert machine.is_clock_synchronised() in (True, False)


BOARD_MEMORY = """\
MemTotal:         508484 kB
MemFree:           21744 kB
MemAvailable:     301236 kB
CmaTotal:         131072 kB
CmaFree:           {free} kB
"""


@pytest.mark.parametrize(("free_kb", "level"), [(60_000, "OK"), (4_000, "FAIL")])
def test_contiguous_memory_of_a_board(tmp_path: Path, free_kb: int, level: str) -> None:
    (tmp_path / "meminfo").write_text(BOARD_MEMORY.format(free=free_kb))
    memory = machine.read_meminfo(tmp_path / "meminfo")
    assert machine.check_cma(memory).level == level
    assert machine.check_memory(memory).found == "294 of 497 MiB available"


def test_a_kernel_without_contiguous_memory() -> None:
    assert machine.check_cma({"MemTotal": 1 << 30}).remedy == "boot with cma=128M on the kernel's command line"


def test_little_memory() -> None:
    assert machine.check_memory({"MemTotal": 1 << 29, "MemAvailable": 1 << 24}).level == "WARN"


def test_room_on_the_disk(tmp_path: Path) -> None:
    assert machine.check_disk("the outbox", tmp_path / "not" / "yet" / "there").level == "OK"
    assert machine.check_disk("recordings", tmp_path, 1 << 60).level == "WARN"
    assert machine.check_disk("the outbox", Path("/proc/1/outbox")).level == "FAIL"  # a file system without room


@pytest.mark.parametrize(
    ("states", "level"),
    [({"eth0": "up"}, "OK"), ({"eth0": "down", "usb0": "unknown"}, "OK"), ({"eth0": "down"}, "WARN")],
)
def test_links(tmp_path: Path, states: dict[str, str], level: str) -> None:
    for name, state in {**states, "lo": "unknown"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(state + "\n")
    assert machine.check_network(tmp_path).level == level


@pytest.mark.parametrize(("text", "numbers"), [("4.5.4-dev", (4, 5, 4)), ("2.1", (2, 1)), ("1.26.0rc1", (1, 26, 0))])
def test_versions(text: str, numbers: tuple[int, ...]) -> None:
    assert machine.parse_version(text) == numbers


# ---- the camera


def test_no_camera(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "there is no" in check_camera(CameraSettings(device=str(tmp_path / "video0"))).found
    assert "is no device" in check_camera(CameraSettings(device=str(tmp_path / "file"))).found
    assert "is no camera" in check_camera(CameraSettings(device="/dev/null")).found


class Driver:
    """Answers as a V4L2 driver does (videodev2.h); a real one needs a camera."""

    def __init__(self, capabilities: int = VIDEO_CAPTURE) -> None:
        self._capabilities = capabilities

    def __call__(self, handle: int, request: int, structure: bytearray, /) -> int:
        assert handle >= 0
        if request == QUERYCAP:
            assert len(structure) == QUERYCAP_BYTES
            struct.pack_into("=16s32s32sIII", structure, 0, b"uvcvideo", b"A camera", b"usb", 0, self._capabilities, 0)
            return 0
        assert request == FRAMESIZES
        assert len(structure) == FRAMESIZES_BYTES
        index, pixel_format = struct.unpack_from("=I4s", structure)
        sizes = [(640, 480), (1280, 720)] if pixel_format == b"YUYV" else [(1920, 1080)]
        if index >= len(sizes):
            raise OSError
        struct.pack_into("=I4sIII", structure, 0, index, pixel_format, DISCRETE, *sizes[index])
        return 0


@pytest.mark.parametrize(
    ("settings", "capabilities", "found"),
    [
        ({}, VIDEO_CAPTURE, "A camera at /dev/null, 640x480"),
        ({"size_px": (1080, 1920)}, VIDEO_CAPTURE, "A camera at /dev/null, 1920x1080"),
        ({"size_px": (600, 800)}, VIDEO_CAPTURE, "A camera has no 800x600; it has 640x480, 1280x720, 1920x1080"),
        ({}, 0x0080_0000, "/dev/null (A camera) delivers no pictures"),
    ],
)
def test_what_a_camera_says(settings: dict[str, Any], capabilities: int, found: str) -> None:
    finding = check_camera(CameraSettings(device="/dev/null", **settings), Driver(capabilities))
    assert finding.found == found


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("", "nothing measures it: at another speed than"),
        ('[motion]\nby = "nothing"\n', "([motion] says so)"),
        ('[motion]\nby = "encoder"\n', "the belt's encoder says where each part is"),
        ('[motion]\nby = "barriers"\n', "two light barriers time each part"),
    ],
)
def test_what_measures_the_belt_is_said(more: str, found: str) -> None:
    config = decode_config(f'model = "m"\n{more}'.encode(), "line.toml")
    belt = next(finding for finding in check_gate(config) if finding.check == "belt")
    assert found in belt.found
    assert (belt.level == "OK") == ("nothing" not in belt.found and "says so" not in belt.found)


def test_a_pin_that_only_the_timer_would_close_is_warned_of() -> None:
    config = decode_config(b'model = "m"\n[gate]\nkind = "gpio"\n', "line.toml")
    (gate,) = (finding for finding in check_gate(config) if finding.check == "gate")
    assert (gate.level, "timer" in gate.remedy) == ("WARN", True)
