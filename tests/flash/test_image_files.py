"""board/image: units that systemd takes, scripts that do what they say, a list that pins everything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.flash.devicetree import find_property
from host.flash.hardening import load_hardening, lock_passwords
from host.flash.system import OWN_UNITS
from protocol.errors import InputError
from sim.station import ROOT
from tests.flash.conftest import fdt

IMAGE = ROOT / "board" / "image"
FROM_THE_IMAGE = {  # of the official image, as far as ours name them
    "bootpy.service",
    "clear_pl_statefile.service",
}


def system_tree(folder: Path) -> Path:
    """A root folder with our units, and the programs that they start."""
    units = folder / "etc/systemd/system"
    units.mkdir(parents=True)
    for path in IMAGE.glob("*.service"):
        shutil.copy(path, units)
    own = ["/usr/local/share/pynq-venv/bin/python3", "/bin/sh", "/usr/bin/ssh-keygen", "/sbin/agetty"]
    for program in (*own, "/usr/local/bin/bootpy.sh", "/usr/local/bin/clear_pl_statefile.sh"):
        place = folder / program.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch(mode=0o755)
    return folder


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if not program:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("unit", [*OWN_UNITS, *sorted(FROM_THE_IMAGE)])
def test_systemd_takes_the_unit(unit: str, tmp_path: Path) -> None:
    result = analyze("verify", "--man=no", "--recursive-errors=no", f"--root={system_tree(tmp_path)}", unit)
    ours = [line for line in result.stderr.splitlines() if unit in line]
    assert not ours, ours


def test_systemd_would_complain_about_a_mistake(tmp_path: Path) -> None:
    tree = system_tree(tmp_path)
    unit = tree / "etc/systemd/system/beltsight.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=10", "WatchdogSec=ten"))
    result = analyze("verify", "--man=no", "--recursive-errors=no", f"--root={tree}", "beltsight.service")
    assert "beltsight.service:14: Failed to parse sec value" in result.stderr


def test_the_station_is_confined(tmp_path: Path) -> None:
    """systemd's own scale: 0 is confined, 10 is not. A service without any of these options has 9.6."""
    tree = system_tree(tmp_path)
    result = analyze("security", "--offline=true", "--no-pager", f"--root={tree}", "beltsight.service")
    found = re.search(r"Overall exposure level for beltsight.service: ([\d.]+)", result.stdout)
    if not found:
        pytest.skip(f"this systemd cannot tell offline: {result.stderr.strip()}")
    assert float(found[1]) < 5.5


def test_the_unit_says_what_the_watchdog_asks_for() -> None:
    text = (IMAGE / "beltsight.service").read_text()
    for line in ("Type=notify", "WatchdogSec=10", "Restart=always", "StartLimitIntervalSec=0", "After=local-fs.target"):
        assert re.search(f"^{re.escape(line)}", text, re.MULTILINE), line
    assert "time-sync.target" not in text  # would wait for a network
    assert "network-online.target" not in text


def test_every_file_of_the_list_is_there() -> None:
    hardening = load_hardening(IMAGE)
    assert all((IMAGE / name).is_file() for name in hardening.files.values())
    assert all(path.startswith("/etc/") for path in hardening.files)


def test_another_image_has_other_users() -> None:
    with pytest.raises(InputError, match="has no user xilinx"):
        lock_passwords("root:x:1:::::\n", ("root", "xilinx"))


def test_every_wheel_is_pinned() -> None:
    lines = [line for line in (IMAGE / "wheels.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) == 4
    assert all(re.fullmatch(r"[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def clock(root: Path, wait_s: int, path: str = os.environ["PATH"]) -> tuple[float, str]:
    """How long board/image/clock.sh takes, and what it says. Where it sets the clock, a `date` of ours notes it."""
    began_s = time.monotonic()
    done = subprocess.run(
        ["sh", IMAGE / "clock.sh", root, str(wait_s)],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return time.monotonic() - began_s, done.stderr


def test_the_clock_waits_for_nobody_without_a_cable(tmp_path: Path) -> None:
    took_s, said = clock(tmp_path, 60)
    assert took_s < 30  # 4 s for the link to come up; 60 is what a cable would get
    assert "starting without a synchronized time" in said


def test_the_clock_is_good_at_once_when_synchronized(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    (tmp_path / "run/systemd/timesync/synchronized").touch()
    assert clock(tmp_path, 60)[1] == ""


def test_the_clock_is_given_up_after_its_time_with_a_cable(tmp_path: Path) -> None:
    (tmp_path / "sys/class/net/eth0").mkdir(parents=True)
    (tmp_path / "sys/class/net/eth0/carrier").write_text("1\n")
    took_s, said = clock(tmp_path, 6)
    assert took_s >= 6
    assert "starting without" in said


def test_a_clock_from_before_the_card_was_made_is_set(tmp_path: Path) -> None:
    made = tmp_path / "opt/beltsight/current/card.json"
    made.parent.mkdir(parents=True)
    made.touch()
    os.utime(made, (2_000_000_000, 2_000_000_000))  # the card is of 2033, and this machine's clock says less
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "date").write_text(f'#!/bin/sh\nif [ "$1" = -s ]; then echo "$2" >{tmp_path}/set; else echo 1000; fi\n')
    (programs / "date").chmod(0o755)
    clock(tmp_path, 0, f"{programs}:{os.environ['PATH']}")
    assert (tmp_path / "set").read_text() == "@2000000000\n"


@given(st.binary(max_size=300), st.integers(0, 299), st.booleans())
def test_a_device_tree_of_anything_is_no_crash(data: bytes, cut: int, as_tree: bool) -> None:
    tree = fdt({"description": data, "pynq_board": b"Pynq-Z2\0"})
    assert list(find_property(tree, "pynq_board")) == [b"Pynq-Z2\0"]
    damaged = tree[: cut % len(tree)] + data if as_tree else data
    assert isinstance(list(find_property(damaged, "pynq_board")), list)
