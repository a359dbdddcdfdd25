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
from protocol.supervision import SUPERVISOR
from sim.station import LOOPBACK, free_port, start_broker
from tests.examples import VERDICT, watch_threads

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
# What takes long, relative to this folder, the longest first: begun last, each would keep one core while the others
# rest. `--fast` leaves it out, unread, since much of it imports what takes seconds.
LONG = (
    "host/compiler/test_frames_in_hardware.py",
    "board/overlay/test_synthesis.py",
    "host/bench/test_detectors.py",
    "host/bench",
    "board/overlay/test_bad_programs.py",
    "board/overlay/test_mutations.py",
    "host/compiler/test_layers_in_hardware.py",
    "host/export",
    "host/teaching",
    "host/tuning",
    "board/overlay/test_verilog.py",
    "host/learning",
    "host/integers",
    "host/compiler",
    "board/overlay",
    "board/engines/test_fpga.py",
    "test_documents.py",
    "host/dashboard/test_program.py",
    "host/dashboard/test_browser.py",
    "host/dashboard",
    "host/plant/test_outages.py",
    "host/plant",
    "host/flash",
    "host/large",
    "host/judging",
    "host/deploy",
    "test_release.py",
    "fuzzing",
    "protocol/test_asyncapi_live.py",
    "sim/test_parts.py",
    "armhf",
    "board/checkup",
    "board/gate/test_timer.py",
    "host/server",
    "loop",
    "survival",
    "line",
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="without the tests that take long")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return (config.getoption("fast") and rank(collection_path) < len(LONG)) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """subtle: `--no-loadscope-reorder` keeps this order; by itself xdist begins with the modules of the most tests."""
    items.sort(key=lambda item: rank(item.path))


def rank(path: Path) -> int:
    """The place in LONG of a module, or of the first folder that it is in; behind it where it does not take long."""
    name = path.relative_to(TESTS).as_posix()
    return next((n for n, long in enumerate(LONG) if name == long or name.startswith(f"{long}/")), len(LONG))


@pytest.fixture(autouse=True)
def no_thread_dies_unseen() -> Iterator[None]:
    """Threads of the process's own supervisor; a test that lets some die gives them a supervisor of its own."""
    yield from watch_threads(SUPERVISOR)


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
