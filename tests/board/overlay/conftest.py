from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from board.overlay.simulation.design import find_verilog
from board.overlay.simulation.simulator import Simulator, build_library

BUILD = Path(__file__).resolve().parents[3] / "build" / "overlay"


@pytest.fixture(scope="session")
def library() -> Path:
    """The whole overlay, compiled; kept between runs while the design does not change."""
    if not shutil.which("g++"):
        pytest.skip("the simulated overlay is compiled with g++, which is not installed")
    return build_library(find_verilog(BUILD), BUILD)


@pytest.fixture
def simulator(library: Path) -> Iterator[Simulator]:
    with Simulator(library) as opened:
        yield opened
