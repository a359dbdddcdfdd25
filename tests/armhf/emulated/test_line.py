"""A line of 30 parts: the board on the emulated processor, belt and broker on this one, sockets between them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sim.station import (
    LOOPBACK,
    ROOT,
    Process,
    StationSettings,
    board_config,
    free_port,
    start_broker,
)
from tests.armhf import userland
from tests.armhf.memory import resident_bytes

PARTS = 30
READY_WITHIN_S = 300.0
RUN_WITHIN_S = 900.0
UNHURRIED_MM = 1e6  # to the gate: an emulated processor is slower than any
MIB = 1 << 20


def settings(folder: Path, model: str, models_dir: Path) -> StationSettings:
    return StationSettings(
        model=model,
        models_dir=models_dir,
        folder=folder,
        triggered=True,
        belt_speed_mm_s=600.0,
        gate_distance_mm=UNHURRIED_MM,
        part_mm=76.0,
        runtime="auto",
        record=False,
        mqtt_port=free_port(),
        belt_port=free_port(),
        tap_port=free_port(),
    )


@contextmanager
def start_emulated(one: StationSettings) -> Iterator[int]:
    """The station in the ARM userland, ready for parts; gives its process id."""
    (one.folder / "line.toml").write_text(board_config(one), encoding="utf-8")
    log = one.folder / "board.log"
    command = userland.python("board/run.py", "--config", str(one.folder / "line.toml"))
    with start_broker(one.folder, one.mqtt_port):
        board = Process("emulated board", command, log)
        try:
            deadline_s = time.monotonic() + READY_WITHIN_S
            while "runs" not in log.read_text():
                board.check()
                assert time.monotonic() < deadline_s, log.read_text()
                time.sleep(0.2)
            assert "engine arm-kernels" in log.read_text()
            yield find_process(one.folder)
        finally:
            board.stop()


def find_process(folder: Path) -> int:
    """The emulator that was started with this folder's configuration."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if str(folder / "line.toml").encode() in words:
            return int(path.parent.name)
    raise AssertionError("the emulated board has ended")


def send_parts(one: StationSettings, parts: int, *more: str) -> list[dict[str, Any]]:
    """Through sim/conveyor.py; the verdicts by part."""
    target = one.folder / "verdicts.jsonl"
    command = [sys.executable, "sim/conveyor.py", "--product", "bottle", "--model", one.model, "--parts", str(parts)]
    command += ["--models", str(one.models_dir), "--as-fast-as-possible", "--no-dashboard", "--verdicts", str(target)]
    subprocess.run([*command, *more], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=RUN_WITHIN_S)
    return [json.loads(line) for line in target.read_text().splitlines()]


def to_board(one: StationSettings) -> list[str]:
    address = f"tcp://{LOOPBACK}"
    ports = ["--connect", f"{address}:{one.belt_port}", "--tap", f"{address}:{one.tap_port}"]
    # subtle: with fpga-sim the belt is patient, as a simulated overlay is as slow as an emulated processor
    return [*ports, "--broker", f"{LOOPBACK}:{one.mqtt_port}", "--engine", "fpga-sim"]


def test_thirty_parts_have_the_scores_and_decisions_of_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("here", "emulated"):
        (tmp_path / name).mkdir()
    here = settings(tmp_path / "here", "bottle-128", ROOT / "models")
    expected = send_parts(here, PARTS, "--run-folder", str(here.folder), "--runtime", "onnxruntime")
    emulated = settings(tmp_path / "emulated", "bottle-128", ROOT / "models")
    with start_emulated(emulated) as process:
        given = send_parts(emulated, PARTS, *to_board(emulated))
        resident = resident_bytes(process)
    with capsys.disabled():
        print(f"\nresident with the model of {here.model}: {resident / MIB:.1f} MiB")
    assert resident <= 160e6
    assert len(given) == len(expected) == PARTS
    for one, other in zip(given, expected, strict=True):
        assert one["engine"] == "arm-kernels"
        assert other["engine"] == "arm-onnxruntime"
        for key in ("part_id", "score", "decision", "reason"):
            assert one[key] == other[key]
    assert {"OK", "REJECT"} <= {one["decision"] for one in given}


@pytest.mark.parametrize("parts", [300])
def test_the_station_does_not_grow(parts: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """300 parts through a small model: what a part leaves behind does not depend on the model's size."""
    from host.export.trivial import write_trivial_package

    one = settings(tmp_path, "trivial", tmp_path / "models")
    write_trivial_package(one.models_dir / one.model)
    with start_emulated(one) as process:
        send_parts(one, parts // 5, *to_board(one))
        early = resident_bytes(process)
        send_parts(one, parts, *to_board(one))
        late = resident_bytes(process)
    with capsys.disabled():
        print(f"\nresident after {parts // 5} parts {early / MIB:.1f} MiB, after {parts} more {late / MIB:.1f} MiB")
    assert late - early < 2 * MIB, "each part leaves something behind"
