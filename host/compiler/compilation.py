"""The compiler's stages in a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

from board.overlay import isa
from board.overlay.isa import BEAT_BYTES, INSTRUCTION_BYTES, End, Instruction, encode_program
from board.overlay.program import Program
from host.compiler.checks import check_limits
from host.compiler.emission import Emission, align, move_weights
from host.compiler.footprints import count_places
from host.compiler.lowering import lower
from host.compiler.memory import plan_memory
from host.compiler.operations import Operation
from host.compiler.order import find_order
from host.compiler.tokens import add_tokens
from host.integers.arithmetic import MAP, IntegerNet


@dataclass(frozen=True)
class Compiled:
    """`owners` holds the operation of each instruction; the last one, End, has none."""

    program: Program
    instructions: tuple[Instruction, ...]
    owners: tuple[Operation, ...]
    peak_words: int  # of activation memory in use at once


def compile_net(net: IntegerNet, activation_words: int = isa.ACTIVATION_WORDS) -> Compiled:
    """Fewer `activation_words` than the overlay has send more tensors through DDR.

    Raises: UnsupportedError or NotExactError naming the layer, the reason and what would be accepted."""
    check_limits(net)
    plans = plan_memory(lower(net), activation_words)
    emission = Emission(plans)
    count = len(emission.lines) + 1
    code_bytes = align(count * INSTRUCTION_BYTES // BEAT_BYTES) * BEAT_BYTES
    lines = [move_weights(line, code_bytes // BEAT_BYTES) for line in emission.lines]
    program = Program(
        model=bytes(code_bytes) + bytes(emission.weights.content),
        instruction_count=count,
        scratch_bytes=emission.scratch_beats * BEAT_BYTES,
        input_px=net.input_px,
        output_shape=net.shapes()[MAP],
    )
    places = count_places([size // BEAT_BYTES for size in program.segment_bytes()])
    lines = [lines[position] for position in find_order([line.instruction for line in lines], places)]
    instructions = (*add_tokens([line.instruction for line in lines], places), End())
    code = encode_program(instructions).ljust(code_bytes, b"\0")
    return Compiled(
        program=replace(program, model=code + program.model[code_bytes:]),
        instructions=instructions,
        owners=tuple(line.operation for line in lines),
        peak_words=max(plan.words for plan in plans),
    )


def disassemble(compiled: Compiled) -> str:
    """One line an instruction, under the name of its operation."""
    lines, owner = [], None
    for number, instruction in enumerate(compiled.instructions):
        operation = compiled.owners[number] if number < len(compiled.owners) else None
        if operation and operation is not owner:
            owner = operation
            lines.append(f"{operation.name}:")
        lines.append(f"{number:6d}  {isa.text(instruction)}")
    return "\n".join(lines) + "\n"
