"""A clock that a test puts forward, and databases: SQLite, and PostgreSQL where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from host.dashboard.tables import TABLES, open_database


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A server of its own, on a socket in its folder."""
    programs = find_postgresql()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    is_root = os.getuid() == 0  # as which the server refuses to run
    as_user = ["runuser", "-u", "postgres", "--"] if is_root else []
    # subtle: pytest's own folders are closed to the other user
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if is_root:
            shutil.chown(folder, "postgres")

        def run(program: str, *options: str) -> None:
            command = [*as_user, str(programs / program), "-D", str(folder / "data"), *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120, cwd=folder)

        run("initdb", "-A", "trust", "-U", "tester", "--no-sync")
        settings = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run("pg_ctl", "-w", "-o", settings, "-l", str(folder / "log"), "start")
        yield f"postgresql+psycopg://tester@/postgres?host={folder}"
        run("pg_ctl", "-w", "-m", "immediate", "stop")


def find_postgresql() -> Path | None:
    """Where its programs are; Debian keeps them off the path."""
    versions = [path for path in sorted(Path("/usr/lib/postgresql").glob("*/bin")) if (path / "initdb").is_file()]
    found = shutil.which("initdb")
    return versions[-1] if versions else Path(found).parent if found else None


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """With empty tables."""
    url = f"sqlite:///{tmp_path}/history.sqlite"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    engine = open_database(url)
    yield engine
    TABLES.drop_all(engine)
    engine.dispose()
