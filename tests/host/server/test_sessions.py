"""Pictures that are judged together are judged as if alone; a model that cannot be trusted is not loaded."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from board.engines.onnx_runtime import OnnxRuntimeEngine
from host.server.sessions import Model
from protocol.detection import Request
from protocol.errors import EngineError, MessageError
from protocol.manifest import GOLDEN_NPZ, MANIFEST, MODEL_ONNX, Package, load_package

MODELS = Path(__file__).resolve().parents[3] / "models"
SHIPPED = sorted(path.parent for path in MODELS.glob(f"*/{MANIFEST}"))


def load(package: Package, onnx_bytes: bytes = b"", golden: bytes = b"") -> Model:
    graph = onnx_bytes or package.path(MODEL_ONNX).read_bytes()
    return Model(package.manifest, graph, golden or package.path(GOLDEN_NPZ).read_bytes(), 1)


def fixed_batch(package: Package) -> bytes:
    """The same network, exported for one picture at a time."""
    model = onnx.load(package.path(MODEL_ONNX))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return bytes(model.SerializeToString())


def noise(count: int, size_px: tuple[int, int] = (128, 128)) -> list[NDArray[np.uint8]]:
    return [np.random.default_rng(seed).integers(0, 256, (*size_px, 3), np.uint8) for seed in range(count)]


@pytest.mark.parametrize("folder", [None, *SHIPPED], ids=lambda folder: folder.name if folder else "trivial")
def test_a_batch_gives_the_maps_of_single_pictures(folder: Path | None, trivial_package: Package) -> None:
    package = load_package(folder) if folder else trivial_package
    engine, model = OnnxRuntimeEngine(package.path(MODEL_ONNX), 1), load(package)
    images = noise(7, package.manifest.preprocess.input_px)
    for count in (1, 2, 3, 7):
        expected = [engine.infer(image) for image in images[:count]]
        assert np.array_equal(model.infer(images[:count]), expected)
    engine.close()


def test_a_network_for_single_pictures_runs_them_one_by_one(trivial_package: Package) -> None:
    images = noise(5)
    expected = load(trivial_package).infer(images)
    assert np.array_equal(load(trivial_package, fixed_batch(trivial_package)).infer(images), expected)


def test_judging_changes_no_picture(trivial_package: Package) -> None:
    images = noise(2)
    load(trivial_package).infer(images)
    assert all(np.array_equal(image, before) for image, before in zip(images, noise(2), strict=True))


def test_a_file_that_is_no_network_is_refused(trivial_package: Package) -> None:
    with pytest.raises(EngineError, match="ONNX Runtime refuses the model"):
        load(trivial_package, b"no network")


def test_a_network_that_does_not_give_its_golden_maps_is_refused(trivial_package: Package) -> None:
    golden = trivial_package.load_golden()
    wrong = golden.maps.copy()
    wrong[-1, -1, -1] ^= 1
    with pytest.raises(EngineError, match="does not give its golden maps"):
        load(trivial_package, golden=packed(images=golden.images, maps=wrong))


@pytest.mark.parametrize("arrays", [{}, {"images": np.zeros((0, 128, 128, 3), np.uint8)}, {"maps": np.zeros(3)}])
def test_golden_vectors_that_do_not_fit_are_refused(
    arrays: dict[str, NDArray[np.uint8]], trivial_package: Package
) -> None:
    golden = trivial_package.load_golden()
    both = {"images": golden.images, "maps": golden.maps} | arrays if arrays else {}
    with pytest.raises(EngineError, match="golden vectors"):
        load(trivial_package, golden=packed(**both))


def test_golden_vectors_that_are_no_archive_are_refused(trivial_package: Package) -> None:
    with pytest.raises(EngineError, match="golden vectors cannot be read"):
        load(trivial_package, golden=b"no archive")


def test_a_map_of_another_shape_is_an_error(trivial_package: Package) -> None:
    manifest = trivial_package.manifest
    other = replace(manifest, map=replace(manifest.map, shape=(4, 4)))
    with pytest.raises(EngineError, match="maps of int8"):
        load(Package(trivial_package.folder, other))


def test_a_frame_of_another_size_is_a_message_error(trivial_package: Package) -> None:
    request = Request(1, "trivial", 10.0, (2, 2), content="frame")
    with pytest.raises(MessageError, match="the model expects"):
        load(trivial_package).image(request, bytes(12))


def packed(**arrays: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
