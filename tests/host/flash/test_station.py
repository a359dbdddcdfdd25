"""What goes along with the station, and under which names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from host.flash.payload import Entry
from host.flash.station import KERNELS, build_station
from protocol.errors import InputError
from sim.station import ROOT
from tests.host.flash.conftest import Desk

WHEELS = {"wheels.txt": b"", "a.whl": b"a"}


def contents(desk: Desk, root: Path = ROOT) -> dict[str, Entry]:
    """By path below the version's folder."""
    station = build_station(root, desk.config, [], WHEELS)
    base = f"/opt/beltsight/versions/{station.version}/"
    return {entry.path.removeprefix(base): entry for entry in station.entries}


def test_the_same_desk_makes_the_same_version(desk: Desk) -> None:
    first = build_station(ROOT, desk.config, [], WHEELS).version
    assert build_station(ROOT, desk.config, [], WHEELS).version == first
    (desk.config.parent / "password").write_text("another\n")
    (desk.config.parent / "password").chmod(0o600)
    assert build_station(ROOT, desk.config, [], WHEELS).version != first


def test_the_example_needs_one_change_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As the README says."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    config = tmp_path / "config" / "line.toml"
    config.parent.mkdir()
    text = (ROOT / "board" / "line.toml").read_text()
    config.write_text(text)
    with pytest.raises(InputError, match="broker_at_start"):
        build_station(ROOT, config, [], WHEELS)
    config.write_text(text.replace("# broker_at_start", "broker_at_start"))
    assert build_station(ROOT, config, [], WHEELS).model == "orange-256"


def test_code_without_what_the_desk_alone_needs(desk: Desk) -> None:
    found = set(contents(desk))
    assert {"board/run.py", "protocol/wire.py", "board/image/install.sh", "board/image/clock.sh"} <= found
    assert not [path for path in found if "__pycache__" in path or path.endswith((".md", ".service", ".v", ".c"))]
    assert not [path for path in found if path.startswith(("host/", "sim/", "tests/"))]


@pytest.mark.parametrize("are_built", [True, False])
def test_kernels_for_the_boards_processor_alone(desk: Desk, are_built: bool) -> None:
    root = desk.folder / "root"
    for package in ("board", "protocol"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (root / KERNELS).with_name("kernels-x86_64.so").write_bytes(b"desk")
    if are_built:
        (root / KERNELS).write_bytes(b"board")
    found = [path for path in contents(desk, root) if path.endswith(".so")]
    assert found == ([KERNELS] if are_built else [])


def test_a_folder_of_trusted_keys_and_a_library_come_along(desk: Desk) -> None:
    from host.deploy.sign import sign_package
    from protocol.signing import write_signing_pair

    write_signing_pair(desk.folder / "makers", "maker")
    keys = desk.config.parent / "keys"
    keys.mkdir(mode=0o755)
    shutil.copytree(desk.folder / "makers", keys, dirs_exist_ok=True)
    keys.chmod(0o755)
    sign_package(desk.folder / "makers" / "maker.secret.pem", desk.folder / "models" / "trivial")
    (desk.config.parent / "libonnxruntime.so").write_bytes(b"library")
    text = desk.config.read_text().replace("[mqtt]", '[engines]\nonnx_library = "libonnxruntime.so"\n[mqtt]')
    desk.config.write_text(f'trusted_keys = "keys"\n{text}')
    found = contents(desk)
    assert (found["config/keys"].full_mode, found["config/keys/maker.public.pem"].full_mode) == (0o040700, 0o100600)
    assert not [path for path in found if "secret" in path]
    assert found["config/libonnxruntime.so"].content == b"library"
    assert "models/trivial/manifest.json.sig" in found


def test_the_overlay_comes_with_its_description(desk: Desk) -> None:
    overlay = desk.folder / "build" / "overlay"
    overlay.mkdir(parents=True)
    (overlay / "beltsight.bit").write_bytes(b"bits")
    (overlay / "beltsight.hwh").write_bytes(b"description")
    assert "build/overlay/beltsight.bit" not in contents(desk)
    text = desk.config.read_text().replace("[mqtt]", '[engines]\norder = ["fpga", "arm"]\n[mqtt]')
    desk.config.write_text(text)
    found = contents(desk)
    assert found["build/overlay/beltsight.bit"].content == b"bits"
    assert found["build/overlay/beltsight.hwh"].content == b"description"
