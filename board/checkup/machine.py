"""Checks of the machine alone: packages, clock, disk, memory, network. Nothing is changed."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from board.checkup.finding import Finding, fail, ok, warn
from protocol.units import FIRST_YEAR, LAST_YEAR

PYTHON = (3, 10)
# Floors of pyproject.toml; by the name of the module, as distributions differ (OpenCV has four)
NEEDED = {"numpy": (1, 21), "cv2": (4, 5), "zmq": (22, 3), "paho.mqtt": (2, 1)}
INSTALL = {"cv2": "opencv-python-headless", "zmq": "pyzmq", "paho.mqtt": "paho-mqtt"}
STA_UNSYNC = 0x40  # adjtimex(2): the clock is not synchronised
LEAST_BYTES = 64 << 20  # the outbox at its fullest takes about 100 MB; below this it will not last an outage
LEAST_SHARE = 0.05
LEAST_MEMORY_BYTES = 32 << 20
LEAST_CMA_BYTES = 8 << 20  # a program with its picture, map and scratch (board/overlay), twice while models change
MIB = 1 << 20


def check_packages() -> list[Finding]:
    """What every station needs."""
    version = sys.version_info[:3]
    text = f"Python {'.'.join(map(str, version))}"
    wanted = ".".join(map(str, PYTHON))
    python = ok("python", text) if version >= PYTHON else fail("python", text, f"install Python {wanted} or later")
    return [python, *(_check_module(name, floor) for name, floor in NEEDED.items())]


def check_modules(extra: Mapping[str, str]) -> list[Finding]:
    """`extra`: modules that a configuration needs besides, each with what for."""
    findings = []
    for name, purpose in extra.items():
        if importlib.util.find_spec(name) is None:
            advice = f"pip install {name}, or do without {purpose}"
            findings.append(fail(name, f"missing, and needed for {purpose}", advice))
        else:
            findings.append(ok(name, f"there, for {purpose}"))
    return findings


def _check_module(name: str, floor: tuple[int, ...]) -> Finding:
    wanted = f"{INSTALL.get(name, name)}>={'.'.join(map(str, floor))}"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return fail(name, f"cannot be imported ({error})", f"pip install '{wanted}'")
    version = str(getattr(module, "__version__", "")) or metadata.version(INSTALL.get(name, name))
    if parse_version(version) < floor:
        return fail(name, f"{version} is too old", f"pip install '{wanted}'")
    return ok(name, version)


def parse_version(text: str) -> tuple[int, ...]:
    """Of "4.5.4-dev" (4, 5, 4)."""
    numbers = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def check_clock(now: datetime | None = None, *, is_synchronised: bool | None = None) -> Finding:
    """Given for tests: the time, and whether something keeps it right."""
    now = now or datetime.now(timezone.utc)
    shown = now.strftime("%Y-%m-%d %H:%M:%S UTC")
    if not FIRST_YEAR <= now.year < LAST_YEAR:
        return fail("clock", f"it is {shown}: certificates and commands will be refused", "set the date, start NTP")
    if is_synchronised is None:
        is_synchronised = is_clock_synchronised()
    if not is_synchronised:
        return warn(
            "clock", f"{shown}, not synchronised", "timedatectl set-ntp true, and let UDP port 123 out to a time server"
        )
    return ok("clock", f"{shown}, synchronised")


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as it is read here; the kernel writes at most 208 bytes."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 208),
    )


def is_clock_synchronised() -> bool:
    """What the kernel was last told by whoever sets the clock; False where it does not say."""
    timex = _Timex()  # modes 0: nothing is set
    answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    return answer >= 0 and not timex.status & STA_UNSYNC


def check_disk(purpose: str, path: Path, wanted_bytes: int = 0) -> Finding:
    """Whether the file system of `path`, which need not exist yet, has room. `wanted_bytes` may still be written."""
    folder = next((parent for parent in (path, *path.parents) if parent.is_dir()), Path("/"))
    check = f"disk for {purpose}"
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return fail(check, f"{folder}: {error.strerror}", "mount the disk, or correct the path")
    shown = f"{usage.free / MIB:.0f} of {usage.total / MIB:.0f} MiB free at {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return fail(check, f"{folder} cannot be written", f"give this user {folder}, or correct the path")
    if path.is_file() and not os.access(path, os.W_OK):
        return fail(check, f"{path} cannot be written", f"give this user {path}, or correct the path")
    if usage.free < LEAST_BYTES:
        return fail(check, shown, f"make at least {LEAST_BYTES // MIB} MiB of room")
    if usage.free < max(wanted_bytes, LEAST_SHARE * usage.total):
        return warn(check, shown, f"make room: up to {wanted_bytes / MIB:.0f} MiB may still be written")
    return ok(check, shown)


def read_meminfo(path: Path = Path("/proc/meminfo")) -> dict[str, int]:
    """Bytes by name (proc(5)); empty where there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    fields = (line.replace(":", " ").split() for line in lines)
    return {words[0]: int(words[1]) << 10 for words in fields if len(words) >= 2 and words[1].isdecimal()}


def check_memory(memory: Mapping[str, int]) -> Finding:
    available = memory.get("MemAvailable", 0)
    shown = f"{available / MIB:.0f} of {memory.get('MemTotal', 0) / MIB:.0f} MiB available"
    return ok("memory", shown) if available >= LEAST_MEMORY_BYTES else warn("memory", shown, "stop other programs")


def check_cma(memory: Mapping[str, int]) -> Finding:
    """The FPGA engine works out of the kernel's contiguous memory."""
    total, free = memory.get("CmaTotal", 0), memory.get("CmaFree", 0)
    shown = f"{free / MIB:.0f} of {total / MIB:.0f} MiB free"
    if total == 0:
        return fail("CMA memory", "the kernel has none", "boot with cma=128M on the kernel's command line")
    if free < LEAST_CMA_BYTES:
        return fail("CMA memory", shown, "stop other programs that allocate from it, or boot with a larger cma=")
    return ok("CMA memory", shown)


def check_network(folder: Path = Path("/sys/class/net")) -> Finding:
    """Whether any link but the loopback is up."""
    links = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    states = {name: (folder / name / "operstate").read_text().strip() for name in links if name != "lo"}
    up = [name for name, state in states.items() if state in ("up", "unknown")]  # virtual links say "unknown"
    if up:
        return ok("network", f"{', '.join(up)} up")
    shown = ", ".join(f"{name} {state}" for name, state in states.items()) or "no interface"
    return warn("network", shown, "plug in the cable and look at the link's light; nothing leaves this machine")
