"""On the emulated processor, as a plugin of pytest: few examples, no deadline, and fixtures that need no host."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from protocol.messages import Verdict
from sim.station import LOOPBACK, free_port
from tests.examples import VERDICT

settings.register_profile(
    "emulated", max_examples=5, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("emulated")


@pytest.fixture
def port() -> int:
    """As in tests/conftest.py, which needs the host's packages."""
    return free_port()


@pytest.fixture
def endpoint(port: int) -> str:
    return f"tcp://{LOOPBACK}:{port}"


@pytest.fixture
def verdict() -> Verdict:
    return VERDICT
