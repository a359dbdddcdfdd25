"""Programs that cannot be meant: the overlay stops with a fault, goes on until a reset, or does what they say.

Whatever they say, it never hangs, breaks no rule of its ports, writes nowhere but into its segments (a rule of the
port's too), and the next program runs as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from board.overlay import isa
from board.overlay.errors import Fault, ProgramError
from board.overlay.golden import FaultError, Machine
from board.overlay.isa import Compute, End, Instruction, LoadTile, LoadWeights, Segment
from board.overlay.program import Program, decode_file, encode_file, pack_image
from board.overlay.registers import STATUS_BUSY
from board.overlay.simulation.simulator import MemoryPort, Simulator
from host.compiler.compilation import compile_net
from tests.board.overlay.programs import Bytes, Case, random_case
from tests.board.overlay.test_engine import recovers
from tests.board.overlay.test_isa import random_instruction
from tests.host.compiler.ordering import Ordering, RaceError
from tests.host.compiler.test_program_file import sealed
from tests.host.random_nets import random_net

MEMORY_BYTES = 1 << 20
WATCHDOG_CYCLES = 400
MOST_CYCLES = 30_000  # more than a program takes that was meant; a wrong one may be at work for hours
RESET_CYCLES = 3000  # 4 bursts each way on a slow memory
MOST_STEPS = 20_000  # of a computation that the golden model is asked about
UNTOUCHED = 0xA5
TRIES = 60


@pytest.fixture
def small(library: Path) -> Iterator[Simulator]:
    port = MemoryPort(latency_cycles=20, efficiency=0.7, stall=0.05)
    with Simulator(library, MEMORY_BYTES, port) as opened:
        yield opened


def attempt(simulator: Simulator, contents: list[Bytes], instructions: int, program: int = 0) -> Fault | None:
    """The fault, NONE for a good end, or nothing when only a reset has ended it; memory around stays untouched."""
    simulator.memory[:] = UNTOUCHED
    views = simulator.place([len(content) for content in contents])
    for view, content in zip(views, contents, strict=True):
        view[:] = content
    simulator.start(program, instructions, watchdog_cycles=WATCHDOG_CYCLES)
    fault = end(simulator)
    for view in views:
        view[:] = UNTOUCHED
    assert (simulator.memory == UNTOUCHED).all()
    return fault


def end(simulator: Simulator) -> Fault | None:
    if simulator.wait(MOST_CYCLES):
        return simulator.finish(1).fault
    simulator.check()
    before = simulator.read("CYCLES_MAC")
    simulator.wait(1000)
    assert simulator.read("CYCLES_MAC") > before, "it hangs"
    simulator.reset()
    simulator.wait(RESET_CYCLES)
    assert not simulator.read("STATUS") & STATUS_BUSY
    simulator.check()
    return None


def test_any_bytes_as_a_program(small: Simulator) -> None:
    """Also from a place that is no instruction's, with less or more instructions than there are."""
    rng = np.random.default_rng(0)
    faults = set()
    for _ in range(TRIES):
        contents = [rng.integers(0, 256, 8 * int(rng.integers(1, 200)), np.uint8) for _ in Segment]
        program = 8 * int(rng.integers(0, 220))
        faults.add(attempt(small, contents, int(rng.choice([0, 1, 3, 50, (1 << 20) - 1])), program))
    assert {Fault.OPCODE, Fault.SEGMENT, Fault.PROGRAM_END} <= faults
    assert recovers(small)


def test_any_instructions(small: Simulator) -> None:
    """Values of all fields are random: most accesses leave their segments, most tokens do not come."""
    rng = np.random.default_rng(1)
    faults = set()
    for number in range(TRIES):
        kinds = rng.choice(len(isa.INSTRUCTIONS) - 1, int(rng.integers(1, 30)))
        program = [random_instruction(rng, isa.INSTRUCTIONS[kind]) for kind in kinds]
        if number % 2:
            program = [replace(item, wait=0) for item in program]
        code = np.frombuffer(isa.encode_program([*program, End()]), np.uint8)
        rest = [np.zeros(1 << 17, np.uint8) for _ in range(3)]
        faults.add(attempt(small, [code, *rest], len(program) + 1))
        assert number % 20 or recovers(small)
    assert {Fault.SEGMENT, Fault.WATCHDOG} <= faults


