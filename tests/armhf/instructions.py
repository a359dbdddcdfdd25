"""Instructions in an ARM binary that a Cortex-A9 (ARMv7-A, VFPv3, NEONv1) does not have."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

OBJDUMP, READELF = "arm-linux-gnueabihf-objdump", "arm-linux-gnueabihf-readelf"
CONDITION = "(?:eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)?"
# Fused multiply-add came with VFPv4, division with ARMv7VE, the others with ARMv8.
LACKING = re.compile(
    rf"(?:(?:vfma|vfms|vfnma|vfnms|sdiv|udiv){CONDITION}"
    r"|vrint[a-z]|vsel(?:eq|ge|gt|vs)|v(?:max|min)nm|vcvt[anpm]|v[su]dot|v[su]mmla|vusdot|vfma[lb]|vfmsl"
    r"|crc32c?[bhw]|aes[a-z]+|sha(?:1|256)[a-z0-9]+"
    rf"|(?:lda|stl)(?:ex)?[bhd]?{CONDITION}|sevl)(?:\.[a-z0-9.]+)?"
)
# What the linker wrote down of what its objects were compiled for.
ATTRIBUTES = {
    "Tag_FP_arch": {"VFPv2", "VFPv3", "VFPv3-D16"},
    "Tag_Advanced_SIMD_arch": {"NEONv1"},
    "Tag_CPU_arch": {"v6", "v6K", "v7"},
    "Tag_DIV_use": {"Not allowed"},
}


def find_lacking(binary: Path) -> Counter[str]:
    """How often each instruction occurs that the processor does not have, by its name."""
    command = [OBJDUMP, "--disassemble", "--no-show-raw-insn", str(binary)]
    found: Counter[str] = Counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as dump:
        for line in dump.stdout or ():
            # `   1a2b4:\tvmla.f32\ts0, s1, s2`; data among code is `.word`
            columns = line.split("\t", 2)
            if len(columns) > 1 and LACKING.fullmatch(columns[1].strip()):
                found[columns[1].strip()] += 1
    if dump.returncode:
        raise subprocess.CalledProcessError(dump.returncode, command)
    return found


def find_foreign_attributes(binary: Path) -> dict[str, str]:
    """What the binary says it was compiled for, where the processor is not that."""
    said = subprocess.run([READELF, "--arch-specific", str(binary)], stdout=subprocess.PIPE, text=True, check=True)
    pairs = re.findall(r"^\s*(Tag_\w+): (.+?)\s*$", said.stdout, re.MULTILINE)
    return {tag: value for tag, value in pairs if value not in ATTRIBUTES.get(tag, {value})}
