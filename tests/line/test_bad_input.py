"""Bad input: one line that says what to do, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from host.export.trivial import write_trivial_package
from protocol.manifest import MANIFEST
from sim.station import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model package and a valid line.toml whose broker does not exist."""
    write_trivial_package(tmp_path / "models" / "trivial")
    write_config(tmp_path)
    return tmp_path


def write_config(folder: Path, *, head: str = "", tables: str = "") -> None:
    text = f'model = "trivial"\nmodels_dir = "models"\n{head}\n'
    text += f'[belt]\nendpoint = "tcp://127.0.0.1:{free_port()}"\n'
    text += f"[broker]\nport = {free_port()}\n{tables}\n"
    (folder / "line.toml").write_text(text)


def run_board(folder: Path) -> str:
    return refused([sys.executable, str(ROOT / "board" / "run.py"), "--config", str(folder / "line.toml")])


def run_conveyor(folder: Path, *options: str) -> str:
    command = [sys.executable, str(ROOT / "sim" / "conveyor.py"), "--models", str(folder / "models")]
    return refused([*command, "--model", "trivial", "--run-folder", str(folder / "run"), *options])


def refused(command: list[str]) -> str:
    """The one line on stderr of a command that must be refused."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2, result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("beltsight: ")
    return line


def test_unknown_key_is_refused_with_its_line(folder: Path) -> None:
    write_config(folder, tables="[gate]\ndistance = 300")
    line = run_board(folder)
    assert f"{folder / 'line.toml'}:9: gate.distance: unknown key" in line


def test_missing_config(folder: Path) -> None:
    (folder / "line.toml").unlink()
    assert "cannot read" in run_board(folder)


def test_missing_model(folder: Path) -> None:
    write_config(folder, head='site = "plant"')
    (folder / "models" / "trivial").rename(folder / "models" / "elsewhere")
    assert "make one with scripts/export.sh" in run_board(folder)
    assert "make one with scripts/export.sh" in run_conveyor(folder)
    assert not (folder / "run").exists()


def test_wrong_manifest_version(folder: Path) -> None:
    path = folder / "models" / "trivial" / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    assert "manifest format 99" in run_board(folder)


def test_altered_model_file(folder: Path) -> None:
    (folder / "models" / "trivial" / "model.onnx").write_bytes(b"not what was exported")
    assert "is not the file that was exported" in run_board(folder)


def test_broker_absent(folder: Path) -> None:
    assert "no MQTT broker at 127.0.0.1" in run_board(folder)


def test_camera_absent(folder: Path) -> None:
    write_config(folder, head='source = "camera"\nmode = "free-running"', tables='[camera]\ndevice = "/dev/video77"')
    assert "no camera at /dev/video77" in run_board(folder)


def test_port_taken(folder: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        text = f'model = "trivial"\nmodels_dir = "models"\n[belt]\nendpoint = "tcp://127.0.0.1:{port}"\n'
        (folder / "line.toml").write_text(text)
        assert "is taken" in run_board(folder)
        assert "is taken" in run_conveyor(folder, "--mqtt-port", str(port))


def test_pictures_of_another_size(folder: Path) -> None:
    (folder / "pictures" / "good").mkdir(parents=True)
    cv2.imwrite(str(folder / "pictures" / "good" / "0.png"), np.zeros((100, 120, 3), np.uint8))
    write_config(folder, head='source = "replay"', tables=f"[replay]\npath = '{folder / 'pictures'}'")
    assert "120x100" in run_board(folder)
    assert "export a model from such pictures" in run_conveyor(folder, "--source", str(folder / "pictures"))


def test_corrupt_picture_in_a_replay(folder: Path) -> None:
    (folder / "pictures" / "good").mkdir(parents=True)
    (folder / "pictures" / "good" / "0.png").write_bytes(b"\x89PNG but no more")
    line = run_conveyor(folder, "--source", str(folder / "pictures"))
    assert str(folder / "pictures" / "good" / "0.png") in line


def test_nothing_to_replay(folder: Path) -> None:
    write_config(folder, head='source = "replay"', tables="[replay]\npath = 'nowhere'")
    assert "nothing to replay" in run_board(folder)
    (folder / "empty").mkdir()
    assert str(folder / "empty") in run_conveyor(folder, "--source", str(folder / "empty"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--parts", "0"), "--parts is 0"),
        (("--rate", "-1"), "--rate is -1"),
        (("--defect-share", "1.5"), "1.5"),
        (("--report", "/nowhere/at/all.json"), "--report"),
        (("--connect", "nonsense"), "nonsense"),
        (("--broker", ":x"), "--broker"),
        (("--free-running", "--rate", "20"), "spacing"),
        (("--lamp-dims", "-1"), "--lamp-dims is -1.0: give 0 or more"),
        (("--lens-slips", "2", "--distinct", "9"), "--distinct repeats frames"),
        (("--mqtt-port", "99999"), "--mqtt-port is 99999: give 1 to 65535"),
        (("--dashboard-port", "-1"), "--dashboard-port is -1"),
        (("--picture", "x.txt"), "name a file that ends in .png"),
        (("--rate", "nan"), "--rate is nan"),
        (("--rate", "1e300"), "give a lower one"),
        (("--speed", "1e300"), "--speed is 1e+300: give 1 to"),
        (("--seed", "-1"), "--seed is -1"),
        (("--pitch-mm", "20:150", "--rate", "5"), "--pitch-mm and --rate"),
        (("--pitch-mm", "150:20"), "give LOW:HIGH in mm"),
        (("--pitch-mm", "inf"), "give LOW:HIGH in mm"),
        (("--pitch-mm", "30:60", "--free-running"), "lets parts overlap"),
        (("--speed-error", "0"), "--speed-error is 0"),
        (("--stop-and-go", "--as-fast-as-possible"), "leave out --as-fast-as-possible"),
        (("--encoder", "--free-running"), "--encoder with --free-running"),
        (("--frozen-after", "0"), "--frozen-after is 0"),
        (("--late-frames", "1.5"), "--late-frames is 1.5"),
        (("--cut-jpeg", "nan"), "--cut-jpeg is nan"),
        (("--run-folder", "/dev/null/run"), "name another with --run-folder"),
    ],
)
def test_impossible_options(folder: Path, options: tuple[str, ...], said: str) -> None:
    assert said in run_conveyor(folder, *options)
