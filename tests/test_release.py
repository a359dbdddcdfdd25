"""The release archive, unpacked somewhere else, runs the line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from protocol import VERSION

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    subprocess.run([ROOT / "scripts" / "release", folder], check=True, capture_output=True, cwd="/")
    subprocess.run(["sha256sum", "--check", "--quiet", f"beltsight-{VERSION}.tar.gz.sha256"], check=True, cwd=folder)
    subprocess.run(["tar", "xzf", f"beltsight-{VERSION}.tar.gz"], check=True, cwd=folder)
    return folder / f"beltsight-{VERSION}"


def test_its_checksums_are_right_and_name_every_file(unpacked: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], check=True, cwd=unpacked)
    named = {line.split("  ./", 1)[1] for line in (unpacked / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert there - named == {"SHA256SUMS"}


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "models/orange-256/model.onnx",
        "host/dashboard/page/index.html",
        "protocol/asyncapi.json",
        "CHANGELOG.md",
    ],
)
def test_it_has_what_a_station_needs(name: str, unpacked: Path) -> None:
    assert (unpacked / name).is_file()


def test_the_same_commit_gives_the_same_bytes(unpacked: Path, tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "release", tmp_path], check=True, capture_output=True)
    name = f"beltsight-{VERSION}.tar.gz.sha256"
    assert (tmp_path / name).read_text() == (unpacked.parent / name).read_text()


def test_it_runs_where_it_is_unpacked(unpacked: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(unpacked / "sim" / "conveyor.py"), "--parts", "5", "--rate", "2"]
    command += ["--run-folder", str(tmp_path / "run"), "--report", str(tmp_path / "report.json")]
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["parts"] == 5
    assert report["verdicts"] == 5
