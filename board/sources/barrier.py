"""Triggered mode of the USB camera: a light barrier stamps each part, and the camera's next exposure is its frame."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from dataclasses import replace
from typing import Protocol

from board.condition import Complaint
from board.gate.gpio import open_gpio
from board.gate.settings import EncoderSettings
from board.gate.timer import LineTimer
from board.seams import Ahead, Deaf
from board.sources.camera import CameraFeed, CameraSettings, open_camera
from board.sources.stamps import Stamps
from protocol.errors import EngineError, SourceError
from protocol.messages import Frame, Trigger, clock_id, new_run
from protocol.supervision import SUPERVISOR, Supervised, Supervisor
from protocol.units import NS_PER_MS

POLL_S = 0.001
SILENT_S = 0.5
CLOSE_WITHIN_S = 1.0
CLEAR_POLLS = 3  # the beam counts as clear again after so many in a row: an edge that bounces is one part
MAX_WAITING = 256  # parts between barrier and line; beyond them, parts come as faults

LISTEN_S = 0.01
STAMPED_WITHIN_NS = 20_000_000  # a part that broke the beam longer ago has reached the queue
BARRIER_SILENT_S = 0.5


class InputPin(Protocol):
    """What the barrier's output is wired to: 1 while a part breaks the beam."""

    def read(self) -> int:
        """Raises: OSError when the line cannot be read."""

    def release(self) -> None: ...


class Barrier(Protocol):
    """`LightBarrier` polls a pin; `TimerBarrier` reads what the overlay's timer has stamped."""

    def next(self, timeout_s: float) -> Trigger | None:
        """The next part in order; ids that are missing before it could not be queued. Raises: SourceError."""

    def close(self) -> None: ...


class LightBarrier:
    """Polls a pin in a thread; each rising edge is a part. What breaks the beam at the start is none."""

    def __init__(self, pin: InputPin, supervisor: Supervisor = SUPERVISOR) -> None:
        self._pin = pin
        self._run_id = new_run()
        self._clock = clock_id()
        self._parts = 0
        self._clear_polls = 0
        self._triggers: deque[Trigger] = deque()
        self._trouble = ""
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = supervisor.start("light barrier", self._poll, silent_s=SILENT_S)

    def next(self, timeout_s: float) -> Trigger | None:
        with self._changed:
            self._changed.wait_for(lambda: self._triggers or self._trouble, timeout_s)
            if self._triggers:
                return self._triggers.popleft()
            if self._trouble:
                raise SourceError(f"light barrier cannot be read ({self._trouble}): check its pin, then start again")
            return None

    def close(self) -> None:
        self._thread.stop(self._closing.set, CLOSE_WITHIN_S)
        self._pin.release()

    def _poll(self, supervised: Supervised) -> None:
        while not self._closing.wait(POLL_S):
            supervised.beat()
            try:
                is_broken = self._pin.read() == 1
            except (OSError, ValueError) as error:  # ValueError: a line that reads as nothing
                supervised.let_end()  # `next` says why
                with self._changed:
                    self._trouble = str(error)
                    self._changed.notify()
                return
            if is_broken and self._clear_polls >= CLEAR_POLLS:
                self._stamp(time.monotonic_ns())
            self._clear_polls = 0 if is_broken else self._clear_polls + 1

    def _stamp(self, t_ns: int) -> None:
        with self._changed:
            if len(self._triggers) < MAX_WAITING:
                self._triggers.append(Trigger(self._run_id, self._parts, t_ns, self._clock))
            self._parts += 1
            self._changed.notify()


class TimerBarrier:
    """Interruptions that the overlay has stamped."""

    def __init__(
        self, timer: LineTimer, filter_us: float, *, inverted: bool, encoder: EncoderSettings | None = None
    ) -> None:
        """Raises: EngineError."""
        self._stamps, self._encoder = Stamps(timer, "BARRIER", filter_us, inverted=inverted), encoder
        self._run_id = new_run()
        self._clock = clock_id()

    def next(self, timeout_s: float) -> Trigger | None:
        deadline_s = time.monotonic() + timeout_s
        try:
            while not (stamp := self._stamps.take()):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return None
                time.sleep(min(POLL_S, left_s))
        except EngineError as error:
            raise SourceError(f"light barrier: {error}") from None
        position_um = self._encoder.um(stamp.counts) if self._encoder else None
        return Trigger(self._run_id, stamp.number, stamp.t_ns, self._clock, position_um)

    def close(self) -> None:
        """The timer belongs to others, too."""


