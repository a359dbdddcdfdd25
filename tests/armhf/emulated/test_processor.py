"""What the emulated processor is, and that it is none that can do more than the board's."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.armhf import userland

WITHOUT_LIBC = ["-nostdlib", "-static", "-mfloat-abi=hard", "-marm"]
EXIT = "mov r7, #1; mov r0, #0; svc #0"
LACKING = {
    "integer division": ("-mcpu=cortex-a15", "sdiv r0, r1, r2"),
    "fused multiply-add": ("-mcpu=cortex-a15", "vfma.f32 s0, s1, s2"),
}


def run_instruction(folder: Path, flag: str, instruction: str) -> int:
    """Exit status of a program of this one instruction."""
    source = folder / "one.s"
    unit = ".fpu neon-vfpv4" if "vfma" in instruction else ".fpu neon"
    source.write_text(f".syntax unified\n{unit}\n.globl _start\n_start: {instruction}\n{EXIT.replace('; ', chr(10))}\n")
    subprocess.run(["arm-linux-gnueabihf-gcc", flag, *WITHOUT_LIBC, str(source), "-o", str(folder / "one")], check=True)
    return subprocess.call([userland.EMULATOR, "-cpu", "cortex-a9", str(folder / "one")], stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("kind", LACKING)
def test_it_stops_at_an_instruction_that_the_boards_lacks(kind: str, tmp_path: Path) -> None:
    assert run_instruction(tmp_path, *LACKING[kind]) == -signal.SIGILL


def test_it_executes_one_that_the_boards_has(tmp_path: Path) -> None:
    assert run_instruction(tmp_path, "-mcpu=cortex-a9", "vmla.f32 s0, s1, s2") == 0


def test_the_userland_is_32_bit_arm() -> None:
    words = userland.run("-c", "import platform; print(platform.machine(), platform.architecture()[0])").split()
    assert words == ["armv7l", "32bit"]


def test_a_program_reads_the_zynqs_cpuinfo() -> None:
    content = userland.run("-c", "print(open('/proc/cpuinfo').read())")
    assert "0xc09" in content
    assert "vfpv4" not in content
