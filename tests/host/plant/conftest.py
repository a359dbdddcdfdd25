"""A plant's broker, and the environment of the host application that shares no code with us."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.station import ROOT, free_port, start_broker
from tests.host.plant.plant import Child
from tests.survival.broker import MOSQUITTO

PYSPARKPLUG = "pysparkplug==0.6.1"  # needs paho-mqtt below 2, we need 2


@pytest.fixture(scope="session")
def other_python() -> Path:
    """Of an environment with pysparkplug and nothing of ours."""
    make = f"source scripts/environment.sh; need_environment .venv-plant '{PYSPARKPLUG}'"
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "venv-plant.lock").open("w") as lock:  # tests run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["bash", "-c", make], cwd=ROOT, check=True, timeout=300, capture_output=True)
    return ROOT / ".venv-plant" / "bin" / "python"


@pytest.fixture
def plant_port(tmp_path: Path) -> Iterator[int]:
    """A mosquitto of the test's own."""
    if not MOSQUITTO:
        pytest.skip("mosquitto is not installed")
    port = free_port()
    with start_broker(tmp_path, port):
        yield port


@pytest.fixture(scope="module", autouse=True)
def _nobody_is_left() -> Iterator[None]:
    """A test that failed may not have ended its processes."""
    yield
    for child in list(Child.alive):
        child.kill()
