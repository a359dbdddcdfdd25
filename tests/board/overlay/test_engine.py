"""The whole overlay in its own Verilog, beside a memory port with latency, against the golden model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from board.overlay import isa
from board.overlay.errors import Fault
from board.overlay.golden import Machine
from board.overlay.isa import Compute, End, Instruction, LoadTile, LoadWeights, Segment, StoreTile, WeightFormat
from board.overlay.registers import ID_VALUE, STATUS_BUSY
from board.overlay.simulation.simulator import MemoryPort, Run, Simulator
from tests.board.overlay.programs import FROM_LOAD, FROM_STORE, TO_LOAD, TO_STORE, Case, random_case


class Twins:
    """The simulated overlay and the golden model, which keep their memories from program to program."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.golden = Machine([])
        self.run(fill_activations())

    def run(self, case: Case) -> Run:
        """Both run the case and must leave the same bytes in all segments."""
        contents = case.with_code()
        views = start(self.simulator, contents, len(case.program))
        run = self.simulator.finish()
        self.golden.segments = contents
        self.golden.run(case.program)
        assert run.fault == Fault.NONE
        for view, want in zip(views, contents, strict=True):
            assert (view == want).all()
        return run


def start(simulator: Simulator, contents: Sequence[Any], instructions: int, **settings: int) -> Any:
    views = simulator.place([len(content) for content in contents])
    for view, content in zip(views, contents, strict=True):
        view[:] = content
    simulator.start(0, instructions, **settings)
    return views


def case_of(seed: int) -> Case:
    return random_case(np.random.default_rng(seed))


def fill_activations() -> Case:
    """Every word of the activation memory, which holds anything after power-up."""
    words = np.random.default_rng(0).integers(0, 256, 1024 * isa.WORD_BYTES, dtype=np.uint8)
    load = LoadTile(segment=Segment.INPUT, rows=16, cols=1024, base_row=1024, base_col=1)
    nothing = np.zeros(8, np.uint8)
    return Case([load, End()], [np.zeros(1024, np.uint8), nothing, words, nothing])


def raw_case(program: list[Instruction]) -> Case:
    empty = np.zeros(4096, np.uint8)
    return Case(program, [empty, empty, empty, empty])


def test_it_says_what_it_is(simulator: Simulator) -> None:
    assert simulator.read("ID") == ID_VALUE
    assert simulator.read("VERSION") == isa.version()


def test_registers_keep_what_a_slow_host_writes(simulator: Simulator) -> None:
    """Address and data of a write in any order, answers taken late."""
    rng = np.random.default_rng(0)
    simulator.set_host(5)
    names = ("PROGRAM", "INSTRUCTIONS", "WATCHDOG", "SEGMENT1", "SIZE2", "LEDS", "BARRIER_FILTER", "GATE_LOW")
    widths = {"INSTRUCTIONS": (1 << 20) - 1, "LEDS": 15, "WATCHDOG": (1 << 32) - 1}
    kept: dict[str, int] = {}
    for _ in range(150):
        name = names[rng.integers(len(names))]
        # registers of bytes hold multiples of 8
        kept[name] = int(rng.integers(1 << 32)) & widths.get(name, 0xFFFFFFF8)
        simulator.write(name, kept[name])
        name = names[rng.integers(len(names))]
        assert simulator.read(name) == kept.setdefault(name, simulator.read(name))
    for name in ("ID", "VERSION"):
        simulator.write(name, 0)
    assert (simulator.read("ID"), simulator.read("VERSION")) == (ID_VALUE, isa.version())
    simulator.check()


@pytest.mark.parametrize("garbage", [2, 3, 4])
def test_nothing_depends_on_what_the_memories_hold_after_power_up(simulator: Simulator, garbage: int) -> None:
    cycles = []
    for seed in (garbage, garbage + 100):
        simulator.power_up(garbage=seed)
        assert recovers(simulator)
        cycles.append(simulator.read("CYCLES"))
    assert cycles[0] == cycles[1]


