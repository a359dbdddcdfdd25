"""From the running line to a better model on it: capture, review, export, comparison, deployment, and back again.

The words of TUTORIAL.md, with a network too small to be good.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from host.dashboard.captures import Captures
from host.deploy.lines import Lines
from host.deploy.sign import sign_package
from host.export.trivial import write_trivial_package
from protocol.broker import BrokerSettings
from protocol.errors import EXIT_UNFIT
from protocol.manifest import load_package
from protocol.signing import write_signing_pair
from sim.station import LINE, LOOPBACK, ROOT, SITE, Process, StationSettings, board_config, free_port, start_broker
from tests.examples import trivial_station
from tests.host.export.test_export import TINY
from tests.survival.broker import MOSQUITTO, wait_until

NAME = f"{SITE}/{LINE}"
PARTS, DROPPED = 40, 3
# Enough to find some known-bad parts: a station takes no model that finds none.
EAGER = TINY.replace("float_steps = 4", "float_steps = 150") + '[threshold]\nmethod = "quantile"\nvalue = 0.3\n'


def run(module: str, *words: object, within_s: float = 300, code: int = 0) -> str:
    command = [sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=within_s, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture
def line(tmp_path: Path) -> Iterator[StationSettings]:
    """A line that judges bottles with a model that knows nothing of them, and has bottles go by for minutes."""
    if not MOSQUITTO:
        pytest.skip("mosquitto is not installed")
    write_signing_pair(tmp_path / "keys", "maker")
    (tmp_path / "trusted").mkdir(mode=0o755)
    shutil.copy(tmp_path / "keys" / "maker.public.pem", tmp_path / "trusted")
    first = write_trivial_package(tmp_path / "models" / "first", threshold=127 / 128)
    sign_package(tmp_path / "keys" / "maker.secret.pem", first)
    settings = trivial_station(tmp_path, free_port(), model="first", record=True, belt_speed_mm_s=600.0)
    change = '[model_change]\ntrial_parts = 2\nmost_rejected = 1\nfetched = "fetched"\nremembered = "model.json"\n'
    (tmp_path / "line.toml").write_text(f'trusted_keys = "trusted"\n{board_config(settings)}\n{change}')
    with contextlib.ExitStack() as started:
        started.enter_context(start_broker(tmp_path, settings.mqtt_port))
        start(started, tmp_path, "board", "board/run.py", "--config", tmp_path / "line.toml")
        wait_until(lambda: " runs, model " in (tmp_path / "board.log").read_text())
        belt = ["--product", "bottle", "--parts", 3000, "--rate", 10, "--distinct", 60, "--speed", 600]
        where = ["--connect", f"tcp://{LOOPBACK}:{settings.belt_port}", "--broker", f"{LOOPBACK}:{settings.mqtt_port}"]
        where += [
            "--tap",
            f"tcp://{LOOPBACK}:{settings.tap_port}",
            "--model",
            "first",
            "--models",
            str(tmp_path / "models"),
        ]
        start(started, tmp_path, "belt", "sim/conveyor.py", *belt, *where)
        yield settings


def start(started: contextlib.ExitStack, folder: Path, name: str, program: str, *words: object) -> None:
    command = [sys.executable, str(ROOT / program), *map(str, words)]
    started.callback(Process(name, command, folder / f"{name}.log").stop)


def test_from_the_line_to_a_new_model_and_back(line: StationSettings, tmp_path: Path) -> None:
    broker = BrokerSettings(LOOPBACK, line.mqtt_port)
    with Lines(broker, SITE) as lines:
        assert lines.command(NAME, "capture", 20, parts=PARTS).obeyed
    captures = Captures(tmp_path / "recordings" / "captures")
    wait_until(lambda: len(captures.list_names()) == 1 and len(captures.open(captures.list_names()[0])) == PARTS)
    (capture,) = captures.list_names()
    strangest = [shown.number for shown in captures.open(capture)[:DROPPED]]
    assert captures.keep(capture, strangest) == PARTS - DROPPED

    (tmp_path / "tiny.toml").write_text(EAGER)
    reviewed = tmp_path / "recordings" / "captures" / capture / "reviewed"
    out = tmp_path / "made"
    words = ("--product", "bottle", "--data", reviewed, "--id", "second", "--recipe", tmp_path / "tiny.toml")
    run("host.export", *words, "--out", out, code=EXIT_UNFIT)
    package = load_package(out / "second")
    assert package.manifest.figures["train_pictures"] + package.manifest.figures["held_out_pictures"] == PARTS - DROPPED

    picture = tmp_path / "changes.png"
    table = run(
        "host.judging.compare", tmp_path / "models" / "first", out / "second", "--recordings", tmp_path / "recordings",
        "--picture", picture,
    )  # fmt: skip
    assert "rejected by first (old)" in table
    assert "rejected by second (new)" in table
    if "decided otherwise" in table:
        sheet = cv2.imread(str(picture))
        assert sheet is not None
        assert sheet.shape[1] == 3 * 192

    sign_package(tmp_path / "keys" / "maker.secret.pem", out / "second")
    address = ("--to", NAME, "--broker", f"{LOOPBACK}:{line.mqtt_port}", "--watch", "2")
    assert (
        run("host.deploy", "deploy", out / "second", "--confirmed", *address, "--even-if-unfit")
        == f"{NAME}: second judges, on trial\n"
    )
    assert models_that_judge(broker) == "second"
    assert run("host.deploy", "rollback", *address) == f"{NAME}: the model before judges, on trial\n"
    assert models_that_judge(broker) == "first"


def models_that_judge(broker: BrokerSettings) -> str:
    """Out of the fleet's table."""
    table = run("host.deploy", "fleet", "--broker", f"{broker.host}:{broker.port}", "--wait", "1.5")
    (row,) = (row for row in table.splitlines() if NAME in row)
    return row.strip("│").split("│")[2].strip()


def test_a_capture_can_be_trained_on_as_it_is(line: StationSettings, tmp_path: Path) -> None:
    """Without a review, straight from the recordings; UNKNOWN and REJECT do not train."""
    with Lines(BrokerSettings(LOOPBACK, line.mqtt_port), SITE) as lines:
        assert lines.command(NAME, "capture", 20, parts=20).obeyed
    folder = tmp_path / "recordings" / "captures"
    captures = Captures(folder)
    wait_until(lambda: len(captures.list_names()) == 1 and len(captures.open(captures.list_names()[0])) == 20)
    (tmp_path / "tiny.toml").write_text(TINY)
    words = ("--product", "bottle", "--data", folder, "--id", "direct", "--recipe", tmp_path / "tiny.toml")
    run("host.export", *words, "--out", tmp_path / "made", code=EXIT_UNFIT)
    figures = load_package(tmp_path / "made" / "direct").manifest.figures
    assert figures["train_pictures"] + figures["held_out_pictures"] == 20
