"""The board's programmable logic through `pynq`: the overlay is loaded, registers are mapped, memory is allocated."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from board.engines.clock import check_hwh_clock, find_clock_mhz, set_clock
from board.engines.fpga import FpgaEngine, Logic
from board.overlay.fabric import Buffer
from board.overlay.program import Program
from board.overlay.registers import DEFAULT_ADDRESS, OFFSETS
from protocol.errors import EngineError
from protocol.strict import require

IP_NAME = "beltsight_overlay"  # in the type of its block, as the .hwh tells it
REGISTER_BYTES = 4096
FASTEST_MHZ = 100.0
POLL_S = 0.0002  # without an interrupt: a hundredth of a frame
UNMASK = (1).to_bytes(4, "little")  # what a UIO device takes to let its interrupt through once more


@dataclass(frozen=True)
class FpgaSettings:
    bitstream: Path = Path("../build/overlay/beltsight.bit")  # with its .hwh beside it, where there is one
    deadline_s: float = 0.2  # of a frame; the largest networks take 0.02
    address: int = DEFAULT_ADDRESS  # of the registers, where no .hwh tells it
    clock_mhz: float = 100.0  # of the logic, where no .hwh tells it; slower if the .json beside the bitstream says so
    interrupt: int = 61  # of the processor, IRQ_F2P[0]; without a UIO device for it, STATUS is polled

    def __post_init__(self) -> None:
        require(0 < self.deadline_s <= 60, "deadline_s", "must be above 0 and at most 60")
        require(
            0 < self.clock_mhz <= FASTEST_MHZ,
            "clock_mhz",
            "must be above 0 and at most 100, for which the overlay is made",
        )
        require(self.address >= 0 and self.address % REGISTER_BYTES == 0, "address", "must be a multiple of 4096")


def find_logic(settings: FpgaSettings) -> Logic:
    """Of this board; the overlay is loaded when the first engine is opened on it."""
    return Logic(lambda: PynqFabric(settings))


def open_fpga(program: Program, settings: FpgaSettings, logic: Logic) -> FpgaEngine:
    """Raises: EngineError."""
    return FpgaEngine(logic, "fpga", program, settings.deadline_s)


class PynqFabric:
    def __init__(self, settings: FpgaSettings) -> None:
        """Raises: EngineError without pynq, without the bitstream, or if it cannot be loaded."""
        try:
            import pynq  # noqa: PLC0415 - the vendor package of this driver alone
            from pynq.interrupt import get_uio_irq  # noqa: PLC0415
        except ImportError as error:
            raise EngineError(f"fpga needs the board's pynq package ({error}): run it on the board") from None
        if not settings.bitstream.is_file():
            raise EngineError(f"no overlay at {settings.bitstream}: make it with `beltsight overlay`")
        self._pynq = pynq
        self._interrupt: int | None = None
        with _translated(f"cannot load {settings.bitstream}", "run as root on the board"):
            self._bitstream, address, self._most_mhz = _open_bitstream(pynq, settings)
            self._registers = pynq.MMIO(address, REGISTER_BYTES)
            self.clock_hz = float(pynq.Clocks.fclk0_mhz) * 1e6
        with _translated(f"cannot open interrupt {settings.interrupt}", "run as root on the board"):
            self._interrupt = _open_interrupt(get_uio_irq, settings.interrupt)

    def read(self, register: str) -> int:
        return int(self._registers.read(OFFSETS[register]))

    def write(self, register: str, value: int) -> None:
        self._registers.write(OFFSETS[register], value)

    def allocate(self, size_bytes: int) -> Buffer:
        with _translated(f"cannot allocate {size_bytes} contiguous bytes", "stop what else uses the logic"):
            content = self._pynq.allocate((size_bytes,), "u1")
            return Buffer(content, int(content.device_address))

    def free(self, buffer: Buffer) -> None:
        vendor: Any = buffer.content
        vendor.freebuffer()

    def flush(self, buffer: Buffer) -> None:
        with _translated("cannot flush a buffer", "restart the board"):
            vendor: Any = buffer.content
            vendor.flush()

    def invalidate(self, buffer: Buffer) -> None:
        with _translated("cannot invalidate a buffer", "restart the board"):
            vendor: Any = buffer.content
            vendor.invalidate()

    def wait(self, timeout_s: float) -> None:
        if self._interrupt is None:
            time.sleep(min(timeout_s, POLL_S))
            return
        with _translated("cannot wait for the interrupt", "restart the board"):
            os.write(self._interrupt, UNMASK)
            if select.select([self._interrupt], [], [], timeout_s)[0]:
                os.read(self._interrupt, 4)

    def reload(self) -> None:
        with _translated("cannot load the overlay again", "restart the board"):
            _load(self._pynq, self._bitstream, self._most_mhz)

    def close(self) -> None:
        if self._interrupt is not None:
            os.close(self._interrupt)
            self._interrupt = None


def _open_bitstream(pynq: Any, settings: FpgaSettings) -> tuple[Any, int, float]:
    """The loaded bitstream, the address of its registers, and the most that its clock may be."""
    path = str(settings.bitstream)
    if not settings.bitstream.with_suffix(".hwh").is_file():
        bitstream, most_mhz = pynq.Bitstream(path), find_clock_mhz(settings.bitstream, settings.clock_mhz)
        _load(pynq, bitstream, most_mhz)
        return bitstream, settings.address, most_mhz
    overlay, most_mhz = pynq.Overlay(path, download=False), find_clock_mhz(settings.bitstream, FASTEST_MHZ)
    addresses = [block["phys_addr"] for block in overlay.ip_dict.values() if IP_NAME in block["type"]]
    if len(addresses) != 1:
        raise EngineError(f"{path} has {len(addresses)} blocks {IP_NAME}, not one: use the one of `beltsight overlay`")
    check_hwh_clock(pynq.Clocks, overlay.clock_dict[0], most_mhz)
    _load(pynq, overlay, most_mhz)
    return overlay, int(addresses[0]), most_mhz


def _load(pynq: Any, bitstream: Any, most_mhz: float) -> None:
    """The kernel holds the logic's reset while it is loaded; the clock is right before that ends.

    Raises: EngineError.
    """
    set_clock(pynq.Clocks, most_mhz)
    bitstream.download()  # with a .hwh, pynq sets the clock that this says, first


def _open_interrupt(get_uio_irq: Any, number: int) -> int | None:
    """File descriptor of the UIO device of an interrupt of the processor, or None where there is none."""
    try:
        path = get_uio_irq(number)
    except FileNotFoundError:  # no /sys/class/uio: the kernel was started without UIO devices
        return None
    return os.open(path, os.O_RDWR) if path else None


@contextlib.contextmanager
def _translated(what: str, advice: str) -> Iterator[None]:
    """pynq has no errors of its own: what its drivers, its parsers and the kernel raise becomes an EngineError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError, TypeError, SyntaxError) as error:
        raise EngineError(f"{what} ({error}): {advice}") from None
