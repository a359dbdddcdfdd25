"""The belt as the overlay's own encoder counts it, told to the gate."""

from __future__ import annotations

import threading

from board.gate.settings import EncoderSettings
from board.gate.timer import LineTimer
from board.seams import Ahead
from protocol.errors import EngineError
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

READ_EVERY_S = 0.005
SILENT_S = 0.5
CLOSE_WITHIN_S = 1.0


class OverlayBelt:
    """Only reads: the gate sets the encoder up. An overlay that was loaded anew counts from 0: that is an encoder that
    jumps back, and the gate stays closed until the belt is clear.
    """

    def __init__(
        self, timer: LineTimer, encoder: EncoderSettings, ahead: Ahead, supervisor: Supervisor = SUPERVISOR
    ) -> None:
        self._timer, self._encoder, self._ahead = timer, encoder, ahead
        self._closing = threading.Event()
        self._thread = supervisor.start("belt", self._run, silent_s=SILENT_S)

    def close(self) -> None:
        self._thread.stop(self._closing.set, CLOSE_WITHIN_S)

    def _run(self, supervised: Supervised) -> None:
        while not self._closing.wait(READ_EVERY_S):
            supervised.beat()
            try:
                counts, t_ns = self._timer.place()
            except EngineError:
                continue  # the gate meets the same and says so; without readings it is closed
            self._ahead.moved(self._encoder.um(counts), t_ns)
