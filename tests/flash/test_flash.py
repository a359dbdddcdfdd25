"""From a made-up official zip to an image with a station in it, by the command that a user runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from host.flash.ext4 import Ext4
from host.flash.layout import read_layout
from tests.flash.conftest import ROOT_START, Desk


def card(image: Path) -> Ext4:
    return Ext4(image, read_layout(image).root.start_bytes)


@pytest.fixture
def flashed(desk: Desk) -> Path:
    target = desk.folder / "card.img"
    result = desk.flash("--image", desk.archive, *desk.options(target))
    assert result.returncode == 0, result.stderr
    return target


def test_a_card_holds_the_station(flashed: Path, desk: Desk) -> None:
    system = card(flashed)
    link = system.stat("/opt/beltsight/current")
    assert link
    assert link.link
    base = f"/opt/beltsight/{link.link}"
    assert json.loads(system.read(f"{base}/card.json") or b"")["model"] == "trivial"
    assert system.read(f"{base}/config/line.toml") == desk.config.read_bytes()
    assert system.read(f"{base}/config/password") == b"secret\n"
    system.require_clean()
    assert flashed.stat().st_blocks * 512 < flashed.stat().st_size
    assert ROOT_START * 512 == system.offset_bytes
