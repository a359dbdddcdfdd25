"""Each part that breaks the beam is one part, with a time that makes sense."""

from __future__ import annotations

import time

from board.config import LineConfig
from board.gate.timer import LineTimer
from board.sources.barrier import TimerBarrier
from tests.hardware.conftest import Person

PARTS = 5
WITHIN_S = 30.0


def test_parts_are_counted_and_stamped(config: LineConfig, timer: LineTimer, person: Person) -> None:
    settings = config.camera
    person.do("Wire the light barrier to PMOD A, pin 1, and leave its beam free")
    barrier = TimerBarrier(timer, settings.barrier_filter_us, inverted=settings.barrier_inverted)
    (buttons,) = timer.read("BUTTONS")
    assert not buttons & 16, "the beam looks broken while it is free: set [camera] barrier_inverted"
    person.tell(f"Move {PARTS} parts through the beam, one a second or so; there are {WITHIN_S:g} s.")
    end_s = time.monotonic() + WITHIN_S
    times_ns: list[int] = []
    while len(times_ns) < PARTS and time.monotonic() < end_s:
        trigger = barrier.next(1.0)
        if trigger:
            assert trigger.part_id == len(times_ns)
            assert 0 <= time.monotonic_ns() - trigger.t_ns < 1_000_000_000
            times_ns.append(trigger.t_ns)
            person.tell(f"part {trigger.part_id}")
    assert len(times_ns) == PARTS
    assert barrier.next(2.0) is None, "one part more than were moved: a longer [camera] barrier_filter_us may help"
    person.confirm("Was each part named once, at once?")
