"""The gate's output and the light barrier's input through the real pynq package, unpatched."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pynq
import pytest

from board.gate.gate import NOBODY, Gate, open_gate, open_pin
from board.gate.gpio import open_gpio
from board.gate.motion import MotionSettings
from board.gate.settings import GateSettings
from board.sources.barrier import LightBarrier
from protocol.errors import InputError
from protocol.messages import MAX_T_NS, Trigger, clock_id

CHIP_BASE, FIRST_USER_PIN = 906, 54
TOLERANCE_S = 0.02


@pytest.fixture
def line(sysfs: Path) -> Path:
    """The folder of user pin 3's line, which the kernel has exported already; its files are plain ones."""
    line = sysfs / f"gpio{CHIP_BASE + FIRST_USER_PIN + 3}"
    line.mkdir()
    (line / "direction").write_text("in\n")
    (line / "value").write_text("0\n")
    return line


def value(line: Path) -> str:
    return (line / "value").read_text().strip()


def test_pynq_is_the_real_one() -> None:
    assert pynq.__version__ == "3.1.2"


def test_the_gates_pin_opens_writes_and_releases(sysfs: Path, line: Path) -> None:
    pin = open_pin(GateSettings(kind="gpio", gpio_pin=3))
    assert (line / "direction").read_text() == "out"
    pin.write(True, 0)
    assert value(line) == "1"
    pin.write(False, NOBODY)
    assert value(line) == "0"
    pin.close()
    assert (sysfs / "unexport").read_text() == "963"


def test_a_line_that_is_not_exported_is_asked_for(sysfs: Path) -> None:
    """The made-up kernel gives no line for the asking: what remains is the request and the error."""
    with pytest.raises(InputError, match=r"no GPIO output 7 \(.*\): run as root on the board, check gate\.gpio_pin"):
        open_pin(GateSettings(kind="gpio", gpio_pin=7))
    assert (sysfs / "export").read_text() == "967"


@pytest.mark.usefixtures("bare_sysfs")
def test_without_a_chip_the_error_is_one_line() -> None:
    with pytest.raises(
        InputError, match=r"^no GPIO input 3 \(.*\): run as root on the board, check camera\.barrier_pin$"
    ):
        open_gpio(3, "in", "camera.barrier_pin")


def test_without_pynq_the_error_is_one_line() -> None:
    """In a Python that sees this repository but no installed packages."""
    asked = "from board.gate.gpio import open_gpio\nopen_gpio(3, 'out', 'gate.gpio_pin')"
    answer = subprocess.run(
        [sys.executable, "-S", "-c", asked], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert answer.returncode != 0
    last = answer.stderr.splitlines()[-1]
    assert last.endswith("gate.gpio_pin needs the board's pynq package (No module named 'pynq'): run it on the board")


@pytest.fixture
def gate(line: Path) -> Gate:  # noqa: ARG001 - the pin needs its line
    """Opens 200 ms after the trigger, for 100 ms; each test closes it."""
    settings = GateSettings(kind="gpio", distance_mm=100, window_mm=40, lead_ms=0, gpio_pin=3)
    gate = open_gate(settings, 400, motion=MotionSettings(by="nothing"))
    assert isinstance(gate, Gate)
    gate.seen_until(MAX_T_NS)
    return gate


def test_the_gate_lets_a_good_part_through_at_its_time(gate: Gate, line: Path) -> None:
    start_s = time.monotonic()
    gate.apply(Trigger("run", 0, time.monotonic_ns(), clock_id()), "OK")
    opened_s = time_until(lambda: value(line) == "1")
    closed_s = time_until(lambda: value(line) == "0")
    gate.close()
    assert opened_s - start_s == pytest.approx(0.2, abs=TOLERANCE_S)
    assert closed_s - start_s == pytest.approx(0.3, abs=TOLERANCE_S)


@pytest.mark.parametrize("decision", ["REJECT", "UNKNOWN"])
def test_the_gate_stays_closed_for_other_parts(gate: Gate, line: Path, decision: str) -> None:
    gate.apply(Trigger("run", 0, time.monotonic_ns(), clock_id()), decision)  # type: ignore[arg-type]
    until_s = time.monotonic() + 0.35
    while time.monotonic() < until_s:
        assert value(line) != "1"
        time.sleep(0.002)
    gate.close()


def test_a_closed_gate_gives_its_line_back(gate: Gate, line: Path, sysfs: Path) -> None:
    gate.apply(Trigger("run", 0, time.monotonic_ns(), clock_id()), "OK")
    time_until(lambda: value(line) == "1")
    gate.close()  # while the part is passing
    assert value(line) == "0"
    assert (sysfs / "unexport").read_text() == "963"


def test_edges_of_the_barriers_line_are_triggers(line: Path) -> None:
    barrier = LightBarrier(open_gpio(3, "in", "camera.barrier_pin"))
    assert (line / "direction").read_text() == "in"
    edges_s = []
    for _ in range(5):
        time.sleep(0.04)
        edges_s.append(time.monotonic())
        set_level(line, 1)
        time.sleep(0.02)
        set_level(line, 0)
    triggers = [barrier.next(1.0) for _ in range(5)]
    assert barrier.next(0.1) is None
    barrier.close()
    assert [trigger.part_id for trigger in triggers if trigger] == [0, 1, 2, 3, 4]
    stamped_s = [trigger.t_ns / 1e9 for trigger in triggers if trigger]
    assert stamped_s == pytest.approx(edges_s, abs=TOLERANCE_S)


def set_level(line: Path, level: int) -> None:
    """At once, as a wire does: a plain file would be empty for a moment while it is written."""
    new = line / "new"
    new.write_text(f"{level}\n")
    new.replace(line / "value")


def time_until(is_so: Callable[[], bool]) -> float:
    deadline_s = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    return time.monotonic()
