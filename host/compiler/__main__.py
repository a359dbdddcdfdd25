"""What the overlay will do with a model, and how long it will take.

beltsight compile models/orange-256 --table
beltsight compile models/orange-256/model.onnx --disassemble
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from board.overlay.program import encode_file
from host.compiler.compilation import compile_net, disassemble
from host.compiler.reader import load_qdq
from host.compiler.table import write_table
from protocol.errors import run_main
from protocol.manifest import MODEL_ONNX, load_package


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight compile", description="Compile a model for the overlay.")
    parser.add_argument("model", type=Path, help="folder of a model package, or an exported .onnx")
    parser.add_argument(
        "--table", action="store_true", help="predicted cycles, array use and traffic of each layer (default)"
    )
    parser.add_argument("--disassemble", action="store_true", help="the program as text")
    parser.add_argument("--out", type=Path, help="write the program to this file")
    options = parser.parse_args()
    graph = options.model if options.model.suffix == ".onnx" else load_package(options.model).path(MODEL_ONNX)
    compiled = compile_net(load_qdq(graph))
    if options.out:
        options.out.write_bytes(encode_file(compiled.program))
    if options.disassemble:
        print(disassemble(compiled), end="")
    if options.table or not options.disassemble:
        print(write_table(compiled))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
