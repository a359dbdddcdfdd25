"""The whole line on the simulated overlay: every part is judged by the hardware's own integers."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from host.export.trivial import write_trivial_package

ROOT = Path(__file__).resolve().parents[2]
PARTS = 4


def convey(folder: Path, name: str, *engines: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Report and verdicts of a slow belt: the gate is 40 s away from the light barrier."""
    command = [sys.executable, str(ROOT / "sim" / "conveyor.py"), "--models", str(folder / "models")]
    command += ["--model", "trivial", "--parts", str(PARTS), "--as-fast-as-possible", "--speed", "100"]
    command += ["--run-folder", str(folder / name), "--report", str(folder / f"{name}.json")]
    command += ["--verdicts", str(folder / f"{name}.jsonl"), "--engine", *engines]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    return json.loads((folder / f"{name}.json").read_text()), verdicts


@pytest.mark.skipif(not shutil.which("g++"), reason="the simulated overlay is compiled with g++")
@pytest.mark.skipif(bool(importlib.util.find_spec("pynq")), reason="pynq is installed here")
def test_the_simulated_overlay_judges_every_part_as_the_processor_does(tmp_path: Path) -> None:
    write_trivial_package(tmp_path / "models" / "trivial")
    report, verdicts = convey(tmp_path, "simulated", "fpga-sim")
    assert (report["verdicts"], report["unknown"], report["lost"], report["engine"]) == (PARTS, 0, 0, "fpga-sim")
    assert {(verdict["engine"], verdict["degraded"]) for verdict in verdicts} == {("fpga-sim", False)}
    _, others = convey(tmp_path, "processor", "fpga", "arm")
    assert {(verdict["engine"], verdict["degraded"]) for verdict in others} == {("arm-onnxruntime", True)}
    assert [verdict["score"] for verdict in verdicts] == [verdict["score"] for verdict in others]
