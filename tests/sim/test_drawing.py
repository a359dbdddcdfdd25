"""A belt that is faster than its frames are drawn."""

from __future__ import annotations

import contextlib
import time

import numpy as np

from sim.drawing import DRAWN_AHEAD, Drawer, Exposure

WITHIN_S = 30.0
COUNT, DRAWS_S = 60, 0.01


def draw(number: int) -> Exposure:
    time.sleep(DRAWS_S)
    return Exposure(number, np.zeros((2, 2, 3), np.uint8), {})


def test_what_cannot_be_drawn_in_time_is_drawn_before_the_belt_starts() -> None:
    with contextlib.closing(Drawer(draw, COUNT, skips=False)) as drawer:
        assert drawer.is_ahead(WITHIN_S)
        drawer.keep_up_with(span_s=DRAWS_S)
        assert drawer.is_ahead(WITHIN_S)
        assert all(drawer.take(number) for number in range(COUNT - 1))


def test_a_slow_belt_does_not_wait_for_more_than_it_needs() -> None:
    with contextlib.closing(Drawer(draw, COUNT, skips=False)) as drawer:
        assert drawer.is_ahead(WITHIN_S)
        drawer.keep_up_with(span_s=3600.0)
        assert drawer.is_ahead(WITHIN_S)
        assert drawer.take(DRAWN_AHEAD + 1) is None
