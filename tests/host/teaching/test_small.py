"""A package without the backbone: whatever engine gives the features, the map is that of the whole network."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from board.engines.chain import EngineChain, open_engine
from board.engines.kernels import engine
from board.engines.kernels.engine import KernelEngine
from board.engines.onnx_c import OnnxCEngine
from board.engines.settings import EngineSettings
from board.engines.taught import TaughtEngine
from board.overlay.golden import run_program
from board.overlay.program import PROGRAM_BIN, decode_file
from board.seams import Engine
from board.teaching.lesson import learn
from board.teaching.store import BANK_NPZ, encode_bank, load_bank
from board.teaching.whitening import FEATURE_EXPONENT
from host.export.package import encode_golden, make_golden, write_files
from host.integers.parity import features_numpy
from host.pictures.reading import Images
from host.teaching.backbone import make_backbone
from host.teaching.detector import make_detector
from host.teaching.store import Origin, load_backbone, write_backbone
from protocol.errors import EngineError, ManifestError
from protocol.manifest import (
    CARRIED_ONNX,
    FORMAT,
    GOLDEN_NPZ,
    MODEL_ONNX,
    AnomalyMap,
    Manifest,
    Package,
    Preprocess,
    Threshold,
    load_package,
)
from tests.host.teaching.goods import draw_noise, draw_scenes
from tests.host.teaching.weights import random_state

INPUT_PX = 32


@dataclass(frozen=True)
class Taught:
    package: Package
    settings: EngineSettings


def cut(scene: Images) -> Images:
    return scene[:INPUT_PX, :INPUT_PX]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    folder = tmp_path_factory.mktemp("station")
    images = np.stack([cut(scene) for scene in draw_scenes(6)])
    net = make_backbone(random_state(), INPUT_PX)
    write_backbone(folder / "backbones" / "random-32", net, Origin("random", "0" * 64, "nobody's"), images[:1])
    backbone = load_backbone(folder / "backbones" / "random-32")
    detector = learn(features_numpy(net, images), FEATURE_EXPONENT, np.random.default_rng(0)).detector
    how = Preprocess((INPUT_PX, INPUT_PX), (0, 0, INPUT_PX, INPUT_PX), (INPUT_PX, INPUT_PX))
    golden = make_golden(np.stack([images[0], cut(draw_noise())]), how, make_detector(net, detector))
    files = {GOLDEN_NPZ: encode_golden(golden), BANK_NPZ: encode_bank(detector, backbone.files.sha256)}
    manifest = Manifest(FORMAT, "small", "scene", how, AnomalyMap((2, 2), 2.0**-4, 1), Threshold(1.0, "chosen"), {})
    write_files(folder / "small", manifest, files)
    return Taught(load_package(folder / "small"), EngineSettings(backbones=folder / "backbones"))


@pytest.mark.parametrize("runtime", ["onnxruntime", "opencv"])
def test_every_runtime_gives_the_whole_networks_maps(runtime: str, taught: Taught) -> None:
    """The self-test of the chain is the comparison: golden maps are the whole network's, from the reference."""
    settings = EngineSettings(backbones=taught.settings.backbones, runtime=runtime)  # type: ignore[arg-type]
    golden = taught.package.load_golden()
    chain = EngineChain(settings, golden, lambda name: open_engine(name, taught.package, settings))
    anomaly, name = chain.infer(golden.images[1])
    assert name == f"arm-{runtime}"
    assert np.array_equal(anomaly, golden.maps[1])
    assert anomaly.min() > 0 > golden.maps[0].min(), "noise lies farther than what was learnt"
    chain.close()


def open_kernels(backbone: Path, folder: Path) -> Engine:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: install gcc")
    flags = ["-std=c11", "-O2", "-fwrapv", "-shared", "-fPIC", "-ffreestanding", "-nostdlib"]
    source = Path(engine.__file__).with_name("kernels.c")
    subprocess.run([compiler, *flags, str(source), "-o", str(folder / "kernels.so")], check=True)
    return KernelEngine(backbone / MODEL_ONNX, folder / "kernels.so")


def open_onnx_c(backbone: Path, _: Path) -> Engine:
    libraries = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))
    if not libraries:
        pytest.skip("the Python package of ONNX Runtime has no plain library here")
    return OnnxCEngine(backbone / CARRIED_ONNX, 1, libraries[0])


@pytest.mark.parametrize("open_one", [open_kernels, open_onnx_c])
def test_the_boards_own_runtimes_give_the_features(
    open_one: Callable[[Path, Path], Engine], taught: Taught, tmp_path: Path
) -> None:
    assert taught.settings.backbones
    features, golden = open_one(taught.settings.backbones / "random-32", tmp_path), taught.package.load_golden()
    taught_engine = TaughtEngine(features, load_bank(taught.package.path(BANK_NPZ))[0])
    for image, expected in zip(golden.images, golden.maps, strict=True):
        assert np.array_equal(taught_engine.infer(image), expected)
    taught_engine.close()


def test_the_overlays_program_gives_the_features(taught: Taught) -> None:
    detector, sha256 = load_bank(taught.package.path(BANK_NPZ))
    assert taught.settings.backbones
    program = decode_file((taught.settings.backbones / "random-32" / PROGRAM_BIN).read_bytes())
    golden = taught.package.load_golden()
    features = np.stack([run_program(program, image) for image in golden.images])
    assert np.array_equal(detector.judge(features), golden.maps)
    assert len(sha256) == 64


def test_a_station_without_the_backbone_says_what_is_missing(taught: Taught, tmp_path: Path) -> None:
    def trouble(backbones: Path | None) -> str:
        settings = EngineSettings(backbones=backbones)
        with pytest.raises(EngineError, match="no engine passes") as refused:
            EngineChain(
                settings, taught.package.load_golden(), lambda name: open_engine(name, taught.package, settings)
            )
        return str(refused.value)

    assert "say in [engines] backbones where backbones lie" in trouble(None)
    assert "copy it there, or correct [engines] backbones" in trouble(tmp_path)


def test_what_is_no_bank_is_refused(taught: Taught, tmp_path: Path) -> None:
    path = tmp_path / BANK_NPZ
    path.write_bytes(b"no bank")
    with pytest.raises(ManifestError, match="cannot be read"):
        load_bank(path)
    with np.load(taught.package.path(BANK_NPZ)) as arrays:
        content = dict(arrays)
    for key, value in (
        ("patches", content["patches"][:, :9]),
        ("patches", content["patches"].astype(np.int16)),
        ("weight_exponents", content["weight_exponents"] + 9),
        ("farthest", np.array(np.nan)),
        ("backbone", content["backbone"][:5]),
        ("bias", content["bias"][:, np.newaxis]),
    ):
        with path.open("wb") as file:
            np.savez(file, **{**content, key: value})
        with pytest.raises(ManifestError, match="holds no bank"):
            load_bank(path)
