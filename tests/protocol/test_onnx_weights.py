"""A network whose weights lie in another file is refused by whoever could load, sign or compile it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from board.engines.onnx_runtime import OnnxRuntimeEngine
from board.engines.opencv_dnn import OpenCvEngine
from host.compiler.operations import UnsupportedError
from host.compiler.reader import load_qdq
from host.deploy.sign import sign_package
from host.server.models import Scan, scan_models
from protocol.errors import EngineError, ManifestError
from protocol.manifest import CARRIED_ONNX, MANIFEST, MODEL_ONNX, Package, file_sha256, load_package
from protocol.onnx_weights import weights_fault
from protocol.protobuf import fields
from protocol.signing import write_signing_pair

MODELS = Path(__file__).resolve().parents[2] / "models"
OUTSIDE = "external data"
CONSTANTS = 5  # the number of a graph's constants in onnx.proto


def weights() -> TensorProto:
    return numpy_helper.from_array(np.ones(8, np.float32), "weights")


def outside() -> TensorProto:
    tensor = weights()
    set_external_data(tensor, "model.onnx.data")
    tensor.ClearField("raw_data")
    return tensor


def in_constant(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "g", [], [], [tensor])


def in_node(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Constant", [], ["x"], value=tensor)], "g", [], [])


def in_subgraph(tensor: TensorProto) -> onnx.GraphProto:
    inner = in_node(tensor)
    return helper.make_graph([helper.make_node("If", ["c"], ["x"], then_branch=inner, else_branch=inner)], "g", [], [])


def in_sparse(tensor: TensorProto) -> onnx.GraphProto:
    indices = numpy_helper.from_array(np.arange(8), "indices")
    sparse = onnx.SparseTensorProto(values=tensor, indices=indices, dims=[8])
    return helper.make_graph([], "g", [], [], sparse_initializer=[sparse])


@pytest.mark.parametrize("place", [in_constant, in_node, in_subgraph, in_sparse], ids=lambda place: place.__name__)
def test_a_tensor_outside_is_found_wherever_it_stands(place: Callable[[TensorProto], onnx.GraphProto]) -> None:
    model = helper.make_model(place(weights()))
    assert weights_fault(model.SerializeToString()) == ""
    assert OUTSIDE in weights_fault(helper.make_model(place(outside())).SerializeToString())


def test_functions_and_trainings_count_too() -> None:
    function = helper.make_function("own", "f", [], ["x"], list(in_node(outside()).node), [])
    assert OUTSIDE in weights_fault(helper.make_model(in_constant(weights()), functions=[function]).SerializeToString())
    model = helper.make_model(in_constant(weights()))
    model.training_info.add().algorithm.CopyFrom(in_node(outside()))
    assert OUTSIDE in weights_fault(model.SerializeToString())


def test_either_mark_is_enough() -> None:
    for change in ("location", "entry"):
        tensor = outside()
        tensor.ClearField("data_location" if change == "entry" else "external_data")
        assert OUTSIDE in weights_fault(helper.make_model(in_constant(tensor)).SerializeToString())


@pytest.mark.parametrize("content", [b"rubbish", b"\x3a\xff", b"\x0b\x0c", b"\xff" * 20, b"\x00\x00"])
def test_what_cannot_be_read_is_refused(content: bytes) -> None:
    assert "is no ONNX file" in weights_fault(content)


def test_it_ends_soon() -> None:
    deep = b""
    for _ in range(40):  # attribute 6 (a graph) of node 1 of …
        for number in (6, 5, 1):
            deep = bytes([number << 3 | 2]) + encode_size(len(deep)) + deep
    assert "nested too deeply" in weights_fault(b"\x3a" + encode_size(len(deep)) + deep)
    assert "more than" in weights_fault(b"\x08\x01" * 1_000_001)


def encode_size(size: int) -> bytes:
    low, rest = size & 0x7F, size >> 7
    return bytes([low | 0x80]) + encode_size(rest) if rest else bytes([low])


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*.onnx")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_models_hold_their_weights(path: Path) -> None:
    content = path.read_bytes()
    assert weights_fault(content) == ""
    graph = next(value for number, value in fields(memoryview(content)) if number == 7)
    constants = [value for number, value in fields(memoryview(bytes(graph))) if number == CONSTANTS]
    assert len(constants) == len(onnx.load_model_from_string(content).graph.initializer)


# ---- everybody who could load one


@pytest.fixture
def folder(trivial_package: Package, tmp_path: Path) -> Path:
    """The trivial package, its weights in a file beside the networks that the manifest names too."""
    folder = tmp_path / "models" / "trivial"
    shutil.copytree(trivial_package.folder, folder)
    for name in (MODEL_ONNX, CARRIED_ONNX):
        model = onnx.load(folder / name)
        onnx.save(model, folder / name, save_as_external_data=True, location=f"{name}.data", size_threshold=0)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"] |= {path.name: file_sha256(path) for path in folder.glob("*.onnx*")}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_no_package_has_weights_outside(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"\.onnx takes weights from another file \(external data\): export the"):
        load_package(folder)


def test_nobody_signs_it(folder: Path, tmp_path: Path) -> None:
    _, secret = write_signing_pair(tmp_path / "keys", "maker")
    with pytest.raises(ManifestError, match=OUTSIDE):
        sign_package(secret, folder)


def test_the_server_does_not_take_it(folder: Path) -> None:
    scan = scan_models(folder.parent, Scan())
    assert not scan.versions
    assert OUTSIDE in scan.readings[folder].fault


def test_the_compiler_refuses_it(folder: Path) -> None:
    with pytest.raises(UnsupportedError, match=OUTSIDE):
        load_qdq(folder / MODEL_ONNX)


def test_the_engines_refuse_it(folder: Path) -> None:
    with pytest.raises(EngineError, match=OUTSIDE):
        OnnxRuntimeEngine(folder / MODEL_ONNX, 1)
    with pytest.raises(EngineError, match=OUTSIDE):
        OpenCvEngine(folder / CARRIED_ONNX, 1)
