"""Which board and which version an image is for, from files inside it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from host.flash.devicetree import find_property
from host.flash.ext4 import Ext4
from host.flash.layout import Layout
from host.flash.tools import run_tool, said
from protocol.errors import InputError

BOARD = "Pynq-Z2"
VERSIONS = r"3\.(0\.1|1(\.\d+)?)"  # Ubuntu 22.04, Python 3.10, for which board/ and the wheels are made
BOOT_FILES = ("BOOT.BIN", "image.ub")
PYTHON = "/usr/local/share/pynq-venv/bin/python3"


def require_image(path: Path, layout: Layout) -> str:
    """The image's version. Raises: InputError unless it is one for the PYNQ-Z2 that the station is made for."""
    version = require_version(Ext4(path, layout.root.start_bytes), path)
    with tempfile.TemporaryDirectory() as folder:
        for name in BOOT_FILES:
            source = f"{path}@@{layout.boot.start_bytes}"
            result = run_tool("mcopy", "-n", "-i", source, f"::{name}", Path(folder) / name)
            if result.returncode != 0:
                raise InputError(f"{path} has no {name} to boot from ({said(result)}): give the official image")
        boards = set(find_property((Path(folder) / "image.ub").read_bytes(), "pynq_board"))
    names = sorted(board.rstrip(b"\0").decode(errors="replace") for board in boards)
    if names != [BOARD]:
        shown = ", ".join(names) or "no board that it names"
        raise InputError(f"{path} is an image for {shown}, not for {BOARD}: download the one for the PYNQ-Z2")
    return version


def require_version(system: Ext4, path: Path) -> str:
    """The version of the system on partition 2. Raises: InputError."""
    release = system.read("/usr/lib/os-release") or b""
    fields: dict[str, str] = dict(re.findall(r'^(\w+)="?([^"\n]*)', release.decode(errors="replace"), re.MULTILINE))
    version = fields.get("VERSION_ID", "")
    if fields.get("ID") != "pynqlinux":
        raise InputError(f"{path} holds no PYNQ system: give the official PYNQ-Z2 image")
    if not re.fullmatch(VERSIONS, version):
        raise InputError(f"{path} is PYNQ {version or 'of no version'}: this station needs 3.0.1 or 3.1")
    if not system.stat(PYTHON):
        raise InputError(f"{path} has no {PYTHON}: give the official image, unchanged")
    return version
