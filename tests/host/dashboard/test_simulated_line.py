"""The page beside the simulated line, as scripts/run starts it."""

from __future__ import annotations

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
