"""What the numbered tests share: the line's configuration, the overlay, and the person who watches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from board.config import LineConfig, load_config
from board.engines.fpga import Logic
from board.engines.fpga_pynq import find_logic
from board.gate.timer import LineTimer

ROOT = Path(__file__).resolve().parents[2]


class Person:
    """Reads what is printed and answers; whatever is no yes fails the test."""

    def tell(self, text: str) -> None:
        print(f"\n    {text}", flush=True)

    def do(self, text: str) -> None:
        input(f"\n    {text}, then press Enter ")

    def confirm(self, question: str) -> None:
        answer = input(f"\n    {question} [y/n] ")
        assert answer.strip().lower().startswith("y"), f"seen otherwise: {question}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--line", type=Path, default=ROOT / "board/line.toml", help="the line's TOML file")


@pytest.fixture
def person() -> Person:
    return Person()


@pytest.fixture
def line_file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.config.getoption("--line")
    return path.resolve()


@pytest.fixture
def config(line_file: Path) -> LineConfig:
    return load_config(line_file)


@pytest.fixture
def logic(config: LineConfig) -> Logic:
    return find_logic(config.engines.fpga)


@pytest.fixture
def timer(logic: Logic) -> Iterator[LineTimer]:
    timer = LineTimer(logic)
    yield timer
    timer.close()
