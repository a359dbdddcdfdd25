"""The kernels, compiled for this machine, read model.onnx and give the reference's integers, bit for bit.

Here without NEON; scripts/test-armhf does the same with NEON on an emulated Cortex-A9.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from board.engines.chain import open_arm
from board.engines.kernels import engine
from board.engines.kernels.engine import KernelEngine
from board.engines.settings import EngineSettings
from board.preprocess import as_input
from host.integers.arithmetic import IntegerNet, run
from host.integers.qdq import write_qdq
from protocol.errors import EngineError
from protocol.manifest import MANIFEST, MODEL_ONNX, load_package
from tests.armhf.networks import random_late_net, random_net

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.parent for path in (ROOT / "models").glob(f"*/{MANIFEST}"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: install gcc")
    path = tmp_path_factory.mktemp("kernels") / "kernels.so"
    flags = ["-std=c11", "-O2", "-fwrapv", "-shared", "-fPIC", "-ffreestanding", "-nostdlib"]
    subprocess.run([compiler, *flags, str(Path(engine.__file__).with_name("kernels.c")), "-o", str(path)], check=True)
    return path


def write_model(folder: Path, net: IntegerNet) -> Path:
    path = folder / MODEL_ONNX
    path.write_bytes(write_qdq(net).SerializeToString())
    return path


@pytest.mark.parametrize("seed", range(40))
def test_a_random_network_gives_the_references_integers(seed: int, library: Path, tmp_path: Path) -> None:
    check_kernels(random_net(seed), seed, library, tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_windows_that_start_late_and_largest_channels(seed: int, library: Path, tmp_path: Path) -> None:
    check_kernels(random_late_net(seed), seed, library, tmp_path)


def check_kernels(net: IntegerNet, seed: int, library: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1000 + seed)
    kernels = KernelEngine(write_model(tmp_path, net), library)
    for image in (
        rng.integers(0, 256, (*net.input_px, 3)).astype(np.uint8),
        rng.choice(np.array([0, 255], np.uint8), (*net.input_px, 3)),
    ):
        expected = run(net, as_input(image)[0])
        assert len(np.unique(expected)) > 3, "a dull map shows nothing"
        assert np.array_equal(kernels.infer(image), expected)
    kernels.close()


def test_a_window_beyond_the_border_is_refused(library: Path, tmp_path: Path) -> None:
    """A late window of stride 1 would read behind its source's border."""
    net = random_late_net(0)
    graph = write_qdq(net)
    for node in graph.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Conv" and attribute.name == "strides":
                attribute.ints[:] = [1, 1]
    path = tmp_path / MODEL_ONNX
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(EngineError, match="reads beyond"):
        KernelEngine(path, library)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_model_gives_its_golden_maps(folder: Path, library: Path) -> None:
    package = load_package(folder)
    golden, kernels = package.load_golden(), KernelEngine(package.path(MODEL_ONNX), library)
    for image, expected in zip(golden.images, golden.maps, strict=True):
        assert np.array_equal(kernels.infer(image), expected)


def test_a_map_is_a_copy(library: Path, tmp_path: Path) -> None:
    kernels = KernelEngine(write_model(tmp_path, random_net(1)), library)
    first = kernels.infer(np.zeros((24, 20, 3), np.uint8))
    kept = first.copy()
    kernels.infer(np.full((24, 20, 3), 255, np.uint8))
    assert np.array_equal(first, kept)


def test_an_image_of_another_size_is_refused(library: Path, tmp_path: Path) -> None:
    kernels = KernelEngine(write_model(tmp_path, random_net(1)), library)
    with pytest.raises(EngineError, match="the model takes"):
        kernels.infer(np.zeros((20, 24, 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda graph: replace_constant(graph, "map_weights", np.int8(-128)), "-128"),
        (lambda graph: replace_constant(graph, "map_bias", np.int32(1 << 24)), "2\\^24"),
        (lambda graph: replace_constant(graph, "highest", np.uint8(255)), "not limited to 127"),
        (lambda graph: replace_constant(graph, "zero_int8", np.int8(1)), "zero point"),
        (lambda graph: replace_constant(graph, "scale_2^-5", np.float32(0.03)), "no power of two"),
        (lambda graph: cut(graph, 2), "last layer"),
        (lambda graph: graph.node.pop(0), "KeyError"),
        (lambda graph: cut(graph, 1), "last layer|Clip"),
    ],
)
def test_a_graph_of_another_form_is_refused(change: object, why: str, library: Path, tmp_path: Path) -> None:
    model = write_qdq(random_net(1))
    assert callable(change)
    change(model.graph)
    path = tmp_path / MODEL_ONNX
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match=why):
        KernelEngine(path, library)


def cut(graph: onnx.GraphProto, nodes: int) -> None:
    del graph.node[-nodes:]


def replace_constant(graph: onnx.GraphProto, name: str, value: np.generic) -> None:
    """The constant's first element, or all of a scale."""
    for tensor in graph.initializer:
        if tensor.name == name:
            content = numpy_helper.to_array(tensor).copy()
            content.reshape(-1)[:1] = value
            tensor.CopyFrom(numpy_helper.from_array(content, name))
            return
    raise KeyError(name)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_refused_or_gives_a_map(seed: int, library: Path, tmp_path: Path) -> None:
    """Whatever the bytes: no crash, no endless loop; the self-test is what finds wrong weights."""
    rng = np.random.default_rng(seed)
    content = bytearray(write_qdq(random_net(1)).SerializeToString())
    for place in rng.integers(0, len(content), 1 + seed % 4):
        content[place] = rng.integers(256)
    path = tmp_path / MODEL_ONNX
    path.write_bytes(content[: len(content) - (seed % 3) * int(rng.integers(1, 2000))])
    try:
        kernels = KernelEngine(path, library)
        kernels.infer(np.zeros((24, 20, 3), np.uint8))
    except EngineError:
        pass


def test_a_library_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kernels.so"
    path.write_bytes(b"\x7fELF of nothing")
    with pytest.raises(EngineError, match="beltsight kernels"):
        KernelEngine(write_model(tmp_path, random_net(1)), path)


def test_asking_for_kernels_that_were_not_built_says_how_to_build_them() -> None:
    if engine.find_library():
        pytest.skip(f"they are built for {platform.machine()}")
    with pytest.raises(EngineError, match="beltsight kernels"):
        open_arm(load_package(SHIPPED[0]), EngineSettings(runtime="kernels"))
