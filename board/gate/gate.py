"""The reject gate: closed at rest, opened for parts that are OK while they pass.

A part whose verdict is REJECT, UNKNOWN, late or never made meets a closed gate: a hung station rejects everything.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from board.gate.gpio import open_gpio
from board.gate.timer import LineTimer
from board.log import say
from protocol.errors import EngineError, InputError
from protocol.messages import Decision, Trigger
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

NS_PER_S = 1_000_000_000
TURN_S = 0.1
SILENT_S = 0.5
CLOSE_WITHIN_S = 1.0
NOBODY = -1  # part id while the gate is at rest


@dataclass(frozen=True)
class GateSettings:
    kind: Literal["dry", "gpio", "timer"] = "dry"
    distance_mm: float = 300.0  # light barrier → gate
    window_mm: float = 80.0  # length of belt, centred on the part, for which the gate is held; less than between parts
    lead_ms: float = 5.0  # the gate's own reaction time
    dry_log: Path | None = None  # where the dry gate writes its movements, one JSON line each
    gpio_pin: int = 0  # user GPIO number (EMIO) of the gate's output

    def start_ns(self, belt_speed_mm_s: float) -> int:
        """From a part's trigger to the beginning of its window."""
        travel_s = (self.distance_mm - self.window_mm / 2) / belt_speed_mm_s
        return int((travel_s - self.lead_ms / 1e3) * NS_PER_S)

    def window_ns(self, belt_speed_mm_s: float) -> int:
        return int(self.window_mm / belt_speed_mm_s * NS_PER_S)

    def __post_init__(self) -> None:
        require(self.window_mm > 0, "window_mm", "must be above 0")
        require(self.distance_mm > self.window_mm / 2, "distance_mm", "must be more than half of window_mm")
        require(self.lead_ms >= 0, "lead_ms", "must be 0 or more")
        require(self.gpio_pin >= 0, "gpio_pin", "must be 0 or more")


class Pin(Protocol):
    """What moves: a dry record or a GPIO line."""

    def write(self, is_open: bool, part_id: int) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, order=True)
class Move:
    t_ns: int
    order: int
    part_id: int = field(compare=False)
    is_open: bool = field(compare=False)
    is_end: bool = field(compare=False)  # of the part's window: void once the next part holds the gate


