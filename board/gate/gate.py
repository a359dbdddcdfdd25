"""The reject gate: closed at rest, opened for parts that are OK while they pass.

A part whose verdict is REJECT, UNKNOWN, late or never made meets a closed gate: a hung station rejects everything.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from board.gate.ahead import Driver
from board.gate.gpio import open_gpio
from board.gate.keeper import Keeper, Mode
from board.gate.lease import Lease
from board.gate.motion import MotionSettings
from board.gate.pins import DryPin, GpioPin, Pin
from board.gate.settings import GateSettings
from board.gate.timer import LineTimer
from board.gate.timer_gate import TimerGate
from board.gate.tracks import BeltTrack, TimeTrack, Track
from board.log import say
from protocol.errors import InputError
from protocol.supervision import SUPERVISOR, Supervisor

NOBODY = -1  # part id while the gate is at rest
RETRY_NS = 1_000_000
UNMEASURED = 'nobody measures the belt: set [motion] by to "encoder" or "barriers", or to "nothing" on your own word'
PIN_ERRORS = (OSError, ValueError)  # ValueError: of a line that was released


class Gate(Driver):
    """Moves a pin, when and only when the keeper says so."""

    def __init__(
        self, keeper: Keeper, pin: Pin, now_ns: Callable[[], int] = time.monotonic_ns, lease: Lease | None = None
    ) -> None:
        """Raises: OSError, ValueError when it cannot even be closed."""
        super().__init__(keeper, now_ns)
        self._pin, self._lease = pin, lease
        pin.write(False, NOBODY)
        self._stands = (False, NOBODY)
        self._is_unsure = False  # another thread has closed it

    def start(self, supervisor: Supervisor) -> None:
        if self._lease:
            self._lease.watch(supervisor)
        super().start(supervisor)

    def turn(self) -> int:
        now_ns = self._now_ns()
        with self._wake:
            self._has_news = False
            opens = self._keeper.look(now_ns) and not self._is_held
            part_id = self._keeper.part_at(now_ns) if opens else NOBODY
            until_ns = self._keeper.open_until_ns(now_ns) if opens else now_ns
            next_ns = self._keeper.next_look_ns(now_ns)
        if self._faults.must_close or self._faults.is_distrusted(now_ns):
            opens = False
        if self._lease and self._lease.has_run_out(now_ns):
            self._is_unsure = True
        if opens:
            self._open(part_id, until_ns)
        else:
            self._move(False, NOBODY)
        return self._now_ns() + RETRY_NS if self._faults.must_close else next_ns

    def hold(self, is_held: bool) -> None:
        """Without the lock: whoever should close the gate may hang while it has it."""
        self._is_held = is_held
        if is_held:
            with contextlib.suppress(*PIN_ERRORS):  # the thread meets the same, if it lives
                self._pin.write(False, NOBODY)
            self._is_unsure = True

    def close(self) -> None:
        """Leaves the gate closed: nothing passes a station that is off."""
        self._end()
        deadline_ns = time.monotonic_ns() + 1_000_000_000
        while not self._shut() and time.monotonic_ns() < deadline_ns:
            time.sleep(RETRY_NS / 1e9)
        if self._lease:
            self._lease.close()
        self._pin.close()

    def _open(self, part_id: int, until_ns: int) -> None:
        """subtle: time passes between the look and the move, seconds in a process that is stopped there."""
        try:
            if self._lease:
                self._lease.open_until(until_ns, self._now_ns())
        except OSError as error:
            self._fail(f"the process that closes it does not listen: {error.strerror}")
            return
        if self._now_ns() >= until_ns:
            self._shut()
            return
        self._move(True, part_id)
        if self._now_ns() >= until_ns:
            self._shut()

    def _move(self, is_open: bool, part_id: int) -> None:
        if (is_open, part_id) == self._stands and not self._faults.must_close and not self._is_unsure:
            return
        self._is_unsure = False
        try:
            self._pin.write(is_open, part_id)
        except PIN_ERRORS as error:
            self._fail(str(error))
            return
        self._stands = (is_open, part_id)
        if self._lease and not is_open:
            self._lease.closed()
        self._faults.note_closed()
        if is_open and self._is_held:  # subtle: it was closed for that while we opened it
            self._shut()

    def _fail(self, what: str) -> None:
        self._faults.note(what, self._now_ns())
        self._shut()  # at once; `turn` goes on with it

    def _shut(self) -> bool:
        try:
            self._pin.write(False, NOBODY)
        except PIN_ERRORS as error:
            self._faults.note(str(error), self._now_ns())
            return False
        self._stands = (False, NOBODY)
        self._faults.note_closed()
        if self._lease:
            self._lease.closed()
        return True


def open_gate(
    settings: GateSettings,
    belt_speed_mm_s: float,
    timer: LineTimer | None = None,
    *,
    motion: MotionSettings | None = None,
    mode: Mode = "triggered",
    supervisor: Supervisor = SUPERVISOR,
) -> Gate | TimerGate:
    """`timer` is needed for the kind of that name. Raises: InputError if the pin cannot be had; EngineError."""
    motion = motion or MotionSettings()
    keeper = Keeper(settings, belt_speed_mm_s, motion, mode)
    gate: Gate | TimerGate
    if settings.kind == "timer" and timer:
        gate = TimerGate(keeper, timer, choose_track(settings, motion, belt_speed_mm_s))
    else:
        gate = _open_pin_gate(keeper, settings)
    if settings.kind != "dry" and motion.by is None and keeper.origin == "nothing":
        gate.reservation = UNMEASURED
    gate.start(supervisor)
    return gate


def choose_track(settings: GateSettings, motion: MotionSettings, belt_speed_mm_s: float) -> Track:
    """By the belt's positions where its encoder is wired to the overlay, else by the clock."""
    if motion.encoder:
        return BeltTrack(settings, motion.encoder, belt_speed_mm_s, motion.silence_ms)
    return TimeTrack(settings, belt_speed_mm_s)


def _open_pin_gate(keeper: Keeper, settings: GateSettings) -> Gate:
    if settings.kind == "gpio":
        say("a pin stays as it is while the whole machine stands still: only [gate] kind timer closes it even then")
    pin = open_pin(settings)
    try:
        return Gate(keeper, pin, lease=pin.lease())
    except PIN_ERRORS as error:
        raise InputError(f"the gate cannot be closed ({error}): correct [gate]") from None


def open_pin(settings: GateSettings) -> DryPin | GpioPin:
    """Raises: InputError if it cannot be had."""
    if settings.kind == "gpio":
        return GpioPin(open_gpio(settings.gpio_pin, "out", "gate.gpio_pin"))
    return DryPin(settings.dry_log)
