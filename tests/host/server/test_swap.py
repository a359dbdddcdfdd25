"""Models come, change and go while the server runs; no request is dropped for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from host.export.package import make_golden, write_graphs, write_package
from host.export.trivial import brightness_net
from host.integers.arithmetic import Conv, IntegerNet
from protocol.detection import Answer
from protocol.manifest import GOLDEN_NPZ, MODEL_ONNX, Package, decode_manifest, encode_manifest, file_sha256
from tests.host.server.running import Board, Server, grey, is_grey, run_server, until


def write_brighter(folder: Path, package: Package) -> Path:
    """The trivial model, but one level brighter."""
    net = brightness_net()
    last = net.layers[-1]
    assert isinstance(last, Conv)
    brighter = IntegerNet(net.input_px, (*net.layers[:-1], replace(last, bias=np.array([128], np.int32))))
    golden = make_golden(package.load_golden().frames, package.manifest.preprocess, brighter)
    write_package(folder, package.manifest, write_graphs(brighter), golden, {})
    return folder


@pytest.fixture
def models(tmp_path: Path, trivial_package: Package) -> Path:
    shutil.copytree(trivial_package.folder, tmp_path / "models" / "trivial")
    return tmp_path / "models"


@pytest.fixture
def server(tmp_path: Path, models: Path) -> Iterator[Server]:
    with run_server(tmp_path, models, "--workers", "2") as running:
        with Board(running.endpoint) as board:
            board.wait_until_ready()
        yield running


def put_in_place(new: Path, old: Path) -> None:
    """As an operator would: file by file, in no helpful order."""
    for path in sorted(new.iterdir(), reverse=True):
        shutil.copy(path, old / path.name)


def test_a_new_version_takes_over_under_load(
    server: Server, models: Path, tmp_path: Path, trivial_package: Package
) -> None:
    put_in_place(write_brighter(tmp_path / "trivial", trivial_package), models / "trivial")
    old_sha256 = trivial_package.manifest.files[MODEL_ONNX]
    spoke: list[str] = []
    with Board(server.endpoint) as board:
        while not spoke or spoke[-1] == old_sha256 or len(spoke) < 100:
            board.send(grey(len(spoke) % 200))
            reply, anomaly = board.receive()
            assert isinstance(reply, Answer), "no request is dropped"
            assert anomaly is not None
            level = len(spoke) % 200 + (reply.model_sha256 != old_sha256)
            assert is_grey(anomaly, level), "the version that the reply names"
            spoke.append(reply.model_sha256)
    assert spoke == sorted(spoke, key=lambda sha256: sha256 != old_sha256), "never back to the old one"
    assert server.metric('beltsight_model_versions_total{how="taken over"}') == 1


def test_a_broken_new_version_changes_nothing(
    server: Server, models: Path, tmp_path: Path, trivial_package: Package
) -> None:
    """Its files are whole, but its golden maps are those of another network."""
    brighter = write_brighter(tmp_path / "trivial", trivial_package)
    shutil.copy(brighter / GOLDEN_NPZ, models / "trivial")
    manifest = decode_manifest((models / "trivial" / "manifest.json").read_bytes())
    files = manifest.files | {GOLDEN_NPZ: file_sha256(models / "trivial" / GOLDEN_NPZ)}
    (models / "trivial" / "manifest.json").write_bytes(encode_manifest(replace(manifest, files=files)))
    until(lambda: server.metric('beltsight_model_versions_total{how="broken"}') == 1)
    assert server.says("does not give its golden maps")
    with Board(server.endpoint) as board:
        assert is_grey(board.ask(grey(50)), 50)


def test_models_come_and_go(server: Server, models: Path, trivial_package: Package) -> None:
    manifest = replace(trivial_package.manifest, id="second")
    shutil.copytree(models / "trivial", models / "second")
    (models / "second" / "manifest.json").write_bytes(encode_manifest(manifest))
    with Board(server.endpoint) as board:
        board.wait_until_ready("second")
        assert is_grey(board.ask(grey(60), model="second"), 60)
        shutil.rmtree(models / "second")
        until(lambda: getattr(board.pings("second"), "code", "") == "unknown-model")
        assert is_grey(board.ask(grey(61)), 61)
