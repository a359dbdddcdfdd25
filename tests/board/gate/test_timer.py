"""Light barrier, gate and panel on the overlay's timer: its own Verilog, simulated in step with the monotonic clock."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from board.config import decode_config
from board.engines.fpga import Logic
from board.engines.fpga_pynq import FpgaSettings, find_logic
from board.gate.gate import Gate, open_gate
from board.gate.keeper import Keeper
from board.gate.motion import MotionSettings
from board.gate.settings import EncoderSettings, GateSettings
from board.gate.timer import LineTimer
from board.gate.timer_gate import TimerGate
from board.gate.tracks import TimeTrack
from board.loop.panel import Panel
from board.overlay.simulation.timer import SimulatedTimer
from board.seams import Deaf
from board.sources.barrier import TimerBarrier
from board.sources.overlay_belt import OverlayBelt, tell_passages, tell_position
from board.sources.stamps import Stamps
from protocol.errors import ConfigError, EngineError, SourceError
from protocol.messages import MAX_T_NS, Decision, Trigger
from protocol.supervision import Supervisor

SPEED_MM_S = 1000.0
# at 1 m/s: the part's window begins 200 − 40 / 2 − 5 = 175 ms after its trigger and lasts 40 ms
SETTINGS = GateSettings(kind="timer", distance_mm=200, window_mm=40, lead_ms=5)
START_MS, WINDOW_MS = 175.0, 40.0
TOLERANCE_MS = 1.0  # of the two clocks; the timer itself is exact
WITHIN_S = 10.0


@pytest.fixture
def fabric(timer_library: Path) -> SimulatedTimer:
    return SimulatedTimer(timer_library)


@pytest.fixture
def logic(fabric: SimulatedTimer) -> Logic:
    return Logic(lambda: fabric)


@pytest.fixture
def timer(logic: Logic) -> Iterator[LineTimer]:
    timer = LineTimer(logic)
    yield timer
    timer.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


class Belt:
    """A gate, and parts whose triggers lie at given times after the start."""

    def __init__(self, timer: LineTimer, fabric: SimulatedTimer, settings: GateSettings = SETTINGS) -> None:
        gate = open_gate(settings, SPEED_MM_S, timer, motion=MotionSettings(by="nothing"))
        assert isinstance(gate, TimerGate)
        gate.seen_until(MAX_T_NS)
        self.gate, self.fabric = gate, fabric
        self.start_ns = time.monotonic_ns()

    def apply(self, decision: Decision, part_id: int = 0, at_ms: float = 0) -> None:
        self.gate.apply(Trigger("run", part_id, self.start_ns + int(at_ms * 1e6), "clock"), decision)

    def opened_ms(self, until_ms: float) -> list[tuple[float, float]]:
        """When the gate was open, from the start on; waits until `until_ms`."""
        time.sleep(max(0.0, until_ms / 1e3 - (time.monotonic_ns() - self.start_ns) / 1e9))
        times = [(t_ns - self.start_ns) / 1e6 for t_ns, _ in self.fabric.moves()]
        assert [is_open for _, is_open in self.fabric.moves()] == [True, False] * (len(times) // 2)
        return list(zip(times[::2], times[1::2], strict=True))


def check(opened: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    assert len(opened) == len(expected)
    for window, planned in zip(opened, expected, strict=True):
        assert window == pytest.approx(planned, abs=TOLERANCE_MS)


@pytest.fixture
def belt(timer: LineTimer, fabric: SimulatedTimer) -> Iterator[Belt]:
    belt = Belt(timer, fabric)
    yield belt
    belt.gate.close()


def test_both_clocks_agree(timer: LineTimer) -> None:
    for _ in range(5):
        now_ns = time.monotonic_ns()
        assert abs(timer.ns_at(timer.cycles_at(now_ns)) - now_ns) < TOLERANCE_MS * 1e6
        time.sleep(0.02)


def test_a_good_part_finds_the_gate_open_for_its_window_and_others_do_not(belt: Belt) -> None:
    belt.apply("OK", 0)
    belt.apply("REJECT", 1, at_ms=100)
    belt.apply("UNKNOWN", 2, at_ms=200)
    belt.apply("OK", 3, at_ms=300)
    window = (START_MS, START_MS + WINDOW_MS)
    check(belt.opened_ms(550), [window, (300 + window[0], 300 + window[1])])
    assert belt.gate.counters()["gate_refused"] == 0


def test_the_gate_closes_though_the_program_is_gone(belt: Belt) -> None:
    """Nobody looks between the order and long after the end."""
    belt.apply("OK")
    check(belt.opened_ms(400), [(START_MS, START_MS + WINDOW_MS)])


def test_a_rejected_neighbour_of_a_good_part_finds_the_gate_closed(belt: Belt) -> None:
    belt.apply("OK", 0)
    belt.apply("REJECT", 1, at_ms=25)
    check(belt.opened_ms(300), [(START_MS, START_MS + 25)])


def test_two_good_neighbours_pass_together(belt: Belt) -> None:
    belt.apply("OK", 0)
    belt.apply("OK", 1, at_ms=25)
    belt.apply("OK", 2, at_ms=10)  # out of order, inside what is open
    opened = belt.opened_ms(300)
    assert opened[0][0] == pytest.approx(START_MS, abs=TOLERANCE_MS)
    assert opened[-1][1] == pytest.approx(25 + START_MS + WINDOW_MS, abs=TOLERANCE_MS)
    assert opened[1][0] - opened[0][1] < TOLERANCE_MS


class Counted(LineTimer):
    """Counts the windows that it is given."""

    windows = 0

    def queue_window(self, start: int, cycles: int) -> str:
        self.windows += 1
        return super().queue_window(start, cycles)


def test_a_part_has_one_window_however_its_end_is_rounded(timer_library: Path) -> None:
    fabric = SimulatedTimer(timer_library, 1e6)  # a cycle is no longer than what is rounded
    timer = Counted(Logic(lambda: fabric))
    settings = replace(SETTINGS, distance_mm=5000)  # five seconds on: time enough for all turns
    keeper = Keeper(settings, SPEED_MM_S, MotionSettings(by="nothing"))
    gate = TimerGate(keeper, timer, TimeTrack(settings, SPEED_MM_S))
    gate.seen_until(MAX_T_NS)
    gate.apply(Trigger("run", 0, time.monotonic_ns(), "clock"), "OK")
    for _ in range(100):
        gate.turn()
    assert timer.windows == 1
    timer.close()


@pytest.mark.parametrize("decision", ["OK", "REJECT", "UNKNOWN"])
def test_a_verdict_that_comes_too_late_does_not_move_the_gate(belt: Belt, decision: Decision) -> None:
    belt.apply(decision, 0, at_ms=-START_MS - 1)
    belt.apply("OK", 1)
    check(belt.opened_ms(300), [(START_MS, START_MS + WINDOW_MS)])


def test_what_the_timer_refuses_is_counted_and_said(
    belt: Belt, timer: LineTimer, capsys: pytest.CaptureFixture[str]
) -> None:
    timer.write(GATE_LIMIT=1)
    belt.apply("OK", 0)
    wait_until(lambda: belt.gate.counters()["gate_refused"] == 1)
    assert "the gate stays closed for a part: longer than its limit" in capsys.readouterr().err
    assert belt.opened_ms(300) == []


def test_verdicts_may_come_in_any_order(belt: Belt) -> None:
    belt.apply("OK", 2, at_ms=200)
    time.sleep(0.01)
    belt.apply("REJECT", 1, at_ms=150)
    belt.apply("OK", 0, at_ms=0)
    check(belt.opened_ms(500), [(START_MS, START_MS + WINDOW_MS), (START_MS + 200, START_MS + WINDOW_MS + 200)])


def test_a_part_that_comes_after_a_window_was_programmed_shuts_it(belt: Belt) -> None:
    belt.apply("OK", 0)
    time.sleep(0.05)
    belt.gate.expect(Trigger("run", 1, belt.start_ns + 20_000_000, "clock"))
    check(belt.opened_ms(300), [(START_MS, START_MS + 20)])


def test_close_leaves_the_gate_closed_and_drops_what_was_programmed(timer: LineTimer, fabric: SimulatedTimer) -> None:
    belt = Belt(timer, fabric, replace(SETTINGS, distance_mm=1200, window_mm=2000))  # from 195 ms on, for two seconds
    belt.apply("OK", 0)
    belt.apply("OK", 1, at_ms=2100)
    time.sleep(0.3)
    belt.gate.close()
    (window,) = belt.opened_ms(2500)
    assert window[0] == pytest.approx(195, abs=TOLERANCE_MS)
    assert 300 <= window[1] < 2000


def test_an_overlay_that_is_loaded_anew_is_programmed_anew(belt: Belt, logic: Logic) -> None:
    belt.apply("OK", 0)
    logic.reload()
    belt.apply("OK", 1, at_ms=200)
    check(belt.opened_ms(500), [(at + START_MS, at + START_MS + WINDOW_MS) for at in (0, 200)])


def pulse(fabric: SimulatedTimer, high_s: float = 0.01) -> int:
    t_ns = fabric.set_pins(barrier=True)
    time.sleep(high_s)
    fabric.set_pins(barrier=False)
    time.sleep(0.005)
    return t_ns


@pytest.fixture
def barrier(timer: LineTimer) -> TimerBarrier:
    return TimerBarrier(timer, filter_us=500, inverted=False)


def read(barrier: TimerBarrier) -> Trigger:
    trigger = barrier.next(WITHIN_S)
    assert trigger is not None
    return trigger


def test_parts_are_stamped_when_they_came_however_late_they_are_read(
    barrier: TimerBarrier, fabric: SimulatedTimer
) -> None:
    edges = [pulse(fabric) for _ in range(5)]
    time.sleep(0.1)
    triggers = [read(barrier) for _ in edges]
    assert [trigger.part_id for trigger in triggers] == [0, 1, 2, 3, 4]
    for trigger, edge_ns in zip(triggers, edges, strict=True):
        assert trigger.t_ns == pytest.approx(edge_ns, abs=TOLERANCE_MS * 1e6)
    assert barrier.next(0.01) is None


def test_what_bounces_is_one_part(barrier: TimerBarrier, fabric: SimulatedTimer) -> None:
    for level in (True, False, True, False, True):
        fabric.set_pins(barrier=level)
    time.sleep(0.01)
    assert read(barrier).part_id == 0
    assert barrier.next(0.02) is None


def test_lost_parts_are_a_gap_in_the_ids(barrier: TimerBarrier, fabric: SimulatedTimer) -> None:
    for _ in range(20):
        pulse(fabric, 0.002)
    assert [read(barrier).part_id for _ in range(16)] == list(range(16))
    assert barrier.next(0.01) is None
    pulse(fabric)
    assert read(barrier).part_id == 20


def test_an_inverted_beam_and_one_that_is_broken_at_the_start(timer: LineTimer, fabric: SimulatedTimer) -> None:
    fabric.set_pins(barrier=True)  # clear, where the output is inverted
    barrier = TimerBarrier(timer, filter_us=500, inverted=True)
    assert barrier.next(0.02) is None
    fabric.set_pins(barrier=False)
    assert read(barrier).part_id == 0
    fabric.set_pins(barrier=False)
    again = TimerBarrier(timer, filter_us=500, inverted=True)
    assert again.next(0.02) is None


def test_after_the_overlay_was_loaded_anew_a_part_is_missing_and_the_line_goes_on(
    barrier: TimerBarrier, fabric: SimulatedTimer, logic: Logic
) -> None:
    pulse(fabric)
    assert read(barrier).part_id == 0
    pulse(fabric)
    logic.reload()
    assert barrier.next(0.01) is None
    edge_ns = pulse(fabric)
    trigger = read(barrier)
    assert trigger.part_id == 2
    assert trigger.t_ns == pytest.approx(edge_ns, abs=TOLERANCE_MS * 1e6)


class Interrupted(SimulatedTimer):
    """Somebody wants to load the overlay anew just when both clocks are read."""

    reload_by: Logic | None = None

    def read(self, register: str) -> int:
        if register == "TIME_LOW" and self.reload_by:
            logic, self.reload_by = self.reload_by, None
            thread = threading.Thread(target=logic.reload)
            thread.start()
            thread.join(0.2)
        return super().read(register)


def test_a_stamp_is_not_mixed_with_the_time_of_an_overlay_loaded_after_it(timer_library: Path) -> None:
    fabric = Interrupted(timer_library)
    logic = Logic(lambda: fabric)
    barrier = TimerBarrier(LineTimer(logic), filter_us=500, inverted=False)
    time.sleep(0.5)
    edge_ns = pulse(fabric)
    fabric.reload_by = logic
    assert read(barrier).t_ns == pytest.approx(edge_ns, abs=TOLERANCE_MS * 1e6)


def test_leds_show_the_state_and_buttons_are_seen_once(timer: LineTimer, fabric: SimulatedTimer, logic: Logic) -> None:
    panel = Panel(timer)
    for state, leds in (("running", 1), ("degraded", 2), ("stopped", 4), ("running", 1)):
        panel.show(state)  # type: ignore[arg-type]
        wait_until(lambda leds=leds: fabric.leds() == leds)  # type: ignore[misc]
    for buttons in (1, 0, 2, 3, 0):
        fabric.set_pins(buttons=buttons)
        time.sleep(0.1)
    assert panel.take_presses() == ["pause", "resume", "pause"]
    assert panel.take_presses() == []
    logic.reload()
    wait_until(lambda: fabric.leds() == 1)
    panel.close()
    assert fabric.leds() == 4


class OtherTimer(SimulatedTimer):
    """Answers differently in one register."""

    def __init__(self, library: Path, answers: dict[str, int]) -> None:
        super().__init__(library)
        self.answers = answers
        self.is_closed = False

    def read(self, register: str) -> int:
        value = super().read(register)
        return self.answers.get(register, value)

    def close(self) -> None:
        self.is_closed = True
        super().close()


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"ID": 5}, r"no overlay of Beltsight answers, but 00000005: rebuild"),
        ({"TIMER_VERSION": 5}, r"the overlay's timer is 00000005, not [0-9a-f]{8}: rebuild the overlay"),
        ({"TIME_LOW": 5}, r"the logic's clock has 0\.00 MHz, not 0\.1: correct \[engines\.fpga\] clock_mhz"),
    ],
)
def test_another_overlay_is_refused_and_let_go(timer_library: Path, answers: dict[str, int], message: str) -> None:
    other = OtherTimer(timer_library, answers)
    with pytest.raises(EngineError, match=message):
        LineTimer(Logic(lambda: other))
    assert other.is_closed


def test_a_barrier_that_cannot_be_read_stops_the_line(barrier: TimerBarrier, fabric: SimulatedTimer) -> None:
    fabric.clock_hz = 1e12  # it can never catch up with this
    with pytest.raises(SourceError, match=r"light barrier: the simulated timer is \d+ cycles behind"):
        barrier.next(1.0)


def test_the_timer_alone_is_no_engine(fabric: SimulatedTimer) -> None:
    with pytest.raises(EngineError, match="no memory for 5 bytes: take the engine fpga-sim"):
        fabric.allocate(5)


def test_without_the_board_one_line_says_what_to_do() -> None:
    with pytest.raises(EngineError, match="needs the board's pynq package"):
        LineTimer(find_logic(FpgaSettings()))


CAMERA = "[camera]\nbarrier = 'timer'\n"


@pytest.mark.parametrize(
    ("text", "is_needed"),
    [
        ("", False),
        ("panel = true", True),
        ("[gate]\nkind = 'timer'", True),
        ("[gate]\nkind = 'timer'\n[motion]\nby = 'encoder'\n[motion.encoder]\num_per_count = 50.0", True),
        (f"source = 'camera'\n{CAMERA}", True),
        (f"source = 'camera'\n{CAMERA}[motion]\nby = 'barriers'", True),
        (f"source = 'camera'\nmode = 'free-running'\n{CAMERA}", False),
        (CAMERA, False),
    ],
)
def test_the_overlay_is_loaded_for_what_is_configured(text: str, is_needed: bool) -> None:
    assert decode_config(f"model = 'one'\n{text}".encode(), "line.toml").needs_timer is is_needed


def test_barriers_that_nobody_reads_are_refused() -> None:
    text = "model = 'one'\nsource = 'camera'\n[camera]\nbarrier_pin = 3\n[motion]\nby = 'barriers'"
    with pytest.raises(ConfigError, match=r"line.toml:6: motion.by: barriers are wired to the overlay"):
        decode_config(text.encode(), "line.toml")


FAR = replace(
    SETTINGS, distance_mm=1000
)  # the part's window begins 980 ms after its trigger, and so the second barrier


def test_the_overlays_second_barrier_opens_the_gate_for_a_part_that_came_in_time(
    timer: LineTimer, fabric: SimulatedTimer
) -> None:
    supervisor = Supervisor()
    motion = MotionSettings(by="barriers", tolerance=0.2)
    gate = open_gate(FAR, SPEED_MM_S, timer, motion=motion, supervisor=supervisor)
    stamps = Stamps(timer, "PASSAGE", 500, inverted=False)
    belt = OverlayBelt(partial(tell_passages, stamps, gate), supervisor)
    with contextlib.closing(gate), contextlib.closing(belt):
        gate.seen_until(MAX_T_NS)
        t_ns = time.monotonic_ns()
        gate.apply(Trigger("run", 0, t_ns, "clock"), "OK")
        time.sleep(0.98)
        assert not fabric.moves()
        passed_ns = fabric.set_pins(passage=True)
        wait_until(lambda: len(fabric.moves()) == 2)
        opened_ns, closed_ns = (at_ns for at_ns, _ in fabric.moves())
        assert passed_ns < opened_ns
        assert closed_ns == pytest.approx(passed_ns + (WINDOW_MS - 5) * 1e6, abs=TOLERANCE_MS * 1e6)
        speed_mm_s = 980 / ((passed_ns - t_ns) / 1e9)
        assert gate.counters()["belt_speed_mm_s"] == pytest.approx(speed_mm_s, rel=0.01)


def test_passages_are_told_in_order_and_a_lost_one_only_by_its_absence(
    timer: LineTimer, fabric: SimulatedTimer
) -> None:
    stamps, told = Stamps(timer, "PASSAGE", 500, inverted=False), Told()
    passed = []
    for _ in range(17):  # the timer keeps 16
        passed.append(fabric.set_pins(passage=True))
        time.sleep(0.002)
        fabric.set_pins(passage=False)
        time.sleep(0.002)
    tell_passages(stamps, told)
    assert told.passages == pytest.approx(passed[:16], abs=5 * TOLERANCE_MS * 1e6)


class Told(Deaf):
    def __init__(self) -> None:
        self.passages: list[int] = []

    def at_gate(self, t_ns: int) -> None:
        self.passages.append(t_ns)


ENCODER = EncoderSettings(um_per_count=1000.0)


def test_with_its_own_encoder_the_overlay_opens_where_the_belt_is_however_fast_it_runs(
    timer: LineTimer, fabric: SimulatedTimer
) -> None:
    """At a tenth of the speed that is configured, in steps of 2 mm."""
    settings = GateSettings(kind="timer", distance_mm=200, window_mm=40, lead_ms=0)
    motion = MotionSettings(by="encoder", encoder=ENCODER, silence_ms=1000)
    supervisor = Supervisor()
    gate = open_gate(settings, SPEED_MM_S, timer, motion=motion, supervisor=supervisor)
    source = TimerBarrier(timer, filter_us=500, inverted=False, encoder=ENCODER)
    belt = OverlayBelt(partial(tell_position, timer, ENCODER, gate), supervisor)
    with contextlib.closing(gate), contextlib.closing(belt):
        places = run_belt(fabric, gate, source, until_mm=420)
    opened = [mm for mm, is_open in places if is_open]
    assert opened
    assert min(opened) > 102, "before that, nobody was there"
    assert max(opened) <= 322, "the overlay closes where the window ends, by its own count"


def run_belt(
    fabric: SimulatedTimer, gate: Gate | TimerGate, source: TimerBarrier, until_mm: int
) -> list[tuple[int, bool]]:
    """Where the belt was, and whether the gate stood open there; a part comes at 100 mm."""
    places = []
    for mm in range(2, until_mm, 2):
        fabric.move_belt(2)
        time.sleep(0.02)
        gate.seen_until(time.monotonic_ns())
        if mm == 100:
            pulse(fabric)
            trigger = read(source)
            assert trigger.position_um == 100_000
            gate.apply(trigger, "OK")
        places.append((mm, fabric.gate()))
    return places


def test_the_overlays_encoder_needs_the_overlays_gate() -> None:
    text = b"model = 'one'\n[motion]\nby = 'encoder'\n[motion.encoder]\num_per_count = 50.0"
    with pytest.raises(ConfigError, match=r'motion.encoder: is the overlay\'s: it needs \[gate\] kind = "timer"'):
        decode_config(text, "line.toml")