class Gate:
    """Computes from trigger and belt speed when each part is at the gate, and moves the pin at those times."""

    def __init__(
        self, settings: GateSettings, belt_speed_mm_s: float, pin: Pin, supervisor: Supervisor = SUPERVISOR
    ) -> None:
        self._travel_ns = settings.start_ns(belt_speed_mm_s)
        self._window_ns = settings.window_ns(belt_speed_mm_s)
        self._pin = pin
        self._holder = NOBODY
        self._moves: list[Move] = []
        self._order = 0
        self._wake = threading.Condition()
        self._closing = False
        pin.write(False, NOBODY)
        self._is_held = False
        self._thread = supervisor.start("gate", self._run, silent_s=SILENT_S)

    def deadline_ns(self, trigger: Trigger) -> int:
        return trigger.t_ns + self._travel_ns

    def apply(self, trigger: Trigger, decision: Decision) -> None:
        start_ns = self.deadline_ns(trigger)
        if start_ns <= time.monotonic_ns():
            return  # the part met the gate at rest; moving it now would meet another
        with self._wake:
            self._plan(start_ns, trigger.part_id, is_open=decision == "OK", is_end=False)
            self._plan(start_ns + self._window_ns, trigger.part_id, is_open=False, is_end=True)
            self._wake.notify()

    def hold(self, is_held: bool) -> None:
        """Without the lock: whoever should close the gate may hang while it has it."""
        self._is_held = is_held
        if is_held:
            self._pin.write(False, NOBODY)

    def counters(self) -> dict[str, int]:
        """For the health report."""
        return {}

    def close(self) -> None:
        """Leaves the gate closed: nothing passes a station that is off."""
        self._thread.stop(self._tell_to_end, CLOSE_WITHIN_S)
        self._pin.write(False, NOBODY)
        self._pin.close()

    def _plan(self, t_ns: int, part_id: int, *, is_open: bool, is_end: bool) -> None:
        self._order += 1
        heapq.heappush(self._moves, Move(t_ns, self._order, part_id, is_open, is_end))

    def _tell_to_end(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()

    def _run(self, supervised: Supervised) -> None:
        with self._wake:
            while not self._closing:
                supervised.beat()
                now_ns = time.monotonic_ns()
                while self._moves and self._moves[0].t_ns <= now_ns:
                    self._make(heapq.heappop(self._moves))
                next_s = (self._moves[0].t_ns - now_ns) / NS_PER_S if self._moves else TURN_S
                self._wake.wait(min(next_s, TURN_S))

    def _make(self, move: Move) -> None:
        if move.is_end and move.part_id != self._holder:
            return
        self._holder = NOBODY if move.is_end else move.part_id
        # On a machine that stood still: the part has gone by, and what is at the gate now is another.
        is_gone = time.monotonic_ns() >= move.t_ns + self._window_ns
        self._pin.write(move.is_open and not is_gone and not self._is_held, move.part_id)


class TimerGate:
    """Programs each part's window into the overlay's timer, which closes the gate at its end whatever becomes of us."""

    def __init__(self, settings: GateSettings, belt_speed_mm_s: float, timer: LineTimer) -> None:
        """Raises: EngineError."""
        self._timer = timer
        self._travel_ns = settings.start_ns(belt_speed_mm_s)
        self._window = round(settings.window_ns(belt_speed_mm_s) * timer.clock_hz / NS_PER_S)
        self._generation = 0
        self._end = 0  # of the last window, in the timer's cycles
        self._refused = 0
        self._is_held = False
        self._prepare()

    def deadline_ns(self, trigger: Trigger) -> int:
        return trigger.t_ns + self._travel_ns

    def apply(self, trigger: Trigger, decision: Decision) -> None:
        """Raises: EngineError."""
        start_ns = self.deadline_ns(trigger)
        if start_ns <= time.monotonic_ns():
            return  # as of the other gates
        with self._timer.lock:
            if self._timer.look() != self._generation:
                self._prepare()
            start = self._timer.cycles_at(start_ns)
            if decision == "OK" and not self._is_held:
                self._open(start, start + self._window, trigger.part_id)
            else:
                self._queue(start, 0, trigger.part_id)
                self._end = min(self._end, start)

    def hold(self, is_held: bool) -> None:
        self._is_held = is_held
        if is_held:
            with contextlib.suppress(EngineError):  # then the end of its window closes it
                self._timer.write(GATE_SHUT=1)

    def counters(self) -> dict[str, int]:
        """For the health report."""
        return {"gate_refused": self._refused}

    def close(self) -> None:
        with contextlib.suppress(EngineError):  # then the end of its window closes it
            self._timer.write(GATE_SHUT=1)

    def _prepare(self) -> None:
        """After the start, and when the overlay was loaded anew: without a limit the timer opens for nobody."""
        self._generation = self._timer.look()
        self._timer.write(GATE_SHUT=1, GATE_LIMIT=self._window)
        self._end = 0

    def _open(self, start: int, end: int, part_id: int) -> None:
        """Where the part before still holds the gate, the window begins behind that one's: one stays one."""
        start = max(start, self._end + 1)
        if start < end:
            self._queue(start, end - start, part_id)
            self._end = end

    def _queue(self, start: int, cycles: int, part_id: int) -> None:
        why = self._timer.queue_window(start, cycles)
        if why:
            self._refused += 1
            say(f"the gate stays closed for part {part_id}: {why}", level="WARNING", part_id=part_id)


class DryPin:
    """Moves nothing; writes when it would have, so that a simulation can check what passed."""

    def __init__(self, log: Path | None) -> None:
        try:
            self._log = log.open("w", buffering=1, encoding="utf-8") if log else None
        except OSError as error:
            raise InputError(f"cannot write {log} ({error.strerror}): correct [gate] dry_log") from None

    def write(self, is_open: bool, part_id: int) -> None:
        if self._log:
            line = {"t_ns": time.monotonic_ns(), "part_id": part_id, "open": is_open}
            self._log.write(json.dumps(line) + "\n")

    def close(self) -> None:
        if self._log:
            self._log.close()


class GpioPin:
    """A GPIO output through `pynq`: high lets the part through."""

    def __init__(self, user_pin: int) -> None:
        self._pin = open_gpio(user_pin, "out", "gate.gpio_pin")

    def write(self, is_open: bool, part_id: int) -> None:  # noqa: ARG002 - the seam of all pins
        self._pin.write(int(is_open))

    def close(self) -> None:
        self._pin.release()


def open_gate(settings: GateSettings, belt_speed_mm_s: float, timer: LineTimer | None = None) -> Gate | TimerGate:
    """`timer` is needed for the kind of that name. Raises: InputError if the pin cannot be had; EngineError."""
    if settings.kind == "timer" and timer:
        return TimerGate(settings, belt_speed_mm_s, timer)
    if settings.kind == "gpio":
        return Gate(settings, belt_speed_mm_s, GpioPin(settings.gpio_pin))
    return Gate(settings, belt_speed_mm_s, DryPin(settings.dry_log))
