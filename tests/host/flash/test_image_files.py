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
from tests.host.flash.conftest import fdt

IMAGE = ROOT / "board" / "image"
FROM_THE_IMAGE = {  # of the official image, as far as ours name them
    "clear_pl_statefile.service",
}
# What the station may come after: all of it ends without a network, a server or a person.
ENDS_BY_ITSELF = {
    "local-fs.target",
    "bootpy.service",  # of a developer's card
    "clear_pl_statefile.service",
    "beltsight-clock.service",
    "beltsight-install.service",
}


def system_tree(folder: Path) -> Path:
    """A root folder with our units, and the programs that they start."""
    units = folder / "etc/systemd/system"
    units.mkdir(parents=True)
    for path in IMAGE.glob("*.service"):
        shutil.copy(path, units)
    own = ["/usr/local/share/pynq-venv/bin/python3", "/bin/sh", "/usr/bin/ssh-keygen", "/sbin/agetty"]
    for program in own:
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
    assert "beltsight.service:15: Failed to parse sec value" in result.stderr


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


def test_the_station_waits_for_nothing_that_may_never_come() -> None:
    """Not for network.target either: without a DHCP server the image's networking.service ends after five minutes."""
    asked, waits_for = ["beltsight.service"], set[str]()
    while asked:
        unit = IMAGE / asked.pop()
        text = unit.read_text() if unit.exists() else ""
        found = re.findall(r"^(?:After|Wants|Requires|Requisite|BindsTo)=(.*)$", text, re.MULTILINE)
        asked += {name for names in found for name in names.split()} - waits_for
        waits_for |= set(asked)
    assert waits_for == ENDS_BY_ITSELF


def test_what_pynq_remembers_of_the_logic_is_forgotten(tmp_path: Path) -> None:
    """Without pynq itself, whose import takes seconds; the names are those of PYNQ 3.0.1 and 3.1.2."""
    folder = tmp_path / "usr/local/share/pynq-venv/lib/python3.10/site-packages/pynq/pl_server"
    folder.mkdir(parents=True)
    for name in ("global_pl_state.json", "global_pl_state_.json", "global_state.py"):
        (folder / name).touch()
    (command,) = re.findall(r'^ExecStart=/bin/sh -c "(.*)"$', (IMAGE / "clear_pl_statefile.service").read_text(), re.M)
    subprocess.run(["sh", "-c", command.replace("/usr/local", f"{tmp_path}/usr/local")], check=True)
    assert [path.name for path in folder.iterdir()] == ["global_state.py"]


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


@pytest.mark.parametrize(("made_s", "now_s", "set_to"), [(2_000, 1_000, "@2000\n"), (2_000, 3_000, ""), (None, 0, "")])
def test_a_clock_from_before_the_card_was_made_is_set(
    made_s: int | None, now_s: int, set_to: str, tmp_path: Path
) -> None:
    made = tmp_path / "opt/beltsight/current/card.json"
    if made_s is not None:
        made.parent.mkdir(parents=True)
        made.touch()
        os.utime(made, (made_s, made_s))
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "set").touch()
    (programs / "date").write_text(
        f'#!/bin/sh\nif [ "$1" = -s ]; then echo "$2" >{tmp_path}/set; else echo {now_s}; fi\n'
    )
    (programs / "date").chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    began_s = time.monotonic()
    subprocess.run(["sh", IMAGE / "clock.sh", tmp_path], env=environment, check=True, timeout=60)
    assert time.monotonic() - began_s < 2  # it waits for nobody
    assert (tmp_path / "set").read_text() == set_to


@given(st.binary(max_size=300), st.integers(0, 299), st.booleans())
def test_a_device_tree_of_anything_is_no_crash(data: bytes, cut: int, as_tree: bool) -> None:
    tree = fdt({"description": data, "pynq_board": b"Pynq-Z2\0"})
    assert list(find_property(tree, "pynq_board")) == [b"Pynq-Z2\0"]
    damaged = tree[: cut % len(tree)] + data if as_tree else data
    assert isinstance(list(find_property(damaged, "pynq_board")), list)
