"""The ARM engine's own kernels as a library for the board, beside their source: `beltsight kernels`."""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import InputError, run_main

SOURCE = Path(__file__).resolve().parents[2] / "board" / "engines" / "kernels" / "kernels.c"
# The board's Cortex-A9: NEON, but neither fused multiply-add nor integer division.
BOARDS_COMPILER = ("arm-linux-gnueabihf-gcc", "-mcpu=cortex-a9", "-mfpu=neon", "-mfloat-abi=hard")
BOARDS_MACHINE = "armv7l"
FLAGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-O3", "-shared", "-fPIC", "-ffreestanding", "-nostdlib")
REPEATABLE = ("-Wl,--build-id=none",)  # the same source, the same bytes
COMPILED_WITHIN_S = 300


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="beltsight kernels", description="Compile the ARM engine's own kernels for the board."
    )
    parser.add_argument(
        "compiler",
        nargs=argparse.REMAINDER,
        help="another compiler with its flags, for this machine",
    )
    compiler = parser.parse_args().compiler
    print(build_kernels(compiler, platform.machine()) if compiler else build_kernels())
    return 0


def can_build() -> bool:
    return shutil.which(BOARDS_COMPILER[0]) is not None


def build_kernels(compiler: Sequence[str] = BOARDS_COMPILER, machine: str = BOARDS_MACHINE) -> Path:
    """Raises: InputError."""
    if shutil.which(compiler[0]) is None:
        raise InputError(f"{compiler[0]} is missing: apt-get install gcc-arm-linux-gnueabihf")
    library = SOURCE.with_name(f"kernels-{machine}.so")
    partial = library.with_name(f"{library.name}.part")
    command = [*compiler, *FLAGS, *REPEATABLE, str(SOURCE), "-o", str(partial)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILED_WITHIN_S, check=False)  # noqa: S603
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
        raise InputError(f"{compiler[0]} cannot compile the kernels ({words:.200}): take gcc for the Cortex-A9")
    # subtle: renamed, so that a station that has the old one mapped goes on with it
    partial.replace(library)
    return library


if __name__ == "__main__":
    sys.exit(run_main(main))
