"""Where the cycles of a frame go, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

from board.overlay import isa
from board.overlay.isa import BEAT_BYTES, Compute, LoadWeights, Mode
from board.overlay.simulation.simulator import MemoryPort
from host.compiler.compilation import Compiled
from host.compiler.durations import compute_steps
from host.compiler.footprints import moved_beats
from host.compiler.operations import Operation
from host.compiler.timing import CLOCK_HZ, ddr_bytes, predict

PRODUCTS_PER_CYCLE = isa.WEIGHT_WORD_BYTES * isa.PIXELS


@dataclass(frozen=True)
class Row:
    """An operation's share of the frame: the time from its predecessor's last result to its own."""

    operation: Operation
    cycles: int
    computing: int  # of them, in which the array is busy
    weight_bytes: int  # that it loads, int4 where they fit
    ddr_bytes: int  # read and written, weights included, instructions not

    @property
    def utilisation(self) -> float:
        """Share of the 384 products a cycle."""
        return self.operation.macs / (PRODUCTS_PER_CYCLE * max(1, self.cycles))


def make_rows(compiled: Compiled, port: MemoryPort | None = None) -> list[Row]:
    """One row an operation; their cycles sum up to the frame, but for the last store and the interrupt."""
    timing = predict(compiled.instructions, port)
    rows, before = [], 0.0
    for operation in dict.fromkeys(compiled.owners):
        mine = [number for number, owner in enumerate(compiled.owners) if owner is operation]
        items = [compiled.instructions[number] for number in mine]
        over = max(timing.ends[number] for number in mine if isinstance(compiled.instructions[number], Compute))
        busy = sum(compute_steps(item) for item in items if isinstance(item, Compute))
        weights = sum(moved_beats(item) for item in items if isinstance(item, LoadWeights)) * BEAT_BYTES
        moved = sum(map(moved_beats, items)) * BEAT_BYTES
        rows.append(Row(operation, round(over) - round(before), busy, weights, moved))
        before = over
    return rows


def dense_utilisation(rows: list[Row]) -> float:
    """Of the convolutions with at least 16 inputs, all together."""
    dense = [row for row in rows if row.operation.inputs >= isa.CHANNELS_IN]
    cycles = sum(row.cycles for row in dense)
    return sum(row.operation.macs for row in dense) / (PRODUCTS_PER_CYCLE * max(1, cycles))


def write_table(compiled: Compiled) -> str:
    """Markdown."""
    lines = [
        "| layer | map | channels | k | M MAC | cycles | array used | weights KiB | DDR KiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows, total = make_rows(compiled), predict(compiled.instructions).total
    lines += [_write_row(row) for row in rows]
    program = compiled.program
    lines += [
        "",
        f"{total:,} cycles a frame, {CLOCK_HZ / total:.1f} frames/s at {CLOCK_HZ // 1_000_000} MHz; "
        f"dense layers of at least {isa.CHANNELS_IN} inputs use {dense_utilisation(rows):.0%} of the array.",
        f"{ddr_bytes(compiled.instructions) / 1024:.0f} KiB of DDR traffic a frame; {program.instruction_count} "
        f"instructions, {program.scratch_bytes / 1024:.0f} KiB of scratch memory.",
        f"At most {compiled.peak_words:,} of {isa.ACTIVATION_WORDS:,} words of activation memory are in use.",
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
