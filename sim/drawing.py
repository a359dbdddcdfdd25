"""Draws what the camera will see, ahead of time in a thread, so that the belt's time does not wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BeltsightError
from protocol.supervision import SUPERVISOR, Supervised

DRAWN_AHEAD = 16  # frames
MOST_AHEAD = 300  # of 200 to 800 kB each
SPARE = 1.5  # a machine that is busy later draws more slowly than at the start
CLOSED_WITHIN_S = 10.0
MARKED_PX = 16


@dataclass(frozen=True)
class Exposure:
    """One frame to send. `number` counts parts (triggered) or camera frames (free-running)."""

    number: int
    image: NDArray[np.uint8]
    readings: dict[str, float]


class Drawer:
    """Draws exposures 0, 1, 2, … of `count`, a few ahead of what the camera exposes."""

    def __init__(self, draw: Callable[[int], Exposure], count: int, *, skips: bool) -> None:
        """`skips`: what the camera could not expose in time is not drawn any more."""
        self._draw, self._count, self._skips = draw, count, skips
        self._drawn: dict[int, Exposure] = {}
        self._ahead = min(DRAWN_AHEAD, count)
        self._drawing_s = 0.0
        self._next = self._exposed = 0
        self._error: BeltsightError | None = None  # why no more come
        self._changed = threading.Condition()
        self._closing = False
        # None: each picture is drawn in a bounded time
        self._thread = SUPERVISOR.start("drawer", self._run, silent_s=None, is_once=True)

    def expose(self, number: int) -> None:
        """The camera is there now."""
        with self._changed:
            self._exposed = number
            if self._skips:
                self._next = max(self._next, number)
            self._changed.notify_all()

    def is_ahead(self, timeout_s: float) -> bool:
        """Whether all is drawn for which there is room: a machine that is busy then delays no frame."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: self._error or len(self._drawn) >= self._ahead, timeout_s))

    def keep_up_with(self, span_s: float) -> None:
        """Draw as many ahead as it takes, if all are exposed within this time and drawing them takes longer.

        Else the belt would be late with its frames, and the board would take them for lost. To be called when
        `is_ahead`, before the first exposure.
        """
        with self._changed:
            drawn_meanwhile = int(span_s / (SPARE * self._drawing_s / max(1, self._next) or 1e-9))
            self._ahead = min(max(self._ahead, self._count - drawn_meanwhile), MOST_AHEAD, self._count)
            self._changed.notify_all()

    def take(self, number: int, timeout_s: float = 0.0) -> Exposure | None:
        """That exposure, once; None while it is not drawn. Raises: BeltsightError if it cannot be."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._drawn or self._error or self._closing, timeout_s)
            if self._error and number not in self._drawn:
                raise self._error
            return self._drawn.pop(number, None)

    def close(self) -> None:
        self._thread.stop(self._stop, CLOSED_WITHIN_S)

    def _stop(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _run(self, _: Supervised) -> None:
        try:
            while (number := self._wait_for_room()) is not None:
                since_s = time.monotonic()
                exposure = self._draw(number)
                with self._changed:
                    self._drawing_s += time.monotonic() - since_s
                    self._drawn[number] = exposure
                    self._changed.notify_all()
        except BeltsightError as error:  # a picture that cannot be read, far from whoever can say so
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _wait_for_room(self) -> int | None:
        """The next number to draw; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._next < self._exposed + self._ahead or self._closing)
            if self._closing or self._next >= self._count:
                return None
            self._next += 1
            return self._next - 1


def repeat(draw: Callable[[int], Exposure], distinct: int | None) -> Callable[[int], Exposure]:
    """With `distinct`, so many are drawn once and then come again under new numbers."""
    kept: dict[int, Exposure] = {}

    def again(number: int) -> Exposure:
        if distinct is None:
            return draw(number)
        original = number % distinct
        if original not in kept:
            kept[original] = draw(original)
        return Exposure(number, kept[original].image, kept[original].readings)

    return again


def mark(exposure: Exposure, distinct: int) -> Exposure:
    """A picture that comes again differs in some bits of its corner: noise makes no two of a camera alike."""
    if exposure.number < distinct:
        return exposure
    image = exposure.image.copy()
    corner = image[0, :MARKED_PX, 0]
    corner ^= ((exposure.number // distinct) >> np.arange(corner.size) & 1).astype(np.uint8)
    return replace(exposure, image=image)
