"""A model of the overlay's timer, fast enough for 200,000 parts; a test holds it to the Verilog.

Registers as in `board/overlay/registers.py`, as far as the gate needs them. How the belt runs is known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from board.overlay.fabric import Buffer
from board.overlay.registers import (
    BY_POSITION,
    ID_VALUE,
    MOTION_OVERRAN,
    MOTION_SILENT,
    REFUSED_FULL,
    REFUSED_LONG,
    REFUSED_MOTION,
    REFUSED_OVERLAP,
    REFUSED_PAST,
    timer_version,
)
from protocol.errors import EngineError

AHEAD_CYCLES = 8
WINDOWS = 8
NEVER = 1 << 62
LOW = 0xFFFF_FFFF
VERSION = timer_version()


class CountedBelt(Protocol):
    """The belt as its encoder counts it."""

    def counts(self, cycle: int) -> int: ...

    def cycle_of(self, counts: int) -> int:
        """When it is first counted so far."""

    def silent_from(self, cycle: int, silence: int) -> int:
        """The first cycle from this one on at which nothing has been counted for `silence` cycles, or NEVER."""


@dataclass
class FabricModel:
    """A `Fabric`; its time goes on when somebody says so."""

    clock_hz: float
    belt: CountedBelt
    cycle: int = 0
    moves: list[tuple[int, bool]] = field(default_factory=list)  # cycle, is open
    _values: dict[str, int] = field(default_factory=lambda: {"ID": ID_VALUE, "TIMER_VERSION": VERSION})
    _queue: list[tuple[int, int]] = field(default_factory=list)  # begin, end, in cycles or counts
    _is_open: bool = False
    _end: int = 0  # of the window that is open, in cycles or counts
    _ends: int = NEVER  # the cycle at which it closes at the latest
    _last: int = -NEVER  # end of the last one queued
    _fault: int = MOTION_SILENT
    _refused: int = 0

    def run_to(self, cycle: int) -> None:
        while True:
            begins = self._cycle_of(self._queue[0][0]) if self._queue else NEVER
            ends = self._ends
            silent = NEVER
            if self._by_position:
                ends = min(self.belt.cycle_of(self._end), ends) if self._is_open else NEVER
                is_noted = self._fault & MOTION_SILENT and not self._is_open and not self._queue
                silent = NEVER if is_noted else self.belt.silent_from(self.cycle, self._silence)
            nearest = min(begins, ends, silent)
            if nearest > cycle:
                break
            self.cycle = max(self.cycle, nearest)
            if nearest == silent:
                self._fault |= MOTION_SILENT
                self._shut()
            elif nearest == begins:
                self._begin()
            else:
                self._close(overruns=self._by_position and ends == self._ends)
        self.cycle = cycle

    def read(self, register: str) -> int:
        if register == "TIME_LOW":
            self._values["TIME_HIGH"] = self.cycle >> 32
            counts = self.belt.counts(self.cycle)
            self._values["POSITION_LOW"], self._values["POSITION_HIGH"] = counts & LOW, counts >> 32 & LOW
            return self.cycle & LOW
        if register == "ENCODER_FAULT":
            return self._fault
        if register == "GATE_REFUSED":
            return self._refused
        return self._values.get(register, 0)

    def write(self, register: str, value: int) -> None:
        if register == "GATE_CYCLES":
            self._add(self._values["GATE_HIGH"] << 32 | self._values["GATE_LOW"], value)
        elif register == "GATE_REFUSED":
            self._refused &= ~value
        elif register == "ENCODER_FAULT":
            is_silent = self.belt.silent_from(self.cycle, self._silence) <= self.cycle
            self._fault = self._fault & ~value | MOTION_SILENT * is_silent
        else:
            self._values[register] = value
            if register in {"GATE_SHUT", "GATE_LIMIT", "ENCODER_MODE"}:
                self._shut()

    @property
    def _by_position(self) -> bool:
        return bool(self._values.get("ENCODER_MODE", 0) & BY_POSITION)

    @property
    def _silence(self) -> int:
        return self._values.get("ENCODER_SILENCE", 0)

    def _add(self, start: int, length: int) -> None:
        start -= start >> 63 << 64
        past = start <= (self.belt.counts(self.cycle) if self._by_position else self.cycle + AHEAD_CYCLES)
        limit = self._values.get("GATE_LIMIT", 0)
        long = limit == 0 if self._by_position else length > limit
        refused = REFUSED_PAST * past | REFUSED_OVERLAP * (start <= self._last) | REFUSED_LONG * long
        refused |= REFUSED_FULL * (len(self._queue) >= WINDOWS)
        refused |= REFUSED_MOTION * (self._by_position and self._fault != 0)
        self._refused |= refused
        if not refused:
            self._queue.append((start, start + length))
            self._last = start + length

    def _cycle_of(self, place: int) -> int:
        return self.belt.cycle_of(place) if self._by_position else place

    def _begin(self) -> None:
        _, self._end = self._queue.pop(0)
        self._ends = self.cycle + self._values["GATE_LIMIT"] if self._by_position else self._end
        if not self._is_open:
            self.moves.append((self.cycle, True))
            self._is_open = True

    def _close(self, *, overruns: bool) -> None:
        self.moves.append((self.cycle, False))
        self._is_open, self._ends = False, NEVER
        if overruns:
            self._fault |= MOTION_OVERRAN
            self._shut()

    def _shut(self) -> None:
        self._queue.clear()
        self._last = -NEVER
        if self._is_open:
            self._close(overruns=False)

    def wait(self, timeout_s: float) -> None:
        self.run_to(self.cycle + int(timeout_s * self.clock_hz))

    def reload(self) -> None: ...

    def close(self) -> None: ...

    def allocate(self, size_bytes: int) -> Buffer:
        raise EngineError(f"the model has no memory for {size_bytes} bytes")

    def free(self, buffer: Buffer) -> None: ...

    def flush(self, buffer: Buffer) -> None: ...

    def invalidate(self, buffer: Buffer) -> None: ...
