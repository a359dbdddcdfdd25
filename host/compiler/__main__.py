"""What the overlay will do with a model, and how long it will take.

python -m host.compiler models/orange-128 --table
python -m host.compiler models/orange-128 --disassemble
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from board.overlay.isa import BEAT_BYTES, INSTRUCTION_BYTES
from board.overlay.program import encode_file
from host.compiler.compilation import Compiled, compile_net, disassemble
from host.compiler.reader import load_qdq
from host.compiler.timing import CLOCK_HZ, dense_utilisation, make_table, predict
from protocol.errors import run_main
from protocol.manifest import MODEL_ONNX, load_package


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m host.compiler", description="Compile a model for the overlay.")
    parser.add_argument("model", type=Path, help="folder of a model package")
    parser.add_argument("--table", action="store_true", help="predicted cycles of each layer (default)")
    parser.add_argument("--disassemble", action="store_true", help="the program as text")
    parser.add_argument("--out", type=Path, help="write the program to this file")
    options = parser.parse_args()
    compiled = compile_net(load_qdq(load_package(options.model).path(MODEL_ONNX)))
    if options.out:
        options.out.write_bytes(encode_file(compiled.program))
    if options.disassemble:
        print(disassemble(compiled), end="")
    if options.table or not options.disassemble:
        print(write_table(compiled))
    return 0


def write_table(compiled: Compiled) -> str:
    """Markdown."""
    lines = [
        "| layer | map | k | cycles | array busy | M MAC | array used | port KiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows, timing = make_table(compiled), predict(compiled.instructions)
    for row in rows:
        tensor = row.operation.output.tensor
        lines.append(
            f"| {row.operation.name} | {tensor.rows} × {tensor.cols} | {row.operation.kernel_rows} | {row.cycles:,} "
            f"| {row.computing:,} | {row.operation.macs / 1e6:.1f} | {row.utilisation:.0%} "
            f"| {row.port_bytes / 1024:.1f} |"
        )
    program = compiled.program
    weights = len(program.model) - program.instruction_count * INSTRUCTION_BYTES
    lines += [
        "",
        f"{timing.total:,} cycles a frame: {CLOCK_HZ / timing.total:.0f} frames/s at {CLOCK_HZ // 1_000_000} MHz; "
        f"dense layers of at least 16 inputs use {dense_utilisation(rows):.0%} of the array.",
        f"{program.instruction_count} instructions, {weights / 1024:.0f} KiB of weights, "
        f"{program.scratch_bytes / 1024:.0f} KiB of scratch, {timing.port_bytes / 1024:.0f} KiB a frame "
        f"({timing.port_bytes // BEAT_BYTES:,} beats).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_main(main))
