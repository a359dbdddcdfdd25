"""A model's folder is read whole and checked; a changed one takes over only when every worker has it."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from host.server.catalogue import Catalogue
from host.server.models import Scan, read_version, scan_models
from protocol.errors import ManifestError
from protocol.manifest import GOLDEN_NPZ, MANIFEST, MODEL_ONNX, Package
from tests.host.server.states import make_version


@pytest.fixture
def folder(tmp_path: Path, trivial_package: Package) -> Path:
    shutil.copytree(trivial_package.folder, tmp_path / "trivial")
    return tmp_path


def test_a_folder_is_read_once_as_long_as_it_does_not_change(folder: Path) -> None:
    first = scan_models(folder, Scan())
    assert list(first.versions) == ["trivial"]
    assert scan_models(folder, first).versions["trivial"] is first.versions["trivial"]
    (folder / "trivial" / MANIFEST).touch()
    assert scan_models(folder, first).versions["trivial"] is not first.versions["trivial"]


@pytest.mark.parametrize("name", [MODEL_ONNX, GOLDEN_NPZ])
def test_a_half_copied_folder_is_no_model_until_it_is_whole(folder: Path, name: str) -> None:
    whole = (folder / "trivial" / name).read_bytes()
    (folder / "trivial" / name).write_bytes(whole[:-1])
    half = scan_models(folder, Scan())
    assert half.versions == {}
    assert "is not the file that was exported" in half.readings[folder / "trivial"].fault
    (folder / "trivial" / name).unlink()
    assert "copy the whole model folder" in scan_models(folder, half).readings[folder / "trivial"].fault
    (folder / "trivial" / name).write_bytes(whole)
    assert list(scan_models(folder, half).versions) == ["trivial"]


def test_of_two_folders_with_one_id_the_first_counts(folder: Path) -> None:
    shutil.copytree(folder / "trivial", folder / "a-copy")
    scan = scan_models(folder, Scan())
    assert scan.versions["trivial"] is scan.readings[folder / "a-copy"].version


def test_a_broken_manifest_is_a_fault_and_not_the_end(folder: Path) -> None:
    (folder / "trivial" / MANIFEST).write_bytes(b"{")
    assert "manifest is not JSON" in scan_models(folder, Scan()).readings[folder / "trivial"].fault
    with pytest.raises(ManifestError):
        read_version(folder / "trivial")


# ---- others write to the folder meanwhile


def test_what_is_no_file_is_said_and_not_waited_for(folder: Path) -> None:
    whole = scan_models(folder, Scan())
    shutil.copytree(folder / "trivial", folder / "second")
    (folder / "second" / MODEL_ONNX).unlink()
    os.mkfifo(folder / "second" / MODEL_ONNX)
    (folder / "third").mkdir()
    os.mkfifo(folder / "third" / MANIFEST)
    os.mkfifo(folder / "fourth")
    (folder / "fifth").mkdir()
    (folder / "fifth" / MANIFEST).symlink_to("/dev/zero")
    scan = scan_models(folder, whole)
    assert scan.versions["trivial"] is whole.versions["trivial"]
    assert [path.name for path, reading in scan.readings.items() if "is no file" in reading.fault] == [
        "fifth",
        "second",
        "third",
    ]


def test_a_folder_that_may_only_be_entered_is_read(folder: Path) -> None:
    """As of mode 0711: nobody lists it."""
    (folder / "trivial").chmod(0o711)
    assert list(scan_models(folder, Scan()).versions) == ["trivial"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said_until_it_may(folder: Path) -> None:
    (folder / "trivial" / MODEL_ONNX).chmod(0)
    closed = scan_models(folder, Scan())
    assert "Permission denied" in closed.readings[folder / "trivial"].fault
    (folder / "trivial" / MODEL_ONNX).chmod(0o644)
    assert list(scan_models(folder, closed).versions) == ["trivial"]


def test_while_the_folder_is_away_its_models_stay(folder: Path) -> None:
    """A share that is not mounted for a moment."""
    whole = scan_models(folder, Scan())
    folder.rename(folder.with_name("away"))
    away = scan_models(folder, whole)
    assert "its models stay as they were" in away.fault
    assert away.versions == whole.versions
    folder.with_name("away").rename(folder)
    assert scan_models(folder, away).fault == ""


def test_the_folder_may_change_at_any_moment(folder: Path) -> None:
    """Models are moved in and out as fast as may be, while it is looked through."""
    over = threading.Event()

    def move() -> None:
        while not over.is_set():
            for name, other in (("trivial", "moved"), ("moved", "trivial")):
                (folder / name).rename(folder / other)

    thread = threading.Thread(target=move)
    thread.start()
    scan = Scan()
    try:
        for _ in range(200):
            scan = scan_models(folder, scan)
    finally:
        over.set()
        thread.join()
    assert list(scan_models(folder, scan).versions) == ["trivial"]


# ---- which version speaks

OLD, NEW, NEWER = make_version("old"), make_version("new"), make_version("newer")


@pytest.fixture
def catalogue() -> Catalogue:
    """The old version speaks, and is asked for."""
    catalogue = Catalogue(max_loaded=2)
    for version in (OLD, NEW, NEWER):
        version.users, version.fault = 0, ""
    assert catalogue.update({"model": OLD}) == [OLD]
    catalogue.demand(OLD)
    return catalogue


def test_a_model_that_nobody_asks_for_is_not_loaded() -> None:
    catalogue = Catalogue(max_loaded=2)
    catalogue.update({"model": OLD})
    assert catalogue.wanted() == {}
    catalogue.update({"model": NEW})
    assert catalogue.find("model") is NEW, "and is replaced at once"


def test_the_new_version_takes_over_when_every_worker_has_it(catalogue: Catalogue) -> None:
    assert catalogue.update({"model": NEW}) == [NEW]
    assert catalogue.update({"model": NEW}) == [], "found again, it is nothing new"
    assert set(catalogue.wanted()) == {"old", "new"}
    for workers in ([], [{"new": "loading"}], [{"new": "ready"}, {}], [{"new": "ready"}, {"new": "loading"}]):
        assert catalogue.settle(workers) == ([], [])  # type: ignore[arg-type]
        assert catalogue.find("model") is OLD
    assert catalogue.settle([{"new": "ready"}, {"new": "ready"}]) == ([NEW], [])
    assert catalogue.find("model") is NEW


def test_the_old_version_stays_loaded_while_requests_wait_for_it(catalogue: Catalogue) -> None:
    catalogue.update({"model": NEW})
    OLD.users = 1
    catalogue.settle([{"new": "ready"}])
    assert set(catalogue.wanted()) == {"old", "new"}
    OLD.users = 0
    assert set(catalogue.wanted()) == {"new"}


def test_a_broken_new_version_never_speaks(catalogue: Catalogue) -> None:
    catalogue.update({"model": NEW})
    assert catalogue.settle([{"new": "ready"}, {"new": "broken"}]) == ([], [NEW])
    assert catalogue.find("model") is OLD
    assert catalogue.update({"model": NEW}) == []
    assert set(catalogue.wanted()) == {"old"}


def test_a_newer_version_replaces_the_new_one_that_still_loads(catalogue: Catalogue) -> None:
    catalogue.update({"model": NEW})
    catalogue.update({"model": NEWER})
    assert set(catalogue.wanted()) == {"old", "newer"}


def test_a_folder_that_is_put_back_calls_the_new_version_off(catalogue: Catalogue) -> None:
    catalogue.update({"model": NEW})
    assert catalogue.update({"model": OLD}) == []
    assert set(catalogue.wanted()) == {"old"}


def test_a_model_whose_folder_is_gone_is_unknown(catalogue: Catalogue) -> None:
    catalogue.update({})
    assert catalogue.find("model") is None
    assert catalogue.wanted() == {}


def test_of_many_models_those_asked_for_last_stay_loaded(catalogue: Catalogue) -> None:
    others = {name: make_version(name, name) for name in ("b", "c")}
    catalogue.update({"model": OLD, **others})
    for version in (others["b"], OLD, others["c"]):
        catalogue.demand(version)
    assert set(catalogue.wanted()) == {"old", "c"}
    OLD.users = 1
    assert catalogue.demand(others["b"], now_s=20.0)
    assert set(catalogue.wanted()) == {"old", "b"}, "what is in use is not dropped"
    OLD.users = 0


def test_who_asks_for_many_models_takes_nobody_elses_place() -> None:
    catalogue = Catalogue(max_loaded=8)
    models = {f"m{number}": make_version(f"m{number}", f"m{number}") for number in range(12)}
    catalogue.update({"model": OLD, **models})
    assert catalogue.demand(OLD, b"board", 0.0)
    loaded = set()
    for turn in range(100):
        for version in models.values():
            catalogue.demand(version, b"hostile", turn * 0.01, is_ping=turn % 2 == 0)
        catalogue.demand(OLD, b"board", turn * 0.01)
        loaded |= set(catalogue.wanted())
    assert "old" in catalogue.wanted()
    assert len(loaded) <= 1 + 4 + 1, "half of the places, and one that made way for another"
    for number in range(4, 7):
        assert catalogue.demand(models[f"m{number}"], f"board {number}".encode(), 1.0)
