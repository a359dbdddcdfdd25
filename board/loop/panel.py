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

POLL_S = 0.02  # shorter than anybody presses, longer than a button bounces
MAX_WAITING = 8
LEDS: dict[LineCondition, int] = {"running": 1, "idle": 3, "degraded": 2, "alarm": 8, "stopped": 4, "lost": 4}
Press = Literal["pause", "resume"]
BUTTONS: dict[int, Press] = {1: "pause", 2: "resume"}


class Panel:
    def __init__(self, timer: LineTimer) -> None:
        self._timer = timer
        self._leds = LEDS["stopped"]
        self._presses: deque[Press] = deque(maxlen=MAX_WAITING)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="panel", daemon=True)
        self._thread.start()

    def show(self, state: LineCondition) -> None:
        self._leds = LEDS[state]

    def take_presses(self) -> list[Press]:
        """Those since the last time, in order."""
        return [self._presses.popleft() for _ in range(len(self._presses))]

    def close(self) -> None:
        """Leaves `stopped` shown."""
        self.show("stopped")
        self._closing.set()
        self._thread.join(timeout=1.0)

    def _poll(self) -> None:
        """The LEDs are written each time: the overlay may have been loaded anew."""
        held = ~0  # what is pressed at the start was pressed for somebody else
        while True:
            is_last = self._closing.wait(POLL_S)
            try:
                self._timer.write(LEDS=self._leds)
                (buttons,) = self._timer.read("BUTTONS")
            except EngineError:  # the line meets the same trouble, and says so
                return
            self._presses.extend(press for bit, press in BUTTONS.items() if buttons & ~held & bit)
            held = buttons
            if is_last:
                return