def test_turned_bits(small: Simulator) -> None:
    """Of instructions that were meant."""
    rng = np.random.default_rng(2)
    faults = []
    for number in range(3 * TRIES):
        case = random_case(np.random.default_rng(number))
        contents = case.with_code()
        for bit in rng.integers(0, 8 * isa.INSTRUCTION_BYTES * len(case.program), int(rng.integers(1, 4))):
            contents[Segment.MODEL][bit // 8] ^= np.uint8(1 << bit % 8)
        faults.append(attempt(small, contents, len(case.program)))
        assert number % 20 or recovers(small)
    assert {Fault.NONE, Fault.SEGMENT, Fault.WATCHDOG, Fault.OPCODE} <= set(faults)


def test_segments_that_are_too_small(small: Simulator) -> None:
    """A beat less than a program needs is a fault, what it needs is none."""
    for number in range(TRIES // 2):
        case = random_case(np.random.default_rng(number))
        for segment in (Segment.MODEL, Segment.INPUT):
            contents = case.with_code()
            used = 8 * max(_ends(case.program, segment))
            contents[segment] = contents[segment][:used]
            assert attempt(small, contents, len(case.program)) == Fault.NONE
            contents[segment] = contents[segment][: used - 8]
            assert attempt(small, contents, len(case.program)) == Fault.SEGMENT
    assert recovers(small)


def _ends(program: list[Instruction], segment: Segment) -> Iterator[int]:
    """Beats up to the end of each load."""
    for item in program:
        if isinstance(item, LoadWeights) and segment == item.segment:
            yield item.address + item.words * (12 if item.format else 24)
        elif isinstance(item, LoadTile) and segment == item.segment:
            yield item.address + (item.rows - 1) * item.pitch + 2 * item.cols * item.words
        elif isinstance(item, isa.LoadImage) and segment == item.segment:
            yield item.address + (item.rows - 1) * item.pitch + -(-3 * item.cols // 8)


def test_one_changed_field_does_what_the_golden_model_says(small: Simulator) -> None:
    """Its fault, or its bytes in every segment, wherever the document tells what must come."""
    rng, told = np.random.default_rng(3), {"fault": 0, "bytes": 0}
    golden = remember(small)
    for number in range(TRIES):
        case = change_field(rng, random_case(np.random.default_rng(number)))
        if any(_steps(item) > MOST_STEPS for item in case.program):
            continue
        contents = case.with_code()
        want, ends_well = [content.copy() for content in contents], False
        machine = Machine(want, Ordering())
        machine.activations, machine.weights = golden.activations.copy(), golden.weights.copy()
        views = small.place([len(content) for content in contents])
        for view, content in zip(views, contents, strict=True):
            view[:] = content
        small.start(0, len(case.program), watchdog_cycles=WATCHDOG_CYCLES)
        fault = end(small)
        try:
            machine.run(case.program)
            ends_well = True
        except FaultError:
            assert fault not in (Fault.NONE, None), case.program
            told["fault"] += 1
        except (ProgramError, RaceError):
            pass
        if ends_well:
            assert fault == Fault.NONE, case.program
            assert all((view == content).all() for view, content in zip(views, want, strict=True)), case.program
            told["bytes"] += 1
            golden = machine
        else:
            golden = remember(small)
    assert min(told.values()) > TRIES // 6, told


def change_field(rng: np.random.Generator, case: Case) -> Case:
    number = int(rng.integers(len(case.program) - 1))
    item = case.program[number]
    other: Any = random_instruction(rng, type(item))
    name = rng.choice([place.name for place in isa.layout(type(item)) if place.name not in ("wait", "signal")])
    program = [*case.program]
    program[number] = replace(item, **{str(name): getattr(other, str(name))})
    return replace(case, program=program)


def _steps(item: Instruction) -> int:
    if not isinstance(item, Compute):
        return 0
    return item.rows * item.cols * item.sources * item.kernel_rows * item.kernel_cols * item.blocks


def remember(simulator: Simulator) -> Machine:
    """Both memories are written whole, here and there."""
    rng = np.random.default_rng(5)
    acts = rng.integers(0, 256, isa.ACTIVATION_WORDS * isa.WORD_BYTES, np.uint8)
    weights = rng.integers(0, 256, isa.WEIGHT_WORDS * isa.WEIGHT_WORD_BYTES, np.uint8)
    loads: list[Instruction] = [
        LoadTile(segment=Segment.INPUT, rows=16, cols=1024, pitch=2048, base_row=1024, base_col=1),
        LoadWeights(segment=Segment.SCRATCH, words=isa.WEIGHT_WORDS),
        End(),
    ]
    code = np.frombuffer(isa.encode_program(loads), np.uint8)
    contents: list[Bytes] = [code.copy(), weights, acts, np.zeros(8, np.uint8)]
    views = simulator.place([len(content) for content in contents])
    for view, content in zip(views, contents, strict=True):
        view[:] = content
    simulator.start(0, len(loads))
    assert simulator.finish().fault == Fault.NONE
    machine = Machine(contents)
    machine.run(loads)
    return machine


def test_files_that_were_changed_and_sealed_again(small: Simulator) -> None:
    """What the loader lets pass does no harm either."""
    rng = np.random.default_rng(4)
    program = compile_net(random_net(1, (16, 16))).program
    file, passed, faults = encode_file(program), 0, set()
    code_start = file.index(isa.encode(program.instructions()[0]))
    for _ in range(4 * TRIES):
        changed = bytearray(file[:-32])
        for place in rng.integers(0, isa.INSTRUCTION_BYTES * program.instruction_count, int(rng.integers(1, 3))):
            changed[code_start + int(place)] ^= 1 << int(rng.integers(8))
        try:
            read = decode_file(sealed(bytes(changed)))
        except ProgramError:
            continue
        passed += 1
        faults.add(attempt(small, contents_of(read, rng), read.instruction_count))
        assert passed % 20 or recovers(small)
    assert passed > TRIES
    assert {Fault.NONE, Fault.SEGMENT} <= faults


def contents_of(program: Program, rng: np.random.Generator) -> list[Bytes]:
    image = rng.integers(0, 256, (*program.input_px, 3), np.uint8)
    empty: list[Bytes] = [np.zeros(size, np.uint8) for size in program.segment_bytes()]
    model, picture = (np.frombuffer(data, np.uint8) for data in (program.model, pack_image(image)))
    return [model, empty[1], picture, empty[3]]