@pytest.mark.parametrize(
    ("first", "port"),
    [
        (0, MemoryPort()),
        (250, MemoryPort(latency_cycles=3, efficiency=1.0)),
        (350, MemoryPort(latency_cycles=90, efficiency=0.4, stall=0.1, seed=2)),
        (450, MemoryPort(stall=0.4, seed=3)),
        (550, MemoryPort(latency_cycles=1, efficiency=1.0, stall=0.2, shy=True, seed=4)),
    ],
)
def test_random_layers_are_those_of_the_golden_model(simulator: Simulator, first: int, port: MemoryPort) -> None:
    """650 programs, one after the other without a reset."""
    simulator.set_port(port)
    twins = Twins(simulator)
    for seed in range(first, first + (250 if first == 0 else 100)):
        twins.run(case_of(seed))


def test_a_load_and_a_store_share_their_port(simulator: Simulator) -> None:
    """While one tile leaves, another comes in beside it, in the same bank."""
    twins, rng = Twins(simulator), np.random.default_rng(0)
    tile: dict[str, Any] = {"rows": 8, "cols": 16, "pitch": 32, "base_row": 16, "base_col": 1}
    program = [
        LoadTile(segment=Segment.INPUT, signal=TO_STORE, **tile),
        LoadTile(segment=Segment.INPUT, address=256, base=128, signal=TO_STORE, **tile),
        StoreTile(segment=Segment.OUTPUT, wait=FROM_LOAD, **tile),
        StoreTile(segment=Segment.OUTPUT, address=256, base=128, wait=FROM_LOAD, **tile),
        End(),
    ]
    empty = np.zeros(4096, np.uint8)
    for _ in range(4):
        twins.run(Case(program, [empty, empty, rng.integers(0, 256, 4096, np.uint8), empty]))


@pytest.mark.parametrize("port", [MemoryPort(), MemoryPort(latency_cycles=1, efficiency=0.3)])
def test_what_was_stored_can_be_loaded_at_once(simulator: Simulator, port: MemoryPort) -> None:
    simulator.set_port(port)
    twins, rng = Twins(simulator), np.random.default_rng(0)
    tile: dict[str, Any] = {"rows": 2, "cols": 16, "pitch": 32, "base_row": 16, "base_col": 1}
    program = [
        LoadTile(segment=Segment.INPUT, signal=TO_STORE, **tile),
        StoreTile(segment=Segment.SCRATCH, wait=FROM_LOAD, signal=TO_LOAD, **tile),
        # what is written last is read first
        LoadTile(segment=Segment.SCRATCH, address=62, base=159, wait=FROM_STORE, signal=TO_STORE),
        StoreTile(segment=Segment.OUTPUT, base=128, wait=FROM_LOAD, **tile),
        End(),
    ]
    empty = np.zeros(1024, np.uint8)
    for _ in range(4):
        twins.run(Case(program, [empty, empty, rng.integers(0, 256, 1024, np.uint8), empty]))


def test_a_program_takes_the_same_cycles_every_time(simulator: Simulator) -> None:
    twins, case = Twins(simulator), case_of(7)
    cycles = {twins.run(case).counters["CYCLES"] for _ in range(50)}
    assert max(cycles) - min(cycles) <= 3  # the memory's own rhythm goes on between the runs


