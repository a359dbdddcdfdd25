"""Where the cycles of a frame go, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from board.overlay import isa
from board.overlay.isa import BEAT_BYTES, Compute, Instruction, LoadWeights, Mode
from host.compiler.compilation import Compiled
from host.compiler.durations import compute_steps
from host.compiler.footprints import moved_beats
from host.compiler.operations import Operation
from host.compiler.timing import CLOCK_HZ, ddr_bytes, predict

PRODUCTS_PER_CYCLE = isa.WEIGHT_WORD_BYTES * isa.PIXELS


@dataclass(frozen=True)
class Row:
    """An operation's share of the frame: for each of its computations, the time from the one before to its own end."""

    operation: Operation
    cycles: int
    computing: int  # of them, in which the array is busy
    weight_bytes: int  # that it loads, int4 where they fit
    ddr_bytes: int  # read and written, weights included, instructions not

    @property
    def utilisation(self) -> float:
        """Share of the 384 products a cycle."""
        return self.operation.macs / (PRODUCTS_PER_CYCLE * max(1, self.cycles))


def make_rows(compiled: Compiled, ends: Sequence[float] | None = None) -> list[Row]:
    """One row an operation; their cycles sum up to the frame, but for the last store and the interrupt.

    `ends` are the cycles at which each computation is over; they are predicted where they were not measured.
    """
    mine: dict[Operation, list[Instruction]] = {operation: [] for operation in compiled.owners}
    cycles = dict.fromkeys(mine, 0.0)
    for instruction, operation in zip(compiled.instructions, compiled.owners, strict=False):
        mine[operation].append(instruction)
    computing = [owner for item, owner in zip(compiled.instructions, compiled.owners, strict=False) if _computes(item)]
    over = _predict_ends(compiled) if ends is None else ends
    for operation, start, end in zip(computing, [0.0, *over], over, strict=False):
        cycles[operation] += end - start
    return [_make_row(operation, items, round(cycles[operation])) for operation, items in mine.items()]


def _predict_ends(compiled: Compiled) -> list[float]:
    ends = predict(compiled.instructions).ends
    return [float(end) for item, end in zip(compiled.instructions, ends, strict=False) if _computes(item)]


def _computes(instruction: Instruction) -> bool:
    return isinstance(instruction, Compute)


def _make_row(operation: Operation, items: list[Instruction], cycles: int) -> Row:
    busy = sum(compute_steps(item) for item in items if isinstance(item, Compute))
    weights = sum(moved_beats(item) for item in items if isinstance(item, LoadWeights)) * BEAT_BYTES
    return Row(operation, cycles, busy, weights, sum(map(moved_beats, items)) * BEAT_BYTES)


def dense_utilisation(rows: list[Row]) -> float:
    """Of the convolutions with at least 16 inputs, all together."""
    dense = [row for row in rows if row.operation.inputs >= isa.CHANNELS_IN]
    cycles = sum(row.cycles for row in dense)
    return sum(row.operation.macs for row in dense) / (PRODUCTS_PER_CYCLE * max(1, cycles))


def write_table(compiled: Compiled) -> str:
    """Markdown: the layers as predicted, and what the frame as a whole takes."""
    rows, total = make_rows(compiled), predict(compiled.instructions).total
    program = compiled.program
    lines = [
        write_rows(rows),
        "",
        f"{total:,} cycles a frame, {CLOCK_HZ / total:.1f} frames/s at {CLOCK_HZ // 1_000_000} MHz; "
        f"dense layers of at least {isa.CHANNELS_IN} inputs use {dense_utilisation(rows):.0%} of the array.",
        f"{ddr_bytes(compiled.instructions) / 1024:.0f} KiB of DDR traffic a frame; {program.instruction_count} "
        f"instructions, {program.scratch_bytes / 1024:.0f} KiB of scratch memory.",
        f"At most {compiled.peak_words:,} of {isa.ACTIVATION_WORDS:,} words of activation memory are in use.",
    ]
    return "\n".join(lines)


def write_rows(rows: Sequence[Row]) -> str:
    """Markdown, with a line for their sum."""
    macs, cycles = sum(row.operation.macs for row in rows), sum(row.cycles for row in rows)
    weights, moved = sum(row.weight_bytes for row in rows), sum(row.ddr_bytes for row in rows)
    lines = [
        "| layer | map | channels | k | M MAC | cycles | array used | weights KiB | DDR KiB |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_write_row, rows),
        f"| **all** | | | | {macs / 1e6:.1f} | {cycles:,} | {macs / (PRODUCTS_PER_CYCLE * cycles):.0%} "
        f"| {weights / 1024:.1f} | {moved / 1024:.1f} |",
    ]
    return "\n".join(lines)


def _write_row(row: Row) -> str:
    operation = row.operation
    tensor = operation.output.tensor
    dense = operation.mode == Mode.DENSE
    channels = f"{operation.inputs}→{operation.channels}" if dense else str(operation.channels)
    small = " int4" if any(group.tile.format == isa.WeightFormat.INT4 for group in operation.groups) else ""
    return (
        f"| {operation.name} | {tensor.rows} × {tensor.cols} | {channels} | {operation.kernel_rows} "
        f"| {operation.macs / 1e6:.1f} | {row.cycles:,} | {row.utilisation:.0%} "
        f"| {row.weight_bytes / 1024:.1f}{small} | {row.ddr_bytes / 1024:.1f} |"
    )