class BarrierSource:
    """One frame a part: the first that the camera exposed after the part broke the beam.

    A thread of its own takes the parts from the barrier: the gate hears of each while those before it are judged.
    """

    def __init__(
        self,
        barrier: Barrier,
        feed: CameraFeed,
        frame_timeout_ms: float,
        ahead: Ahead | None = None,
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        self._barrier = barrier
        self._feed = feed
        self._timeout_ns = int(frame_timeout_ms * NS_PER_MS)
        self._ahead = ahead or Deaf()
        self._came: deque[Trigger] = deque()  # at most MAX_WAITING
        self._error: SourceError | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._waiting: deque[Trigger] = deque()  # one part, and before it those that could not be queued
        self._lost_below = 0  # part ids below this one have no picture
        self._next_id = 0
        self._thread = supervisor.start("parts", self._listen, silent_s=BARRIER_SILENT_S)

    def read(self, timeout_s: float) -> Frame | None:
        """Raises: SourceError when barrier or camera are gone for good."""
        deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        if not self._waiting:
            self._wait_for_part(timeout_s)
        if not self._waiting:
            self._feed.check()
            return None
        trigger = self._waiting[0]
        if trigger.part_id < self._lost_below:
            return Frame(self._waiting.popleft(), None, "too many parts waited for the line")
        overdue_ns = trigger.t_ns + self._timeout_ns
        shot = self._feed.first_after(trigger.t_ns, min(deadline_ns, overdue_ns))
        if shot is None and time.monotonic_ns() < overdue_ns:
            return None
        self._waiting.popleft()
        if shot is None:
            return Frame(trigger, None, f"the camera gave no frame within {self._timeout_ns / NS_PER_MS:.0f} ms")
        return shot.show(trigger)

    def counters(self) -> dict[str, int]:
        return self._feed.counters()

    def complaint(self) -> Complaint | None:
        return self._feed.complaint()

    def close(self) -> None:
        self._thread.stop(self._closing.set, 1.0)
        self._barrier.close()
        self._feed.close()

    def _wait_for_part(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._came or self._error, timeout_s)
            if not self._came and self._error:
                raise self._error
            trigger = self._came.popleft() if self._came else None
        if trigger is None:
            return
        lost = range(self._next_id, trigger.part_id)
        self._waiting.extend(replace(trigger, part_id=part_id) for part_id in lost)
        self._waiting.append(trigger)
        self._lost_below, self._next_id = trigger.part_id, trigger.part_id + 1

    def _listen(self, supervised: Supervised) -> None:
        while not self._closing.is_set() and not self._error:
            supervised.beat()
            asked_ns = time.monotonic_ns()
            try:
                trigger = self._barrier.next(LISTEN_S)
            except SourceError as error:
                self._error = error
                supervised.let_end()  # `read` says so
                trigger = None
            if trigger:
                self._ahead.expect(trigger)
            elif not self._error:
                self._ahead.seen_until(max(0, asked_ns - STAMPED_WITHIN_NS))
            self._pass_on(trigger)

    def _pass_on(self, trigger: Trigger | None) -> None:
        """subtle: what finds no room is missing from the count, and `_wait_for_part` sees that."""
        with self._changed:
            if trigger and len(self._came) < MAX_WAITING:
                self._came.append(trigger)
            self._changed.notify()


def open_barrier_source(
    settings: CameraSettings,
    timer: LineTimer | None,
    ahead: Ahead | None = None,
    encoder: EncoderSettings | None = None,
) -> BarrierSource:
    """`timer`: for the barrier of that name. Raises: InputError if camera or pin cannot be had; EngineError."""
    with contextlib.ExitStack() as undo:
        feed = CameraFeed(lambda: open_camera(settings), settings)
        undo.callback(feed.close)
        barrier = open_barrier(settings, timer, encoder)
        undo.pop_all()
    return BarrierSource(barrier, feed, settings.frame_timeout_ms, ahead)


def open_barrier(settings: CameraSettings, timer: LineTimer | None, encoder: EncoderSettings | None = None) -> Barrier:
    """Raises: InputError if the pin cannot be had; EngineError."""
    if settings.barrier == "timer" and timer:
        inverted = settings.barrier_inverted
        return TimerBarrier(timer, settings.barrier_filter_us, inverted=inverted, encoder=encoder)
    return LightBarrier(open_gpio(settings.barrier_pin or 0, "in", "camera.barrier_pin"))
