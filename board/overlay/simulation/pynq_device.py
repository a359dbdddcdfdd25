"""A `pynq.Device` with the simulated overlay behind it: what pynq does to a board happens to the simulation.

Time passes with every access to a register. Processor and overlay see each other's writes only after a flush or an
invalidate, as behind a cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pynq
from numpy.typing import NDArray
from pynq.buffer import PynqBuffer
from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser
from pynqmetadata.frontends import Metadata

from board.overlay.registers import OFFSETS, STATUS_BUSY
from board.overlay.simulation.simulator import BASE, Simulator

NAMES = {offset: name for name, offset in OFFSETS.items()}
MEMORY_BYTES = 1 << 26
PAGE_BYTES = 4096
CYCLES_PER_READ = 500  # a look at STATUS costs the processor microseconds
MOST_CYCLES = 2_000_000
SLCR = 0xF800_0000  # the Zynq's system level control registers (UG585, B.28); the clocks are among them
PLL_CONTROLS, PLL_TIMES_20 = (0x100, 0x104, 0x108), 20 << 12  # from the board's 50 MHz to 1000 MHz
CLOCK0_CONTROL, CLOCK0_AFTER_RESET = 0x170, 0x0010_1800


class SimulatedDevice(pynq.Device):  # type: ignore[misc]
    def __init__(self, library: Path, register_address: int) -> None:
        super().__init__("simulated")
        self.capabilities = {"MEMORY_MAPPED": True}
        self.arch = "armv7l"
        self.name = "simulated"
        self.simulator = Simulator(library, MEMORY_BYTES)
        self.register_address = register_address
        self.answers: dict[str, int] = {}  # registers in which another design would differ
        self.interrupt: Callable[[], object] | None = (
            None  # called when the overlay raises it: soon after a look at STATUS
        )
        self.downloads = 0
        self.reads = 0  # of registers
        self.buffers: set[int] = set()  # those that are allocated, by their place
        self._next = 0
        self._slcr = np.zeros(0x200 // 4, np.uint32)
        self._slcr[[offset // 4 for offset in PLL_CONTROLS]] = PLL_TIMES_20
        self._slcr[CLOCK0_CONTROL // 4] = CLOCK0_AFTER_RESET

    def download(self, bitstream: Any, parser: Any = None) -> None:
        self.simulator.power_up()
        self.downloads += 1
        if parser is None:
            self.clear_dict()
        else:
            self.post_download(bitstream, parser, self.name)

    def get_bitfile_metadata(self, bitfile_name: str) -> Any:
        return RuntimeMetadataParser(Metadata(input=str(Path(bitfile_name).with_suffix(".hwh"))))

    def mmap(self, base_addr: int, length: int) -> Any:
        if base_addr == SLCR:
            return self._slcr
        if base_addr != self.register_address or length > PAGE_BYTES or not self.downloads:
            raise OSError(f"the bus hangs: nothing answers at {base_addr:08x}")
        return _Registers(self)

    def allocate(self, shape: Any, dtype: Any, **_: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start, self._next = self._next, self._next + -(-size // PAGE_BYTES) * PAGE_BYTES
        if self._next > MEMORY_BYTES:
            raise RuntimeError("Failed to allocate memory")
        buffer = _Buffer(shape, dtype, device=self, bo=start, device_address=BASE + start, coherent=False)
        buffer[:] = self.simulator.memory[start : start + size] = 0xA5  # what somebody left there
        buffer.memory = self
        self.buffers.add(start)
        return buffer

    def flush(self, bo: int, offset: int, ptr: int, size: int) -> None:
        self._memory(bo + offset, size)[:] = _seen_by_processor(ptr, size)

    def invalidate(self, bo: int, offset: int, ptr: int, size: int) -> None:
        _seen_by_processor(ptr, size)[:] = self._memory(bo + offset, size)

    def _memory(self, start: int, size: int) -> NDArray[np.uint8]:
        return self.simulator.memory[start : start + size]


class _Buffer(PynqBuffer):  # type: ignore[misc]
    def freebuffer(self) -> None:
        if hasattr(self, "memory"):  # a slice has none
            self.device.buffers.discard(self.bo)


class _Registers:
    """What `pynq.MMIO` takes for a mapped array of 32-bit words."""

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device

    def __getitem__(self, index: int) -> int:
        device, name = self._device, NAMES[4 * index]
        device.reads += 1
        if not device.interrupt:
            device.simulator.wait(CYCLES_PER_READ)
        value = device.answers.get(name, device.simulator.read(name))
        if device.interrupt and name == "STATUS" and value & STATUS_BUSY and device.simulator.wait(MOST_CYCLES):
            device.interrupt()
        device.simulator.check()
        return value

    def __setitem__(self, index: int, value: int) -> None:
        self._device.simulator.write(NAMES[4 * index], int(value))


def _seen_by_processor(address: int, size: int) -> NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
