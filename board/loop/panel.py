"""The board's own LEDs and buttons.

LED 0 running, 1 degraded, 2 stopped, 3 alarm; 0 and 1 together: idle. Button 0 pauses the line, 1 resumes it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Literal

from board.gate.timer import LineTimer
from protocol.errors import EngineError
from protocol.reports import LineCondition
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

POLL_S = 0.02  # shorter than anybody presses, longer than a button bounces
SILENT_S = 1.0  # the overlay may be loaded anew meanwhile
MAX_WAITING = 8
LEDS: dict[LineCondition, int] = {"running": 1, "idle": 3, "degraded": 2, "alarm": 8, "stopped": 4, "lost": 4}
Press = Literal["pause", "resume"]
BUTTONS: dict[int, Press] = {1: "pause", 2: "resume"}


class Panel:
    def __init__(self, timer: LineTimer, supervisor: Supervisor = SUPERVISOR) -> None:
        self._timer = timer
        self._leds = LEDS["stopped"]
        self._presses: deque[Press] = deque(maxlen=MAX_WAITING)
        self._closing = threading.Event()
        self._thread = supervisor.start("panel", self._poll, silent_s=SILENT_S, is_needed=False)

    def show(self, state: LineCondition) -> None:
        self._leds = LEDS[state]

    def take_presses(self) -> list[Press]:
        """Those since the last time, in order."""
        return [self._presses.popleft() for _ in range(len(self._presses))]

    def close(self) -> None:
        """Leaves `stopped` shown."""
        self.show("stopped")
        self._thread.stop(self._closing.set, SILENT_S)

    def _poll(self, supervised: Supervised) -> None:
        """The LEDs are written each time: the overlay may have been loaded anew."""
        held = ~0  # what is pressed at the start was pressed for somebody else
        is_last = False
        while not is_last:
            is_last = self._closing.wait(POLL_S)
            supervised.beat()
            try:
                self._timer.write(LEDS=self._leds)
                (buttons,) = self._timer.read("BUTTONS")
            except EngineError:  # the line meets the same trouble, and says so
                continue
            self._presses.extend(press for bit, press in BUTTONS.items() if buttons & ~held & bit)
            held = buttons
