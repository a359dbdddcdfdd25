"""The page beside the simulated line, as scripts/run starts it."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from host.export.trivial import write_trivial_package
from sim.station import ROOT, free_port
from tests.host.dashboard.running import Client, eventually, summary


def test_the_page_shows_the_parts_of_the_belt(tmp_path: Path) -> None:
    write_trivial_package(tmp_path / "models" / "trivial")
    port = free_port()
    client = Client(port)
    command = [sys.executable, "sim/conveyor.py", "--dashboard", "--dashboard-port", str(port), "--parts", "100000"]
    command += ["--models", str(tmp_path / "models"), "--model", "trivial", "--run-folder", str(tmp_path / "run")]
    belt = subprocess.Popen([*command, "--distinct", "5"], cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def parts() -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = client.get("/api/latest")
        except ConnectionError:  # it does not listen yet
            return []
        return found

    try:
        assert eventually(lambda: any(part["has_picture"] for part in parts()), 60)
        assert eventually(lambda: summary(client)["state"] == "running")
        assert summary(client)["model_id"] == "trivial"
        assert client.get("/api/models")[0]["id"] == "trivial"
    finally:
        belt.terminate()
        output, _ = belt.communicate(timeout=60)
    assert f"page: http://127.0.0.1:{port}/" in output
    assert (tmp_path / "run" / "dashboard" / "history.sqlite").is_file()
    assert "Traceback" not in (tmp_path / "run" / "dashboard.log").read_text()


def test_the_page_has_every_part_from_the_first_one_on(tmp_path: Path) -> None:
    """The belt starts when the page listens to the broker."""
    write_trivial_package(tmp_path / "models" / "trivial")
    command = [sys.executable, "sim/conveyor.py", "--dashboard", "--parts", "12", "--rate", "12"]
    command += ["--models", str(tmp_path / "models"), "--model", "trivial", "--run-folder", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert "12, 12, 0" in done.stdout, done.stderr
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "dashboard" / "history.sqlite")) as history:
        assert history.execute("select count(*) from parts").fetchone() == (12,)
