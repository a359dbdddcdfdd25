"""From a made-up official zip to a card with a station, by the command that a user runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from host.flash.ext4 import Ext4
from host.flash.layout import read_layout
from tests.host.flash.conftest import SSH_KEY, Desk, Official, zip_image

UNITS = "/etc/systemd/system"


def system_of(image: Path) -> Ext4:
    return Ext4(image, read_layout(image).root.start_bytes)


def home_of(system: Ext4) -> str:
    """The version's folder that `current` names."""
    current = system.stat("/opt/beltsight/current")
    assert current
    assert current.link
    return f"/opt/beltsight/{current.link}"


def modes_of(system: Ext4, *paths: str) -> list[tuple[str, int, int]]:
    found = system.stat_all(paths)
    return [(f"{found[path].mode & 0o7777:o}", found[path].user, found[path].group) for path in paths]


def test_a_card_holds_the_station(flashed: Path) -> None:
    system = system_of(flashed)
    home = home_of(system)
    about = json.loads(system.read(f"{home}/card.json") or b"")
    assert (about["model"], about["profile"], about["image"]) == ("trivial", "production", "3.1.3")
    assert system.read(f"{home}/config/line.toml") == (flashed.parent / "plant" / "line.toml").read_bytes()
    assert {"model.onnx", "manifest.json", "golden.npz"} <= set(system.entries(f"{home}/models/trivial"))
    assert set(system.entries(f"{home}/wheels")) == {"tiny_wheel-1.0-py3-none-any.whl", "wheels.txt"}
    runs = system.stat(f"{home}/runs")
    assert runs
    assert runs.link == "/var/lib/beltsight"


def test_keys_are_roots_alone(flashed: Path) -> None:
    system = system_of(flashed)
    config = f"{home_of(system)}/config"
    files = [f"{config}/{name}" for name in ("line.toml", "ca.pem", "password")]
    assert modes_of(system, *files, "/root/.ssh/authorized_keys") == [("600", 0, 0)] * 4
    assert modes_of(system, config, "/root/.ssh", "/var/lib/beltsight") == [("700", 0, 0)] * 3
    assert system.read("/root/.ssh/authorized_keys") == f"{SSH_KEY}\n".encode()


def test_a_production_card_is_hardened(flashed: Path) -> None:
    system = system_of(flashed)
    shadow = (system.read("/etc/shadow") or b"").decode()
    assert re.findall(r"^(\w+):([^:]*):", shadow, re.MULTILINE) == [("root", "!"), ("daemon", "*"), ("xilinx", "!")]
    assert modes_of(system, "/etc/shadow")[0][0] == "640"
    masked = system.stat_all(f"{UNITS}/{unit}" for unit in ("jupyter.service", "smbd.service", "nmbd.service"))
    assert [status.link for status in masked.values()] == ["/dev/null"] * 3
    assert b"autologin" not in (system.read(f"{UNITS}/serial-getty@.service.d/beltsight.conf") or b"autologin")
    assert b"PasswordAuthentication no" in (system.read("/etc/ssh/sshd_config.d/10-beltsight.conf") or b"")
    assert not [name for name in system.entries("/etc/ssh") if name.startswith("ssh_host_")]


def test_what_ran_after_jupyter_runs_without_it(flashed: Path) -> None:
    """In the official image the unit requires jupyter.service, and would not start once that is masked."""
    text = (system_of(flashed).read(f"{UNITS}/clear_pl_statefile.service") or b"").decode()
    assert "ExecStart=" in text
    assert not re.search("^(Requires|After)=.*jupyter", text, re.MULTILINE)


def test_the_image_is_sound_and_sparse(flashed: Path) -> None:
    system_of(flashed).require_clean()
    assert flashed.stat().st_blocks * 512 < flashed.stat().st_size / 2
    assert not list(flashed.parent.glob("*.partial"))


def test_a_developers_card_keeps_what_the_image_has(desk: Desk) -> None:
    target = desk.folder / "card.img"
    result = desk.flash("--image", desk.archive, *desk.options(target), "--developer")
    assert result.returncode == 0, result.stderr
    system = system_of(target)
    assert b"root:$y$" in (system.read("/etc/shadow") or b"")
    assert not system.stat_all(f"{UNITS}/{unit}" for unit in ("jupyter.service", "smbd.service", "bootpy.service"))
    assert system.stat(f"{UNITS}/multi-user.target.wants/beltsight.service")
    assert not [name for name in system.entries("/etc/ssh") if name.startswith("ssh_host_")]


