"""Graphs that the exporter did not write: refused in one line with exit code 2, or read to what they really compute."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from board.engines.onnx_runtime import error_types, session_options
from board.preprocess import as_input
from host.compiler.compilation import compile_net
from host.compiler.operations import UnsupportedError
from host.compiler.reader import read_qdq
from host.integers.arithmetic import IMAGE, MAP, run
from host.integers.qdq import write_qdq
from protocol.errors import EXIT_BAD_INPUT, BeltsightError
from tests.host.compiler.random_layers import random_image
from tests.host.compiler.test_reader import every_layer

ROOT = Path(__file__).resolve().parents[3]
ROUNDS = 120
INPUT_PX = (32, 32)


def command(*words: str, seed: str = "random") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "host.compiler", *words]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


# ---- written by hand


def make_graph(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], names: tuple[str, str] = (IMAGE, MAP)
) -> onnx.ModelProto:
    left = helper.make_tensor_value_info(names[0], TensorProto.FLOAT, (1, 3, *INPUT_PX))
    right = helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ("n", "c", "h", "w"))
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "foreign", [left], [right], values))


def float_conv(names: tuple[str, str] = (IMAGE, MAP)) -> onnx.ModelProto:
    weights = np.ones((8, 3, 3, 3), np.float32)
    nodes = [helper.make_node("Conv", [names[0], "weights"], [names[1]], name="first", pads=[1, 1, 1, 1])]
    return make_graph(nodes, {"weights": weights}, names)


def classifier() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Flatten", [IMAGE], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "weights"], [MAP], name="linear"),
    ]
    return make_graph(nodes, {"weights": np.ones((3 * 32 * 32, 10), np.float32)})


def per_tensor() -> onnx.ModelProto:
    """What most quantizers write: one scale for all weights, and it is no power of two."""
    nodes = [
        helper.make_node("QuantizeLinear", [IMAGE, "scale", "zero"], ["image_int8"], name="quantize"),
        helper.make_node("DequantizeLinear", ["image_int8", "scale", "zero"], ["image_float"]),
        helper.make_node("Conv", ["image_float", "weights", "bias"], [MAP], name="first", pads=[1, 1, 1, 1]),
    ]
    constants = {"weights": np.ones((1, 3, 3, 3), np.float32), "bias": np.zeros(1, np.float32)}
    return make_graph(nodes, constants | {"scale": np.array(0.02, np.float32), "zero": np.array(3, np.int8)})


FOREIGN: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "other names": (lambda: float_conv(("x", "y")), "does not lead from 'image' to 'map' but from 'x' to 'y': export"),
    "float": (float_conv, "node first (Conv): it writes 'map' without a quantizer; accepted: "),
    "classifier": (classifier, "node flatten (Flatten): the overlay has no Flatten; accepted: "),
    "quantized by others": (per_tensor, "node quantize (QuantizeLinear): its scale or zero point; accepted: "),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_the_command_refuses_a_foreign_graph_in_one_line(case: str, tmp_path: Path) -> None:
    make, reason = FOREIGN[case]
    path = tmp_path / "foreign.onnx"
    path.write_bytes(make().SerializeToString())
    done = command(str(path), "--disassemble")
    assert (done.returncode, done.stdout) == (EXIT_BAD_INPUT, "")
    assert done.stderr.startswith("beltsight: ")
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr


def test_the_command_takes_a_graph_without_its_package(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(write_qdq(every_layer(0)).SerializeToString())
    done = command(str(path), "--disassemble")
    assert done.returncode == 0, done.stderr
    assert "LoadImage" in done.stdout


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"no graph at all"])
def test_what_is_no_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    done = command(str(path))
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr.startswith("beltsight: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("operator", "attribute", "reason"),
    [
        ("Concat", "axis", r"\(Concat\): it does not concatenate channels; accepted: axis 1"),
        ("DequantizeLinear", "axis", r"\(DequantizeLinear\): its scales do not belong to output channels"),
    ],
)
def test_another_axis_is_refused(operator: str, attribute: str, reason: str) -> None:
    model = write_qdq(every_layer(0))
    items = [item for node in model.graph.node if node.op_type == operator for item in node.attribute]
    next(item for item in items if item.name == attribute).i += 1
    with pytest.raises(UnsupportedError, match=reason):
        read_qdq(model)


# ---- changed at random


def change(model: onnx.ModelProto, rng: random.Random) -> None:
    """One thing about the graph."""
    rng.choice([drop_input, swap_inputs, drop_attribute, change_attribute, rename, change_constant, move, drop])(
        model.graph, rng
    )


def drop_input(graph: onnx.GraphProto, rng: random.Random) -> None:
    node = rng.choice(graph.node)
    del node.input[rng.randrange(len(node.input))]


def swap_inputs(graph: onnx.GraphProto, rng: random.Random) -> None:
    one, other = rng.choice(graph.node), rng.choice(graph.node)
    i, j = rng.randrange(len(one.input)), rng.randrange(len(other.input))
    one.input[i], other.input[j] = other.input[j], one.input[i]


def with_attributes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.attribute]


def drop_attribute(graph: onnx.GraphProto, rng: random.Random) -> None:
    node = rng.choice(with_attributes(graph))
    del node.attribute[rng.randrange(len(node.attribute))]


def change_attribute(graph: onnx.GraphProto, rng: random.Random) -> None:
    item = rng.choice(rng.choice(with_attributes(graph)).attribute)
    if item.ints:
        item.ints[rng.randrange(len(item.ints))] = rng.randrange(-1, 5)
    elif item.s:
        item.s = rng.choice([b"", b"linear", b"ceil", b"half_pixel"])
    else:
        item.i = rng.randrange(-1, 5)


def rename(graph: onnx.GraphProto, rng: random.Random) -> None:
    rng.choice(graph.node).op_type = rng.choice([node.op_type for node in graph.node] + ["Relu", "Mul"])


def change_constant(graph: onnx.GraphProto, rng: random.Random) -> None:
    item = rng.choice(graph.initializer)
    value = numpy_helper.to_array(item).copy()
    kinds = (np.float32, np.int8, np.uint8, np.int32)
    choices = [value.reshape(-1), value[np.newaxis], value.astype(rng.choice(kinds)), value * rng.choice([2, 3])]
    choices += [value.T.copy(), value.reshape(-1)[:-1]]
    item.CopyFrom(numpy_helper.from_array(rng.choice(choices), item.name))


def move(graph: onnx.GraphProto, rng: random.Random) -> None:
    nodes = list(graph.node)
    nodes.insert(rng.randrange(len(nodes)), nodes.pop(rng.randrange(len(nodes))))
    del graph.node[:]
    graph.node.extend(nodes)


def drop(graph: onnx.GraphProto, rng: random.Random) -> None:
    parts = rng.choice([graph.node, graph.initializer])
    del parts[rng.randrange(len(parts))]


@pytest.mark.parametrize("seed", range(5))
def test_a_changed_graph_is_refused_or_read_to_what_it_computes(seed: int) -> None:
    rng, whole = random.Random(seed), write_qdq(every_layer(seed)).SerializeToString()
    image = as_input(random_image(np.random.default_rng(seed), INPUT_PX))
    refused = 0
    for _ in range(ROUNDS):
        model = onnx.load_model_from_string(whole)
        change(model, rng)
        try:
            net = read_qdq(model)
            compile_net(net)
        except BeltsightError:
            refused += 1
            continue
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1))
            (expected,) = session.run(None, {IMAGE: image})
        except error_types():
            continue  # a graph that means nothing to anybody
        assert np.array_equal(run(net, image[0]), expected[0, 0])
    assert 0 < refused < ROUNDS
