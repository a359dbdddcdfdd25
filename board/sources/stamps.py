"""What one of the overlay's two light barriers has filtered, numbered and stamped: how late we look does not matter."""

from __future__ import annotations

import time
from typing import Literal, NamedTuple

from board.gate.timer import LineTimer, signed

SEQUENCES = 1 << 32  # numbers of the overlay's timer, which then begin again


class Stamp(NamedTuple):
    number: int  # of the interruption; those that are missing before it were lost
    t_ns: int  # on our monotonic clock
    counts: int  # the belt's position, of the overlay's encoder


class Stamps:
    def __init__(
        self, timer: LineTimer, barrier: Literal["BARRIER", "PASSAGE"], filter_us: float, *, inverted: bool
    ) -> None:
        """`barrier`: how its registers begin. Raises: EngineError."""
        self._timer, self._barrier = timer, barrier
        self._filter_us, self._inverted = filter_us, inverted
        self._next_number = 0
        self._next_sequence: int | None = None  # None: whatever comes first
        self._generation = 0
        self._prepare()

    def take(self) -> Stamp | None:
        """The oldest that was not taken yet. Raises: EngineError."""
        with self._timer.lock:  # a stamp of one overlay and the time of the next would give a part in the far future
            return self._take()

    def _prepare(self) -> None:
        """Set the filter, and forget what an input that was not inverted yet looked like."""
        self._generation = self._timer.look()
        cycles = max(1, round(self._filter_us * self._timer.clock_hz / 1e6))
        self._write("FILTER", cycles | self._inverted << 31)
        time.sleep(2 * cycles / self._timer.clock_hz)
        while self._read("NEXT")[0]:
            self._write("NEXT", 0)
        self._next_sequence = None

    def _take(self) -> Stamp | None:
        if self._timer.look() != self._generation:
            self._prepare()
            self._next_number += 1  # who knows how many: one at least is missing
        if not self._read("NEXT")[0]:
            return None
        low, high, sequence = self._read("LOW", "HIGH", "SEQUENCE")
        position_low, position_high = self._read("POSITION_LOW", "POSITION_HIGH")
        self._write("NEXT", 0)
        if self._next_sequence is not None:
            self._next_number += (sequence - self._next_sequence) % SEQUENCES
        number, self._next_number = self._next_number, self._next_number + 1
        self._next_sequence = sequence + 1
        return Stamp(number, self._timer.ns_at(high << 32 | low), signed(position_high << 32 | position_low))

    def _read(self, *registers: str) -> tuple[int, ...]:
        return self._timer.read(*(f"{self._barrier}_{register}" for register in registers))

    def _write(self, register: str, value: int) -> None:
        self._timer.write(**{f"{self._barrier}_{register}": value})
