"""Before pynq is imported: a machine that says it is a Zynq's, and a /sys/class/gpio that is ours."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

GPIO = Path("/sys/class/gpio")
CHIP_BASE = 906

platform.machine = lambda: "armv7l"  # what pynq.ps decides by; pynq itself stays as it is


@pytest.fixture
def bare_sysfs() -> Iterator[Path]:
    """/sys/class/gpio without a chip, emptied afterwards."""
    mark = GPIO / "made_up_for_tests"
    if not mark.exists():
        pytest.skip("no made-up /sys/class/gpio: run scripts/test-pynq as root or where user namespaces are allowed")
    (GPIO / "export").touch()
    (GPIO / "unexport").touch()
    yield GPIO
    for path in GPIO.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != mark:
            path.unlink()


@pytest.fixture
def sysfs(bare_sysfs: Path) -> Path:
    """With the Zynq's chip of 118 lines, as the kernel's driver gpio-zynq shows it."""
    chip = bare_sysfs / f"gpiochip{CHIP_BASE}"
    chip.mkdir()
    for name, content in {"label": "zynq_gpio", "base": str(CHIP_BASE), "ngpio": "118"}.items():
        (chip / name).write_text(content + "\n")
    return bare_sysfs
