"""The belt as the overlay itself sees it, told to the gate: its encoder's count, its second light barrier."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from board.gate.settings import EncoderSettings
from board.gate.timer import LineTimer
from board.seams import Ahead
from board.sources.stamps import Stamps
from protocol.errors import EngineError
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

LOOK_EVERY_S = 0.002
SILENT_S = 0.5
CLOSE_WITHIN_S = 1.0


class OverlayBelt:
    """Only reads. What it cannot read the gate cannot read either, and says so; without being told it is closed."""

    def __init__(self, tell: Callable[[], None], supervisor: Supervisor = SUPERVISOR) -> None:
        """`tell` looks at the overlay and tells the gate. Raises, when it is called: EngineError."""
        self._tell = tell
        self._closing = threading.Event()
        self._thread = supervisor.start("belt", self._run, silent_s=SILENT_S)

    def close(self) -> None:
        self._thread.stop(self._closing.set, CLOSE_WITHIN_S)

    def _run(self, supervised: Supervised) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            supervised.beat()
            with contextlib.suppress(EngineError):
                self._tell()


def tell_position(timer: LineTimer, encoder: EncoderSettings, ahead: Ahead) -> None:
    """The gate sets the encoder up. An overlay that was loaded anew counts from 0: that is an encoder that jumps back,
    and the gate stays closed until the belt is clear.
    """
    counts, t_ns = timer.place()
    ahead.moved(encoder.um(counts), t_ns)


def tell_passages(stamps: Stamps, ahead: Ahead) -> None:
    """One that is lost is a part that does not reach the gate: it stays closed until the order is found again."""
    while stamp := stamps.take():
        ahead.at_gate(stamp.t_ns)
