"""What several folders of tests share: a model package, a real broker, free ports, a sample verdict."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from host.export.trivial import write_trivial_package
from protocol.broker import BrokerSettings
from protocol.manifest import Package, load_package
from protocol.messages import Verdict
from sim.station import LOOPBACK, free_port, start_broker
from tests.examples import VERDICT

ROOT = Path(__file__).resolve().parents[1]
# Modules that compute for minutes, the longest first: begun last, each would keep one core while the others rest.
LONGEST_FIRST = (
    "test_frames_in_hardware",
    "test_synthesis",
    "test_detectors",
    "test_bad_programs",
    "test_mutations",
    "test_layers_in_hardware",
    "test_search",
    "test_verilog",
    "test_export",
    "test_parity",
)
# The same examples on every run: a failure on one machine is a failure on all.
settings.register_profile(
    "repeatable",
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # of the machine, not of the code
)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """subtle: `--no-loadscope-reorder` keeps this order; by itself xdist begins with the modules of the most tests."""
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(scope="session")
def trivial_package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Frames of 256 px, map of 8 × 8 local brightnesses: grey level g scores about (g − 128) / 128; threshold 0.25."""
    return load_package(write_trivial_package(tmp_path_factory.mktemp("models") / "trivial"))


@pytest.fixture(scope="session")
def timer_library() -> Path:
    """The overlay's timer, compiled alone; kept between runs while the design does not change."""
    if not shutil.which("g++"):
        pytest.skip("the simulated timer is compiled with g++, which is not installed")
    from board.overlay.simulation.timer import build_timer  # Amaranth: only where it is used

    return build_timer(ROOT / "build" / "overlay")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerSettings]:
    """One broker for all tests: each takes topics of its own."""
    port = free_port()
    with start_broker(tmp_path_factory.mktemp("broker"), port):
        yield BrokerSettings(LOOPBACK, port)


@pytest.fixture
def port() -> int:
    """A port on the loopback address where nobody listens."""
    return free_port()


@pytest.fixture
def endpoint(port: int) -> str:
    return f"tcp://{LOOPBACK}:{port}"


@pytest.fixture
def verdict() -> Verdict:
    return VERDICT
