"""Nothing that we ship or install on the card has an instruction which a Cortex-A9 lacks.

The emulator would not tell: it stops at a scalar fused multiply-add, and executes a NEON one.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from board.engines.kernels.engine import KernelEngine
from tests.armhf import userland
from tests.armhf.instructions import find_foreign_attributes, find_lacking

KERNELS = Path(KernelEngine.__init__.__code__.co_filename).with_name("kernels-armv7l.so")
LACKING = [
    "vfma.f32 q0, q1, q2",
    "vfms.f32 d0, d1, d2",
    "vfnma.f64 d0, d1, d2",
    "sdiv r0, r1, r2",
    "udivne r0, r1, r2",
    "vrinta.f32 s0, s1",
    "vmaxnm.f32 s0, s1, s2",
    "vcvtm.s32.f32 s0, s1",
    "vsdot.s8 q0, q1, q2",
    "ldaex r0, [r1]",
    "crc32b r0, r1, r2",
    "aese.8 q0, q1",
]
HARMLESS = [
    "vmla.f32 q0, q1, q2",
    "vcvtmi.s32.f32 s0, s0",
    "vmlal.s8 q0, d2, d3",
    "ldrex r0, [r1]",
    "mls r0, r1, r2, r3",
]

CONDITIONS = {"udivne r0, r1, r2": "it ne", "vcvtmi.s32.f32 s0, s0": "it mi"}
EVERYTHING = (".arch armv8.2-a", ".arch_extension crc", ".fpu crypto-neon-fp-armv8", ".arch_extension dotprod")


def assemble(folder: Path, instruction: str, mode: str) -> Path:
    source, target = folder / "one.s", folder / "one.o"
    lines = [".syntax unified", *EVERYTHING, f".{mode}"]
    if mode == "thumb" and instruction in CONDITIONS:  # which Thumb code says in an instruction of its own
        lines.append(CONDITIONS[instruction])
    source.write_text("\n".join([*lines, instruction, ".word 0xf2010c50", ""]))  # data that would be a vfma
    subprocess.run(["arm-linux-gnueabihf-as", str(source), "-o", str(target)], check=True)
    return target


@pytest.mark.parametrize("mode", ["arm", "thumb"])
@pytest.mark.parametrize("instruction", LACKING)
def test_an_instruction_that_it_lacks_is_found(instruction: str, mode: str, tmp_path: Path) -> None:
    binary = assemble(tmp_path, instruction, mode)
    assert sum(find_lacking(binary).values()) == 1
    assert find_foreign_attributes(binary)["Tag_CPU_arch"] == "v8"


@pytest.mark.parametrize("mode", ["arm", "thumb"])
@pytest.mark.parametrize("instruction", HARMLESS)
def test_one_that_it_has_is_not(instruction: str, mode: str, tmp_path: Path) -> None:
    assert not find_lacking(assemble(tmp_path, instruction, mode))


def test_a_kernel_compiled_for_a_newer_processor_is_found(tmp_path: Path) -> None:
    source, target = tmp_path / "fused.c", tmp_path / "fused.so"
    source.write_text("float fused(float a, float b, float c) { return a * b + c; }\n")
    flags = ["-O2", "-mcpu=cortex-a7", "-mfpu=neon-vfpv4", "-ffp-contract=fast", "-shared", "-fPIC", "-nostdlib"]
    subprocess.run(["arm-linux-gnueabihf-gcc", *flags, str(source), "-o", str(target)], check=True)
    assert find_lacking(target)
    assert find_foreign_attributes(target)


def test_nothing_on_the_card_has_one() -> None:
    binaries = [KERNELS, *sorted(path for path in userland.SITE.rglob("*.so*") if path.is_file())]
    names = {path.name for path in binaries}
    assert {"kernels-armv7l.so", "libonnxruntime.so", "_rust.abi3.so"} <= names
    assert {path.name: find_lacking(path) for path in binaries if find_lacking(path)} == {}
    assert {path.name: find_foreign_attributes(path) for path in binaries if find_foreign_attributes(path)} == {}
