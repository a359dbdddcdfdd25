"""The belt's side of the wire: triggers, frames and what its sensors read leave for the board.

Either the belt moves in real time, or it waits until the board has taken each frame.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zmq

from protocol.errors import BeltsightError
from protocol.messages import Trigger, clock_id
from protocol.sockets import Socket, open_socket
from protocol.supervision import SUPERVISOR, Supervised
from protocol.units import NS_PER_S
from protocol.wire import Buffer, EndOfRun, Motion, Passage, encode_message
from sim.drawing import Drawer, Exposure
from sim.faults import CameraFaults, Frozen
from sim.sensors import Sensors, Tick

QUEUED_MESSAGES = 2  # beyond the ones on their way; more would only age in the queue
SEND_TIMEOUT_MS = 100
LINGER_MS = 2000
LOOK_S = 0.002  # how often a frame that is due is looked for while it is being drawn
STALE_S = 0.1  # a free-running camera drops a view that could not be drawn by then
FOREVER_S = float("inf")
STOPPED_WITHIN_S = 15.0


@dataclass(frozen=True)
class Journey:
    """What goes over the belt in one run."""

    draw: Callable[[int], Exposure]
    frames: int
    sensors: Sensors | None  # None: the belt waits for the board
    exposures_s: Callable[[], Iterator[float]]  # when the camera exposes, after the belt's start


class Feed:
    """Sends from a thread. In real time a frame that the board does not take is dropped, as a camera does."""

    def __init__(self, endpoint: str, run: str, *, triggered: bool, faults: CameraFaults | None = None) -> None:
        """Raises: InputError for a malformed endpoint."""
        self.run = run
        self.started_ns = 0
        self.finished = threading.Event()
        self.error: BeltsightError | None = None  # why it finished early
        self.is_held_back = False  # the board does not take what it has to be told
        self.triggered = triggered
        self._faults = faults or CameraFaults()
        self._frozen = Frozen(self._faults)
        self._clock = clock_id()
        self._stopping = threading.Event()
        self._due: list[tuple[float, int, Trigger]] = []  # frames exposed and not sent: when they leave, which
        self._socket: Socket = open_socket(
            "PUSH",
            endpoint,
            bind=False,
            high_water_mark=QUEUED_MESSAGES,
            linger_ms=LINGER_MS,
            timeout_ms=SEND_TIMEOUT_MS,
        )
        self._thread: Supervised | None = None

    def start(self, journey: Journey) -> None:
        """Send all frames and the end of the run in the background; `finished` is set once the belt has stopped."""
        # None: it waits for the board as long as that takes, and `watch` in conveyor.py sees when nothing comes
        self._thread = SUPERVISOR.start("feed", lambda _: self._run(journey), silent_s=None, is_once=True)

    def stop(self) -> None:
        if self._thread:
            self._thread.stop(self._stopping.set, STOPPED_WITHIN_S)
        self._socket.close()

    def _run(self, journey: Journey) -> None:
        drawer = Drawer(journey.draw, journey.frames, skips=not self.triggered and journey.sensors is not None)
        try:
            if journey.sensors:
                self._move(journey, journey.sensors, drawer)
            else:
                self._wait_for_board(journey, drawer)
        except BeltsightError as error:
            self.error = error
        finally:
            drawer.close()
            self.finished.set()

    def _wait_for_board(self, journey: Journey, drawer: Drawer) -> None:
        self.started_ns = time.monotonic_ns()
        for number in range(journey.frames):
            drawer.expose(number)
            exposure = self._wait_for(drawer, number)
            if exposure is None:
                return
            trigger = Trigger(self.run, number, time.monotonic_ns(), self._clock)
            if self.triggered:
                self._send(encode_message(trigger), patient=True)
            self._send_frame(trigger, exposure, patient=True)
        self._send_end(journey)

    def _move(self, journey: Journey, sensors: Sensors, drawer: Drawer) -> None:
        """Every time that is told is the belt's own, however late we are to tell it."""
        if not self._draw_ahead(drawer):
            return
        if self.triggered:
            drawer.keep_up_with(max(journey.exposures_s(), default=0.0))
            if not self._draw_ahead(drawer):
                return
        self.started_ns = time.monotonic_ns()
        to_expose = journey.frames
        for tick in sensors.ticks(journey.exposures_s()):
            self._send_due(drawer, tick.t_s)
            if self._stopping.is_set():
                return
            self._tell(tick, sensors, drawer)
            to_expose -= tick.what == "exposure"
            if not to_expose and not self._due:
                self._send_end(journey)
                to_expose = -1
        self._send_due(drawer, FOREVER_S)
        if not to_expose:
            self._send_end(journey)

    def _draw_ahead(self, drawer: Drawer) -> bool:
        """False if we are to stop."""
        while not drawer.is_ahead(SEND_TIMEOUT_MS / 1000):
            if self._stopping.is_set():
                return False
        return True

    def _tell(self, tick: Tick, sensors: Sensors, drawer: Drawer) -> None:
        t_ns = self.started_ns + int(tick.t_s * NS_PER_S)
        position_um = sensors.position_um(tick.t_s)
        if tick.what == "passage":
            self._send(encode_message(Passage(self.run, t_ns, self._clock)), patient=True)
        elif tick.what == "exposure":
            trigger = Trigger(self.run, tick.number, t_ns, self._clock, position_um)
            if self.triggered:
                self._send(encode_message(trigger), patient=True)
            drawer.expose(tick.number)
            heapq.heappush(self._due, (tick.t_s + self._faults.late_s(tick.number), tick.number, trigger))
        elif position_um is not None:
            self._send(encode_message(Motion(self.run, position_um, t_ns, self._clock)), patient=False)

    def _send_due(self, drawer: Drawer, until_s: float) -> None:
        """Frames as they are due and drawn, until a time of the belt; with `FOREVER_S` until none is left."""
        while not self._stopping.is_set():
            now_s = (time.monotonic_ns() - self.started_ns) / NS_PER_S
            while self._due and self._due[0][0] <= now_s and self._leave(drawer, now_s):
                heapq.heappop(self._due)
            if now_s >= until_s or (not self._due and until_s == FOREVER_S):
                return
            next_s = max(self._due[0][0], now_s + LOOK_S) if self._due else until_s
            self._stopping.wait(min(next_s, until_s) - now_s)

    def _leave(self, drawer: Drawer, now_s: float) -> bool:
        """The first frame that is due goes, or is dropped; False while it is being drawn."""
        due_s, number, trigger = self._due[0]
        exposure = drawer.take(number)
        if exposure:
            self._send_frame(trigger, exposure, patient=False)
        return exposure is not None or (not self.triggered and now_s > due_s + STALE_S)

    def _wait_for(self, drawer: Drawer, number: int) -> Exposure | None:
        """None if we are to stop."""
        while not self._stopping.is_set():
            exposure = drawer.take(number, SEND_TIMEOUT_MS / 1000)
            if exposure:
                return exposure
        return None

    def _send_frame(self, trigger: Trigger, exposure: Exposure, *, patient: bool) -> None:
        self._send(self._faults.encode(trigger, self._frozen.look(exposure)), patient=patient)

    def _send_end(self, journey: Journey) -> None:
        if self.triggered:
            self._send(encode_message(EndOfRun(self.run, journey.frames)), patient=True)

    def _send(self, parts: list[Buffer], *, patient: bool) -> None:
        """What the board does not take is dropped: at once, or, when patient, at the end of the run."""
        while not self._stopping.is_set():
            try:
                self._socket.send_multipart(parts, 0 if patient else zmq.NOBLOCK, copy=True)
                self.is_held_back = False
                return
            except zmq.Again:
                if not patient:
                    return
                self.is_held_back = True
