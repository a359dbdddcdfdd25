"""The gate opens when it was told to, and closes by itself, also when the program that opened it is dead."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.synchronize import Event

from board.engines.fpga import Logic
from board.gate.gate import open_gate
from board.gate.motion import MotionSettings
from board.gate.settings import GateSettings
from board.gate.timer import LineTimer
from board.gate.timer_gate import TimerGate
from protocol.messages import MAX_T_NS, Trigger
from tests.hardware.conftest import Person

SPEED_MM_S = 100.0
SETTINGS = GateSettings(kind="timer", distance_mm=200, window_mm=50, lead_ms=0)  # from 1.75 s on, for half a second
OPENS_S, KILLED_AT_S = 1.75, 0.2  # after the part, after it opened


def start_gate(timer: LineTimer) -> TimerGate:
    """On a belt of which everything is known."""
    gate = open_gate(SETTINGS, SPEED_MM_S, timer, motion=MotionSettings(by="nothing"))
    assert isinstance(gate, TimerGate)
    gate.seen_until(MAX_T_NS)
    return gate


def test_the_gate_clicks_at_its_time(timer: LineTimer, person: Person) -> None:
    person.do("Wire the gate to PMOD A, pin 2, with a resistor to ground; keep fingers and parts away from it")
    person.confirm("Is the gate closed?")
    gate = start_gate(timer)
    person.tell("In 2, 4 and 6 seconds the gate opens for half a second each.")
    now_ns = time.monotonic_ns()
    for number in range(3):
        gate.apply(Trigger("run", number, now_ns + number * 2_000_000_000, "clock"), "OK")
    gate.apply(Trigger("run", 3, now_ns + 6_000_000_000, "clock"), "REJECT")
    time.sleep(9)
    assert gate.counters()["gate_refused"] == 0
    gate.close()
    person.confirm("Did it open three times, two seconds apart, and close each time?")


def test_a_gate_whose_program_dies_closes_at_its_end(logic: Logic, person: Person) -> None:
    person.tell("In 2 seconds the gate opens; its program is killed while it is open; it closes by itself.")
    context = multiprocessing.get_context("fork")
    programmed = context.Event()
    child = context.Process(target=_open_once, args=(logic, programmed))
    child.start()
    assert programmed.wait(30), "the overlay was not loaded"
    time.sleep(OPENS_S + KILLED_AT_S)
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join(5)
    time.sleep(1)
    person.confirm("Has it opened for half a second, and is it closed now?")


def _open_once(logic: Logic, programmed: Event) -> None:
    gate = start_gate(LineTimer(logic))
    gate.apply(Trigger("run", 0, time.monotonic_ns(), "clock"), "OK")
    programmed.set()
    time.sleep(60)
