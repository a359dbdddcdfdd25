"""The overlay as an engine: a program in contiguous memory, one start a frame, a deadline on every wait.

The driver is the same on the board and in simulation. What differs is the `Fabric`: how registers are reached and where
memory comes from (`fpga_pynq.py`, `fpga_sim.py`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from board.engines.answer import drop_single
from board.overlay import isa
from board.overlay.errors import explain
from board.overlay.fabric import Buffer, Fabric
from board.overlay.isa import Segment
from board.overlay.program import PROGRAM_BIN, Program, decode_file, pack_image, unpack_output
from board.overlay.registers import (
    CONTROL_IRQ_ENABLE,
    CONTROL_RESET,
    CONTROL_START,
    COUNTERS,
    ID_VALUE,
    STATUS_BUSY,
    STATUS_DONE,
    STATUS_ERROR,
)
from board.seams import Files
from protocol.errors import EngineError

WATCHDOG_CYCLES = 1_000_000  # without any progress: 10 ms at 100 MHz, far more than a busy memory ever takes
LOST_INTERRUPT_S = 0.02  # STATUS is looked at so often, whether or not an interrupt comes
RESET_WITHIN_S = 0.2  # bursts that are under way take microseconds
REBUILD = "rebuild the overlay: `beltsight overlay`"


class Logic:
    """The one overlay, on which the engines of several models take turns frame by frame.

    It is loaded for the first engine, and let go with the last.
    """

    def __init__(self, open_fabric: Callable[[], Fabric]) -> None:
        self.lock = threading.RLock()  # held while the engine's registers are used
        self.bus = threading.RLock()  # held while the line's are, and while the logic is loaded: nothing would answer
        self.armed: FpgaEngine | None = None  # whose program and memory the registers name
        self._open = open_fabric
        self._fabric: Fabric | None = None
        self._engines = 0

    def reload(self) -> None:
        """Raises: EngineError."""
        with self.bus:
            if self._fabric:
                self._fabric.reload()

    def join(self) -> Fabric:
        """Raises: EngineError."""
        with self.lock:
            if self._fabric is None:
                self._fabric = self._open()
            self._engines += 1
            return self._fabric

    def leave(self) -> None:
        with self.lock:
            self._engines -= 1
            if self._engines == 0 and self._fabric:
                self._fabric.close()
                self._fabric = self.armed = None


def load_program(files: Files) -> Program:
    """Raises: ManifestError without a program in the package, ProgramError if it is for another overlay."""
    return decode_file(files.path(PROGRAM_BIN).read_bytes())


class FpgaEngine:
    def __init__(self, logic: Logic, name: str, program: Program, deadline_s: float) -> None:
        """Raises: EngineError, and then holds nothing."""
        self.name = name
        self._logic, self._program, self._deadline_s = logic, program, deadline_s
        self._buffers: dict[Segment, Buffer] = {}
        self._fabric = logic.join()
        try:
            with logic.lock:
                self._load()
        except EngineError:
            self.close()
            raise

    def _load(self) -> None:
        _check_version(self._fabric)
        sizes = dict(zip(Segment, self._program.segment_bytes(), strict=True))
        for segment, size in sizes.items():
            if size:  # subtle: a buffer of no bytes cannot be had; an unused segment has size 0 and no buffer
                self._buffers[segment] = self._fabric.allocate(size)
        self._buffers[Segment.MODEL].content[:] = np.frombuffer(self._program.model, np.uint8)
        for buffer in self._buffers.values():
            self._fabric.flush(buffer)  # also of what only the overlay writes: no old line may be written back over it
        self._arm()

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        if image.dtype != np.uint8 or image.shape != (*self._program.input_px, 3):
            raise EngineError(
                f"{self.name} takes uint8 {(*self._program.input_px, 3)}, not {image.dtype} {image.shape}"
            )
        picture = self._buffers[Segment.INPUT]
        picture.content[:] = np.frombuffer(pack_image(image), np.uint8)
        self._fabric.flush(picture)
        with self._logic.lock:
            if self._logic.armed is not self:
                self._arm()
            self._run()
        output = self._buffers[Segment.OUTPUT]
        self._fabric.invalidate(output)
        return drop_single(unpack_output(self._program, output.content.tobytes()))

    def counters(self) -> dict[str, int]:
        """Cycles and beats of the last frame, by the names of their registers."""
        return {name: self._fabric.read(name) for name in COUNTERS}

    def close(self) -> None:
        with self._logic.lock:
            if self._logic.armed is self:
                self._logic.armed = None
                with contextlib.suppress(EngineError):  # when not even that helps, nothing does
                    if not self._stop():
                        self._logic.reload()  # memory that the overlay may still write must not become somebody else's
            for buffer in self._buffers.values():
                self._fabric.free(buffer)
            self._buffers.clear()
            self._logic.leave()

    def _arm(self) -> None:
        """Tell the registers where everything lies; a reset, a new overlay or another model has changed it."""
        for segment in Segment:
            buffer = self._buffers.get(segment)
            self._fabric.write(f"SEGMENT{segment}", buffer.address if buffer else 0)
            self._fabric.write(f"SIZE{segment}", buffer.content.size if buffer else 0)
        self._fabric.write("PROGRAM", 0)
        self._fabric.write("INSTRUCTIONS", self._program.instruction_count)
        self._fabric.write("WATCHDOG", WATCHDOG_CYCLES)
        self._acknowledge()
        self._logic.armed = self

    def _run(self) -> None:
        """One frame from start to end. Raises: EngineError, and then the overlay is ready for the next one."""
        self._fabric.write("CONTROL", CONTROL_START | CONTROL_IRQ_ENABLE)
        status = self._wait()
        if status & STATUS_DONE:
            self._acknowledge()
            return
        if status & STATUS_ERROR:
            trouble = explain(self._fabric.read("ERROR"), self._fabric.read("ERROR_PC"))
        else:
            trouble = (
                f"no result within {self._deadline_s:g} s: see whether the memory or the clock of the logic stands"
            )
        self._logic.armed = None
        if not self._stop():
            self._logic.reload()
        self._arm()
        raise EngineError(f"{self.name}: {trouble}")

    def _wait(self) -> int:
        """STATUS at the end of the frame, or at the deadline."""
        end_s = time.monotonic() + self._deadline_s
        while True:
            status = self._fabric.read("STATUS")
            left_s = end_s - time.monotonic()
            if status & (STATUS_DONE | STATUS_ERROR) or left_s <= 0:
                return status
            self._fabric.wait(min(left_s, LOST_INTERRUPT_S))

    def _stop(self) -> bool:
        """Reset; whether the overlay has come to rest, so that nothing late can reach the memory any more."""
        self._fabric.write("CONTROL", CONTROL_RESET)
        end_s = time.monotonic() + RESET_WITHIN_S
        while self._fabric.read("STATUS") & STATUS_BUSY:
            if time.monotonic() > end_s:
                return False
        return True

    def _acknowledge(self) -> None:
        self._fabric.write("STATUS", STATUS_DONE | STATUS_ERROR)


def _check_version(fabric: Fabric) -> None:
    """Raises: EngineError if another design answers, or an overlay that was built from other sources."""
    identity, version = fabric.read("ID"), fabric.read("VERSION")
    if identity != ID_VALUE:
        raise EngineError(f"no overlay of Beltsight answers, but {identity:08x}: {REBUILD}")
    if version != isa.version():
        raise EngineError(f"overlay {version:08x}, this program needs {isa.version():08x}: {REBUILD}")