@pytest.mark.parametrize(
    ("official_like", "words"),
    [
        (Official(board="Pynq-Z1"), "is an image for Pynq-Z1, not for Pynq-Z2"),
        (Official(board="ZCU104"), "is an image for ZCU104, not for Pynq-Z2"),
        (Official(version="2.7"), "is PYNQ 2.7: this station needs 3.0.1 or 3.1"),
        (Official(version="3.10"), "is PYNQ 3.10"),
        (Official(boot_files=("image.ub",)), "has no BOOT.BIN to boot from"),
    ],
)
def test_another_image_is_refused(desk: Desk, official_like: Official, words: str) -> None:
    image = official_like.write(desk.folder / "other.img", desk.folder / "other" / "tree")
    archive = zip_image(image, desk.folder / "other.zip")
    target = desk.folder / "card.img"
    target.write_bytes(b"what was there before")
    before = desk.files()
    assert words in desk.refusal("--image", archive, *desk.options(target))
    assert desk.files() == before
    assert target.read_bytes() == b"what was there before"


@pytest.mark.parametrize("version", ["3.0.1", "3.1", "3.1.1"])
def test_every_version_that_fits_is_taken(desk: Desk, version: str) -> None:
    from host.flash.identity import require_image

    image = Official(version=version, block_bytes=4096).write(desk.folder / "other.img", desk.folder / "other" / "tree")
    assert require_image(image, read_layout(image)) == version


def test_a_card_without_room_is_refused(desk: Desk) -> None:
    (desk.folder / "wheels" / "list.txt").unlink()
    big = desk.folder / "models" / "trivial"
    manifest = json.loads((big / "manifest.json").read_text())
    (big / "ballast.bin").write_bytes(os.urandom(120 << 20))
    import hashlib

    manifest["files"]["ballast.bin"] = hashlib.sha256((big / "ballast.bin").read_bytes()).hexdigest()
    (big / "manifest.json").write_text(json.dumps(manifest))
    (desk.folder / "wheels" / "list.txt").write_text("")
    words = desk.refusal("--image", desk.archive, *desk.options(desk.folder / "card.img"))
    assert re.search(r"has \d+ MiB free in its system, 1\d\d are needed", words)


def test_the_first_boot_installs_without_a_network(flashed: Path, tmp_path: Path) -> None:
    """board/image/install.sh, as the card has it, with pip, as the board has it."""
    home = extract(system_of(flashed), tmp_path / "home")
    (home / "site.partial").mkdir()  # a power cut during the attempt before this one
    (home / "site.partial" / "half").touch()
    environment = {"PATH": os.environ["PATH"], "PIP_NO_INPUT": "1", "HOME": str(tmp_path)}
    subprocess.run(["sh", home / "board/image/install.sh", home, sys.executable], env=environment, check=True)
    assert not (home / "site.partial").exists()
    assert not (home / "site" / "half").exists()
    found = subprocess.run(
        [sys.executable, "-c", "import tiny_wheel; print(tiny_wheel.VALUE)"],
        env={"PYTHONPATH": str(home / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "7\n"


def test_the_first_boot_refuses_another_wheel(flashed: Path, tmp_path: Path) -> None:
    home = extract(system_of(flashed), tmp_path / "home")
    (wheel,) = (home / "wheels").glob("*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    done = subprocess.run(
        ["sh", home / "board/image/install.sh", home, sys.executable], capture_output=True, check=False
    )
    assert done.returncode != 0
    assert not (home / "site").exists()


def test_the_station_starts_from_what_is_on_the_card(flashed: Path, tmp_path: Path) -> None:
    """All that board/run.py imports came along: it gets as far as its outbox, whose folder only the card has."""
    home = extract(system_of(flashed), tmp_path / "home")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(home / "board/run.py"), "--config", str(home / "config/line.toml")]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "ca.pem" in done.stderr  # which is none: the first thing that it finds wrong


def extract(system: Ext4, folder: Path) -> Path:
    """The version's folder from a card."""
    home = home_of(system)
    files = [path for path, mode in system.tree(home) if mode & 0o170000 == 0o100000]
    statuses = system.stat_all(files)
    for path, content in system.read_all(files).items():
        place = folder / path.removeprefix(f"{home}/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        place.chmod(statuses[path].mode & 0o7777)
    return folder