def test_a_reset_in_mid_program_leaves_nothing_behind(simulator: Simulator) -> None:
    twins, case = Twins(simulator), case_of(3)
    whole = twins.run(case).counters["CYCLES"]
    for wait in range(5, whole, whole // 40):
        start(simulator, case.with_code(), len(case.program))
        assert not simulator.wait(wait)
        simulator.reset()
        simulator.wait(200)
        assert not simulator.read("STATUS") & STATUS_BUSY
        simulator.check()
        twins.run(case)


@pytest.mark.parametrize(
    "transfer",
    [
        LoadTile(segment=Segment.INPUT, cols=1024, words=2, base_col=2),
        StoreTile(segment=Segment.OUTPUT, cols=1024, words=2, base_col=2),
    ],
)
def test_a_reset_ends_a_long_transfer_soon(simulator: Simulator, transfer: Instruction) -> None:
    """Bursts under way are finished, but no other is asked for."""
    contents = raw_case([transfer, End()]).with_code()
    contents[Segment.INPUT] = contents[Segment.OUTPUT] = np.zeros(32_768, np.uint8)
    start(simulator, contents, 2)
    assert not simulator.wait(800)
    assert simulator.read("BEATS_READ") + simulator.read("BEATS_WRITTEN") < 1000
    simulator.reset()
    simulator.wait(200)
    assert not simulator.read("STATUS") & STATUS_BUSY
    assert recovers(simulator)


@pytest.mark.parametrize(
    ("program", "fault", "count"),
    [
        ([LoadTile(segment=Segment.INPUT)], Fault.PROGRAM_END, 1),
        ([], Fault.PROGRAM_END, 0),
        ([LoadTile(segment=Segment.INPUT, address=511), End()], Fault.SEGMENT, 1),
        ([LoadTile(segment=Segment.INPUT, rows=2, pitch=511), End()], Fault.SEGMENT, 1),
        ([LoadTile(segment=Segment.SCRATCH, address=(1 << 29) - 1), End()], Fault.SEGMENT, 1),
        ([LoadWeights(words=22), End()], Fault.SEGMENT, 1),
        ([LoadWeights(words=43, format=WeightFormat.INT4), End()], Fault.SEGMENT, 1),
        ([StoreTile(segment=Segment.OUTPUT, cols=257), End()], Fault.SEGMENT, 1),
        ([Compute(wait=1), End()], Fault.WATCHDOG, 1),
        ([*[LoadTile(segment=Segment.INPUT, signal=4)] * 64, End()], Fault.TOKENS, 64),
    ],
)
def test_a_wrong_program_ends_in_its_fault(
    simulator: Simulator, program: list[Instruction], fault: Fault, count: int
) -> None:
    start(simulator, raw_case(program).with_code(), len(program), watchdog_cycles=1000)
    run = simulator.finish(20_000)
    assert run.fault == fault
    assert run.fault_count >= count - 1
    assert recovers(simulator)


def test_an_unknown_instruction_is_a_fault(simulator: Simulator) -> None:
    for opcode in (0, 7, 15):
        contents = [np.zeros(4096, np.uint8) for _ in Segment]
        contents[0][0] = opcode
        start(simulator, contents, 2)
        assert simulator.finish(20_000).fault == Fault.OPCODE
    assert recovers(simulator)


def test_errors_of_the_memory_are_faults(simulator: Simulator) -> None:
    case = case_of(3)
    for fault, trouble in ((Fault.READ, {"fail_read_at": 40}), (Fault.WRITE, {"fail_write_at": 0})):
        start(simulator, case.with_code(), len(case.program))
        simulator.set_trouble(**trouble)  # type: ignore[arg-type]
        assert simulator.finish(20_000).fault == fault
        simulator.set_trouble()
        assert recovers(simulator)


def test_a_memory_that_is_silent_for_long_is_a_fault_when_it_answers_again(simulator: Simulator) -> None:
    """Bursts that are under way must be finished first: until then the engine is busy and ERROR tells why."""
    case = case_of(3)
    start(simulator, case.with_code(), len(case.program), watchdog_cycles=500)
    assert not simulator.wait(60)
    simulator.set_trouble(frozen=True)
    assert not simulator.wait(2000)
    assert simulator.read("STATUS") == STATUS_BUSY
    assert simulator.read("ERROR") == Fault.WATCHDOG
    simulator.set_trouble()
    assert simulator.finish(2000).fault == Fault.WATCHDOG
    assert recovers(simulator)


def recovers(simulator: Simulator) -> bool:
    """The next program runs as if nothing had been; it reads only what it has loaded."""
    case = case_of(3)
    compute, store = case.program[-3], case.program[-2]
    assert isinstance(compute, Compute)
    assert isinstance(store, StoreTile)
    contents = case.with_code()
    views = start(simulator, contents, len(case.program))
    run = simulator.finish()
    Machine(contents).run(case.program)
    return run.fault == Fault.NONE and written_equal(compute, store, views[3], contents[3])


def written_equal(compute: Compute, store: StoreTile, got: Any, want: Any) -> bool:
    first = isa.QUAD_BYTES * (compute.out % 4)
    for y in range(compute.rows):
        for x in range(compute.cols):
            at = 8 * store.pitch * y + isa.WORD_BYTES * store.words * x + first
            piece = slice(at, at + isa.QUAD_BYTES * compute.out_quads)
            if (got[piece] != want[piece]).any():
                return False
    return True


def dense_case(size: int, channels: int, kernel: int) -> Case:
    """One group of a convolution, with everything already in place but for the weights' values."""
    blocks = channels // 16
    compute = Compute(
        rows=size,
        cols=size,
        kernel_rows=kernel,
        kernel_cols=kernel,
        blocks=blocks,
        first_row=-(kernel // 2),
        first_col=-(kernel // 2),
        source_rows=size,
        source_cols=size,
        a_row=size * blocks,
        a_col=blocks,
        out=4 * 2 * isa.BANK_WORDS,
        out_row=size,
        out_col=1,
        out_quads=3,
    )
    return raw_case([compute, End()])


@pytest.mark.parametrize(("size", "channels", "kernel"), [(32, 32, 3), (16, 64, 1), (16, 16, 1), (7, 48, 5)])
def test_a_computation_takes_a_step_a_cycle(simulator: Simulator, size: int, channels: int, kernel: int) -> None:
    case = dense_case(size, channels, kernel)
    start(simulator, case.with_code(), len(case.program))
    run = simulator.finish()
    steps = kernel * kernel * channels // 16
    pairs = size * -(-size // 2)
    assert run.counters["CYCLES_MAC"] == pairs * steps
    assert run.counters["CYCLES"] - pairs * max(steps, 2) <= 120  # the fetch, the start and the end
    assert run.counters["CYCLES_PORT"] == 0


def test_reads_use_what_the_port_gives(simulator: Simulator) -> None:
    """640 beats of every 800 cycles, with bursts enough under way to hide 30 cycles of latency."""
    case = Case(
        [LoadTile(segment=Segment.INPUT, cols=1024, words=2, base_col=2), End()],
        [np.zeros(1024, np.uint8), np.zeros(8, np.uint8), np.zeros(32_768, np.uint8), np.zeros(8, np.uint8)],
    )
    start(simulator, case.with_code(), len(case.program))
    run = simulator.finish()
    assert run.counters["CYCLES"] < 4096 / 0.8 * 1.02 + 150
    assert simulator.bursts_under_way() <= 4


def test_the_line_goes_on_beside_the_engine(simulator: Simulator) -> None:
    simulator.write("BARRIER_FILTER", 20)
    simulator.set_pins(barrier=True)
    simulator.wait(10)
    simulator.set_pins(barrier=False)
    simulator.wait(100)
    assert simulator.read("BARRIER_COUNT") == 0  # shorter than the filter
    before = simulator.read("TIME_LOW")
    simulator.set_pins(barrier=True)
    simulator.wait(100)
    assert simulator.read("BARRIER_COUNT") == 1
    assert simulator.read("BARRIER_NEXT") == 1
    stamp = simulator.read("BARRIER_LOW")
    assert 0 <= stamp - before < 20
    simulator.write("BARRIER_NEXT", 1)
    assert simulator.read("BARRIER_NEXT") == 0
    simulator.write("GATE_LIMIT", 50)
    simulator.write("GATE_LOW", stamp + 500)
    simulator.write("GATE_HIGH", 0)
    simulator.write("GATE_CYCLES", 50)
    opened = 0
    for _ in range(700):
        simulator.wait(1)
        opened += simulator.pins()[0]
    assert opened == 50
    simulator.write("GATE_CYCLES", 50)  # its time has passed
    simulator.wait(50)
    assert simulator.read("GATE_STATUS") == 1 << 16
    simulator.write("LEDS", 9)
    assert simulator.pins() == (False, 9)
