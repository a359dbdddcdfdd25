"""The bitstream is loaded, and what answers is the overlay that these sources describe."""

from __future__ import annotations

from board.engines.fpga import Logic
from board.overlay import isa
from board.overlay.registers import ID_VALUE, timer_version
from tests.hardware.conftest import Person


def test_the_overlay_answers(logic: Logic, person: Person) -> None:
    person.tell("The blue LED DONE beside the chip goes out for a moment and comes on again: the logic is loaded.")
    fabric = logic.join()
    names = ("ID", "VERSION", "TIMER_VERSION")
    found = {name: fabric.read(name) for name in names}
    logic.leave()
    person.tell(", ".join(f"{name} {value:08x}" for name, value in found.items()))
    assert found == dict(zip(names, (ID_VALUE, isa.version(), timer_version()), strict=True))
    person.confirm("Is the LED DONE on?")
