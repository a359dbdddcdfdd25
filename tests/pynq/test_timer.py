"""The timer's driver through the real pynq package, unpatched, on a device whose logic is the simulated timer."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pynq
import pytest

from board.engines.fpga_pynq import FpgaSettings, find_logic
from board.gate.gate import open_gate
from board.gate.motion import MotionSettings
from board.gate.settings import GateSettings
from board.gate.timer import LineTimer
from board.overlay.simulation.pynq_device import NAMES, PLL_CONTROLS, PLL_TIMES_20, SLCR
from board.overlay.simulation.timer import SimulatedTimer, build_timer
from board.sources.barrier import TimerBarrier
from protocol.messages import MAX_T_NS, Trigger

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = GateSettings(kind="timer", distance_mm=200, window_mm=40, lead_ms=5)
SPEED_MM_S = 1000.0
CLOCK_MHZ = 0.252  # the slowest that the Zynq's dividers make: the simulation has to keep up with it
TOLERANCE_MS = 2.0


class TimerDevice(pynq.Device):  # type: ignore[misc]
    """Registers at one address, and the Zynq's clocks: of these pynq makes the clock that the driver goes by."""

    def __init__(self, library: Path, address: int) -> None:
        super().__init__("simulated timer")
        self.capabilities = {"MEMORY_MAPPED": True}
        self.arch, self.name = "armv7l", "simulated timer"
        self.address = address
        self.timer = SimulatedTimer(library, CLOCK_MHZ * 1e6)
        self.slcr = np.zeros(0x200 // 4, np.uint32)
        self.slcr[[offset // 4 for offset in PLL_CONTROLS]] = PLL_TIMES_20
        self.downloads = 0

    def download(self, _bitstream: Any, parser: Any = None) -> None:  # noqa: ARG002 - there is no .hwh
        self.timer.reload()
        self.downloads += 1

    def mmap(self, base_addr: int, _length: int) -> Any:
        if base_addr == SLCR:
            return self.slcr
        if base_addr != self.address or not self.downloads:
            raise OSError(f"the bus hangs: nothing answers at {base_addr:08x}")
        return self

    def __getitem__(self, index: int) -> int:
        return self.timer.read(NAMES[4 * index])

    def __setitem__(self, index: int, value: int) -> None:
        self.timer.write(NAMES[4 * index], int(value))


@pytest.fixture
def settings(tmp_path: Path) -> FpgaSettings:
    bitstream = tmp_path / "beltsight.bit"
    bitstream.write_bytes(b"the simulated device does not look into it")
    return FpgaSettings(bitstream, clock_mhz=CLOCK_MHZ)


@pytest.fixture
def device(settings: FpgaSettings) -> TimerDevice:
    if not shutil.which("g++"):
        pytest.skip("the simulated timer is compiled with g++, which is not installed")
    device = TimerDevice(build_timer(ROOT / "build" / "overlay"), settings.address)
    pynq.Device.active_device = device
    return device


@pytest.fixture
def timer(device: TimerDevice, settings: FpgaSettings) -> Iterator[LineTimer]:
    timer = LineTimer(find_logic(settings))
    assert device.downloads == 1
    yield timer
    timer.close()


def test_the_clock_is_the_one_that_pynq_has_set(timer: LineTimer) -> None:
    assert timer.clock_hz == pytest.approx(CLOCK_MHZ * 1e6, rel=0.001)


def test_a_part_is_stamped_and_the_gate_opens_for_it(timer: LineTimer, device: TimerDevice) -> None:
    barrier = TimerBarrier(timer, filter_us=500, inverted=False)
    gate = open_gate(SETTINGS, SPEED_MM_S, timer, motion=MotionSettings(by="nothing"))
    gate.seen_until(MAX_T_NS)
    edge_ns = device.timer.set_pins(barrier=True)
    trigger = barrier.next(5.0)
    assert trigger is not None
    assert trigger.t_ns == pytest.approx(edge_ns, abs=TOLERANCE_MS * 1e6)
    gate.apply(Trigger("run", 0, trigger.t_ns, "clock"), "OK")
    time.sleep(0.4)
    moves = [((t_ns - edge_ns) / 1e6, is_open) for t_ns, is_open in device.timer.moves()]
    assert [is_open for _, is_open in moves] == [True, False], moves
    assert [t_ms for t_ms, _ in moves] == pytest.approx([175, 215], abs=TOLERANCE_MS)
    gate.close()
