"""Debian's 32-bit ARM userland in build/armhf, and programs of it on an emulated Cortex-A9.

    python -m tests.armhf.userland        build what is missing
    python -m tests.armhf.userland X.py   run a Python file in it

It stands in for the board's image (Ubuntu 22.04), which cannot be fetched: the same libraries, one or two years newer.
Nothing is installed into it by its own scripts; packages are only unpacked, so that no privilege and no ARM is needed.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from host.beltsight import EMULATION, missing_packages
from protocol.errors import InputError, run_main
from sim.station import ROOT

FOLDER = ROOT / "build" / "armhf"
ROOT_FS = FOLDER / "root"
LAUNCHER = ROOT_FS / "usr" / "bin" / "emulated-python"
SITE = FOLDER / "site"  # what the card brings beside its image, and what the tests need
WHEELS = ROOT / "board" / "image" / "wheels.txt"
SUITE = "bookworm"
PACKAGES = ("python3", "python3-numpy", "python3-opencv", "python3-zmq", "libgomp1")
# Plain Python all of them; newer Hypothesis is not.
TEST_WHEELS = ("pytest==8.3.5", "hypothesis==6.100.0")
NOT_UNPACKED = ("doc", "man", "locale", "icons", "perl", "fonts", "X11")
PLATFORMS = ("manylinux_2_35_armv7l", "manylinux_2_31_armv7l", "manylinux_2_17_armv7l", "linux_armv7l")
LIBRARIES = ROOT_FS / "usr" / "lib" / "arm-linux-gnueabihf"
GUEST_BASE = 1 << 44  # where the emulated program's memory lies in the emulator's: away from all else
EMULATOR, EMULATOR_WITH_PLUGINS = "qemu-arm-static", "qemu-arm"
# Two cores of a Zynq-7000, as its kernel shows them: ONNX Runtime asks what they can do, and ends the process where
# there is nothing to read.
CORE = """\
processor	: {number}
model name	: ARMv7 Processor rev 0 (v7l)
BogoMIPS	: 650.00
Features	: half thumb fastmult vfp edsp neon vfpv3 tls vfpd32
CPU implementer	: 0x41
CPU architecture: 7
CPU variant	: 0x3
CPU part	: 0xc09
CPU revision	: 0

"""
CPUINFO = CORE.format(number=0) + CORE.format(number=1) + "Hardware	: Xilinx Zynq Platform\n"


def missing_tools() -> str:
    """What to install, empty if nothing."""
    packages = missing_packages(EMULATION)
    return f"apt-get install {' '.join(packages)}" if packages else ""


def build() -> None:
    """Does nothing where everything is there and its list unchanged. Raises: InputError."""
    if missing := missing_tools():
        raise InputError(f"an emulated ARM needs more tools: {missing}")
    _make(ROOT_FS, (SUITE, *PACKAGES, *NOT_UNPACKED, CPUINFO), _unpack_packages)
    _make(SITE, (*TEST_WHEELS, WHEELS.read_text()), _install_wheels)
    _write_launcher()


def _make(folder: Path, listed: tuple[str, ...], fill: Callable[[], None]) -> None:
    """Fill the folder anew, unless its mark says that what is listed is in it."""
    mark = FOLDER / f".{folder.name}-{hashlib.sha256(chr(10).join(listed).encode()).hexdigest()[:16]}"
    if mark.exists():
        return
    print(f"making {folder} (once, some minutes) …", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    fill()
    for old in FOLDER.glob(f".{folder.name}-*"):
        old.unlink()
    mark.touch()


def python(*arguments: str, emulator: tuple[str, ...] = (EMULATOR,)) -> list[str]:
    """The command line of the userland's Python on the emulated processor."""
    settings = {
        "LD_LIBRARY_PATH": f"{LIBRARIES}/blas:{LIBRARIES}/lapack",
        "PYTHONPATH": f"{SITE}:{ROOT}",
        "PYTHONPYCACHEPREFIX": str(FOLDER / "pycache"),  # or NumPy is compiled afresh at every start
        "PYTHONDONTWRITEBYTECODE": "",  # that of this machine's own Python is not meant
        "OMP_NUM_THREADS": "1",
    }
    given = [word for name, value in settings.items() for word in ("-E", f"{name}={value}")]
    named = ("-0", str(LAUNCHER))
    processor = ("-cpu", "cortex-a9", "-B", hex(GUEST_BASE), "-L", str(ROOT_FS))
    return [*emulator, *processor, *given, *named, str(ROOT_FS / "usr" / "bin" / "python3"), *arguments]


def run(*arguments: str, timeout_s: float = 300) -> str:
    """The program's output. Raises: subprocess.CalledProcessError or TimeoutExpired."""
    command = python(*arguments)
    done = subprocess.run(command, cwd=ROOT, timeout=timeout_s, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _write_launcher() -> None:
    """subtle: this machine's kernel starts no ARM program; Python takes this for itself, and can start another one."""
    LAUNCHER.write_text(f'#!/bin/sh\nexec {shlex.join(python())} "$@"\n')
    LAUNCHER.chmod(0o755)


def _unpack_packages() -> None:
    """Of the release alone, without its updates: a mirror that is being changed does not stop the tests."""
    command = ["mmdebstrap", "--quiet", "--variant=extract", "--architectures=armhf"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in NOT_UNPACKED]
    command += ["--setup-hook=sed -i -e /security/d -e /-updates/d $1/etc/apt/sources.list"]
    command += [f"--include={','.join(PACKAGES)}", SUITE, str(ROOT_FS)]
    _call(command, "mmdebstrap")
    (ROOT_FS / "proc").mkdir(exist_ok=True)
    (ROOT_FS / "proc" / "cpuinfo").write_text(CPUINFO)


def _install_wheels() -> None:
    _install(["--no-deps", "--require-hashes", "-r", str(WHEELS)])
    _install(list(TEST_WHEELS))


def _install(what: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--target", str(SITE), "--upgrade", "--only-binary", ":all:", "--implementation", "cp"]
    command += ["--python-version", "3.11", *[word for name in PLATFORMS for word in ("--platform", name)]]
    _call([*command, *what], "pip")


def _call(command: list[str], name: str) -> None:
    """Raises: InputError with the program's last words."""
    log = FOLDER / f"{name}.log"
    with log.open("ab") as output:
        code = subprocess.call(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if code:
        words = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"{name} ended with {code} ({words}): see {log}, and try again")


def main() -> int:
    build()
    if len(sys.argv) > 1:
        os.execvp(EMULATOR, python(*sys.argv[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
