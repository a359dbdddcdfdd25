"""The whole line as its processes: broker, board and belt, started as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from host.export.trivial import write_trivial_package

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
CONVEYOR = [sys.executable, str(ROOT / "sim" / "conveyor.py")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packages for three sizes of frames."""
    folder = tmp_path_factory.mktemp("models")
    for frame_px in (256, 416, 512):
        write_trivial_package(folder / f"trivial-{frame_px}", frame_px)
    return folder


def convey(models: Path, folder: Path, *options: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    command = [*CONVEYOR, "--models", str(models), "--model", "trivial-256", "--run-folder", str(folder / "run")]
    command += ["--report", str(folder / "report.json"), "--verdicts", str(folder / "verdicts.jsonl"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def read_report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def read_verdicts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]


def test_a_run_without_faults_loses_nothing_and_knows_every_part(models: Path, tmp_path: Path) -> None:
    result = convey(models, tmp_path, "--parts", "1000", "--distinct", "40", "--as-fast-as-possible")
    assert result.returncode == 0, result.stderr
    report = read_report(tmp_path)
    assert (report["parts"], report["verdicts"], report["lost"], report["unknown"]) == (1000, 1000, 0, 0)
    assert report["ok"] + report["reject"] == 1000
    assert report["missed_deadlines"] == report["duplicates"] == 0
    assert report["engine"] == "arm-onnxruntime"
    assert [verdict["part_id"] for verdict in read_verdicts(tmp_path)] == list(range(1000))


def test_the_report_has_the_agreed_keys(models: Path, tmp_path: Path) -> None:
    assert convey(models, tmp_path, "--parts", "12", "--as-fast-as-possible").returncode == 0
    agreed = "parts verdicts ok reject unknown auroc recall false_reject_rate parts_per_s latency_ms stages_ms"
    report = read_report(tmp_path)
    assert set(f"{agreed} missed_deadlines lost engine model_id".split()) <= set(report)
    assert set(report["latency_ms"]) == {"p50", "p99", "max"}
    assert {"wait", "decode", "preprocess", "infer", "decide", "publish"} <= set(report["stages_ms"])


def test_the_same_seed_gives_the_same_verdicts_on_either_runtime(models: Path, tmp_path: Path) -> None:
    spoken = []
    for name, runtime, seed in (("a", "onnxruntime", "7"), ("b", "opencv", "7"), ("c", "onnxruntime", "8")):
        (tmp_path / name).mkdir()
        options = ("--parts", "25", "--seed", seed, "--runtime", runtime, "--as-fast-as-possible")
        assert convey(models, tmp_path / name, *options).returncode == 0
        verdicts = read_verdicts(tmp_path / name)
        spoken.append([(verdict["part_id"], verdict["decision"], verdict["score"]) for verdict in verdicts])
        assert {verdict["engine"] for verdict in verdicts} == {f"arm-{runtime}"}
    assert spoken[0] == spoken[1]
    assert spoken[0] != spoken[2]


def test_the_gate_lets_pass_what_is_ok_and_nothing_else(models: Path, tmp_path: Path) -> None:
    """The dry gate's log against each part's passage, computed here from trigger, distance and speed."""
    options = ("--parts", "25", "--rate", "5", "--speed", "1000", "--distinct", "10", "--defect-share", "0.5")
    assert convey(models, tmp_path, *options).returncode == 0
    moves = [json.loads(line) for line in (tmp_path / "run" / "gate.jsonl").read_text().splitlines()]
    opened = [move["part_id"] for move in moves if move["open"]]
    verdicts = read_verdicts(tmp_path)
    assert {verdict["decision"] for verdict in verdicts} == {"OK", "REJECT"}
    past_the_gate = verdicts[:-2]  # the last parts may still be on their way when the run ends
    expected = [verdict["part_id"] for verdict in past_the_gate if verdict["decision"] == "OK"]
    assert opened[: len(expected)] == expected


def test_pictures_of_a_folder_are_replayed(models: Path, tmp_path: Path) -> None:
    for kind, level in (("good", 60), ("bad", 220)):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(4):
            picture = np.full((256, 256, 3), level + number, np.uint8)
            cv2.imwrite(str(tmp_path / "pictures" / kind / f"{number}.png"), picture)
    options = ("--source", str(tmp_path / "pictures"), "--parts", "16", "--as-fast-as-possible")
    result = convey(models, tmp_path, *options)
    assert result.returncode == 0, result.stderr
    report = read_report(tmp_path)
    assert (report["ok"], report["reject"], report["auroc"], report["recall"]) == (8, 8, 1.0, 1.0)


def test_a_replay_can_be_seen_through_the_belts_camera(models: Path, tmp_path: Path) -> None:
    """With the camera's effects the same pictures give other scores."""
    (tmp_path / "pictures" / "good").mkdir(parents=True)
    ramp = np.broadcast_to(np.linspace(0, 255, 256).astype(np.uint8)[:, np.newaxis, np.newaxis], (256, 256, 3))
    cv2.imwrite(str(tmp_path / "pictures" / "good" / "ramp.png"), ramp)
    scores = []
    for effects in ("--no-effects", "--effects"):
        options = ("--source", str(tmp_path / "pictures"), effects, "--parts", "4", "--as-fast-as-possible")
        assert convey(models, tmp_path, *options).returncode == 0
        scores.append({verdict["score"] for verdict in read_verdicts(tmp_path)})
    assert len(scores[0]) == 1
    assert len(scores[1]) > 1


@pytest.mark.parametrize(
    ("folder", "product", "frame_px"), [("mvtec-bottle", "bottle", 512), ("orange-web", "orange", 416)]
)
def test_real_pictures_run_end_to_end(models: Path, tmp_path: Path, folder: str, product: str, frame_px: int) -> None:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"no real pictures at {SHARED / folder}")
    options = ("--product", product, "--source", str(SHARED / folder), "--model", f"trivial-{frame_px}")
    result = convey(models, tmp_path, *options, "--parts", "20", "--as-fast-as-possible")
    assert result.returncode == 0, result.stderr
    report = read_report(tmp_path)
    assert (report["verdicts"], report["unknown"], report["lost"]) == (20, 0, 0)


@pytest.mark.parametrize("fps", ["30", "60"])
def test_a_free_running_view_gives_one_verdict_a_part(models: Path, tmp_path: Path, fps: str) -> None:
    options = ("--free-running", "--fps", fps, "--parts", "15", "--rate", "2", "--speed", "300")
    result = convey(models, tmp_path, *options, "--as-fast-as-possible")
    assert result.returncode == 0, result.stderr
    report = read_report(tmp_path)
    assert (report["verdicts"], report["lost"], report["unknown"], report["duplicates"]) == (15, 0, 0, 0)


def test_a_frame_that_real_time_drops_is_unknown_and_the_line_goes_on(models: Path, tmp_path: Path) -> None:
    """A belt far faster than the board: what the camera cannot hand over is UNKNOWN, and every part has its verdict."""
    options = ("--parts", "1500", "--rate", "4000", "--speed", "4000", "--distinct", "8")
    result = convey(models, tmp_path, *options)
    assert result.returncode == 0, result.stderr
    report = read_report(tmp_path)
    assert (report["verdicts"], report["lost"]) == (1500, 0)
    verdicts = read_verdicts(tmp_path)
    assert all(verdict["reason"] for verdict in verdicts if verdict["decision"] == "UNKNOWN")
    assert report["unknown"] > 0


def test_ctrl_c_shuts_everything_down(models: Path, tmp_path: Path) -> None:
    command = [*CONVEYOR, "--models", str(models), "--model", "trivial-256", "--run-folder", str(tmp_path / "run")]
    belt = subprocess.Popen([*command, "--parts", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "board.log"
    wait_until(lambda: log.exists() and "runs" in log.read_text())
    belt.send_signal(signal.SIGINT)
    out, err = belt.communicate(timeout=20)
    assert belt.returncode == 130, err
    assert "shut down" in out
    assert "Traceback" not in out + err + log.read_text()
    assert not processes_with(str(tmp_path / "run"))


def test_a_board_that_dies_ends_the_run_with_one_line(models: Path, tmp_path: Path) -> None:
    command = [*CONVEYOR, "--models", str(models), "--model", "trivial-256", "--run-folder", str(tmp_path / "run")]
    belt = subprocess.Popen([*command, "--parts", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "board.log"
    wait_until(lambda: log.exists() and "runs" in log.read_text())
    (board,) = processes_with(str(tmp_path / "run" / "line.toml"))
    os.kill(board, signal.SIGKILL)
    _, err = belt.communicate(timeout=20)
    assert belt.returncode == 2
    assert err.startswith("beltsight: the board stopped")
    assert len(err.splitlines()) == 1


def wait_until(ready: Any, timeout_s: float = 20) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.05)


def processes_with(text: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in command and "conveyor.py" not in command:
            found.append(int(folder.name))
    return found
