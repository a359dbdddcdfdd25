"""One running server for the tests that do it no harm."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.manifest import Package
from tests.host.server.running import Board, Server, run_server


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, trivial_package: Package) -> Path:
    """A folder with the trivial model, for reading."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(trivial_package.folder, folder / "trivial")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Server]:
    with run_server(tmp_path_factory.mktemp("logs"), models, "--workers", "2") as running:
        with Board(running.endpoint) as board:
            board.wait_until_ready()
        yield running


@pytest.fixture
def board(server: Server) -> Iterator[Board]:
    with Board(server.endpoint) as asking:
        yield asking
