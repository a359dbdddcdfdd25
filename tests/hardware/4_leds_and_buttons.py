"""Status LEDs and buttons."""

from __future__ import annotations

import contextlib
import time

from board.gate.timer import LineTimer
from board.loop.panel import LEDS, Panel
from tests.hardware.conftest import Person

WITHIN_S = 20.0


def test_each_state_has_its_led(timer: LineTimer, person: Person) -> None:
    with contextlib.closing(Panel(timer)) as panel:
        for state, name in (("running", "LD0"), ("degraded", "LD1"), ("stopped", "LD2"), ("alarm", "LD3")):
            panel.show(next(known for known in LEDS if known == state))
            person.confirm(f"Is {name} on, and no other of the four green LEDs?")


def test_a_press_is_seen_once(timer: LineTimer, person: Person) -> None:
    with contextlib.closing(Panel(timer)) as panel:
        for name, press in (("BTN0", "pause"), ("BTN1", "resume")):
            person.tell(f"Press {name} once, within {WITHIN_S:g} s.")
            end_s = time.monotonic() + WITHIN_S
            presses = panel.take_presses()
            while not presses and time.monotonic() < end_s:
                time.sleep(0.1)
                presses = panel.take_presses()
            time.sleep(0.5)
            assert [*presses, *panel.take_presses()] == [press]
