"""The timer's clock keeps step with the processor's."""

from __future__ import annotations

import time

from board.gate.timer import LineTimer
from tests.hardware.conftest import Person

FOR_S = 10.0
MOST_PPM = 500  # what the kernel may turn its clock by while it is being set


def test_the_clock_has_its_rate(timer: LineTimer, person: Person) -> None:
    first = timer.now()
    person.tell(f"For {FOR_S:g} s nothing happens.")
    time.sleep(FOR_S)
    last = timer.now()
    expected = (last.t_ns - first.t_ns) * timer.clock_hz / 1e9
    ppm = ((last.cycles - first.cycles) / expected - 1) * 1e6
    reading_us = max(first.uncertain_ns, last.uncertain_ns) / 1e3
    person.tell(f"{timer.clock_hz / 1e6:g} MHz, {ppm:+.1f} ppm; both clocks are read within {reading_us:.0f} µs")
    assert abs(ppm) < MOST_PPM
    assert reading_us < 1000
