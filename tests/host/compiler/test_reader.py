"""model.onnx is read back to the integers it was written from; what the overlay cannot do is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from host.compiler.compilation import compile_net
from host.compiler.operations import UnsupportedError
from host.compiler.reader import read_qdq
from host.integers.arithmetic import (
    IMAGE,
    MAP,
    Add,
    Concat,
    IntegerNet,
    Layer,
    MaxPool,
    MeanPool,
    NotExactError,
    Upsample,
    check_exact,
)
from host.integers.carried import write_carried
from host.integers.parity import run_numpy, run_onnxruntime, run_opencv, run_qonnx
from host.integers.qdq import write_qdq
from host.integers.qonnx_graph import write_qonnx
from tests.armhf.networks import random_late_net
from tests.host.compiler.random_layers import EXPONENT, random_conv, random_depthwise, random_image
from tests.host.random_nets import random_net


def every_layer(seed: int) -> IntegerNet:
    """Each kind of layer once or more."""
    rng = np.random.default_rng(seed)
    layers: tuple[Layer, ...] = (
        random_conv(rng, "stem", IMAGE, (3, 20, 5), 2),
        random_depthwise(rng, "deep", "stem", (20, 3), 1),
        MaxPool("largest", "deep", 3, 2),
        MeanPool("mean", "stem", 2, 2, EXPONENT),
        Concat("both", ("largest", "mean")),
        random_depthwise(rng, "wide", "both", (40, 5), 2),
        Upsample("up", "wide"),
        Add("sum", "up", "both", EXPONENT),
        replace(random_conv(rng, MAP, "sum", (40, 1, 1)), relu=False),
    )
    return IntegerNet((32, 32), layers)


def same(left: IntegerNet, right: IntegerNet) -> bool:
    pairs = zip(left.layers, right.layers, strict=True)
    fields = [(vars(one), vars(other)) for one, other in pairs if type(one) is type(other)]
    return (
        left.input_px == right.input_px
        and len(fields) == len(left.layers)
        and all(np.array_equal(one[key], other[key]) for one, other in fields for key in one)
    )


@pytest.mark.parametrize("seed", range(4))
def test_what_was_written_is_read(seed: int) -> None:
    for net in (random_net(seed), every_layer(seed), random_late_net(seed)):
        assert same(read_qdq(write_qdq(net)), net)


@pytest.mark.parametrize("seed", range(4))
def test_every_engine_agrees_on_every_layer(seed: int) -> None:
    net = every_layer(seed)
    check_exact(net)
    rng = np.random.default_rng(seed)
    images = np.stack([random_image(rng, net.input_px) for _ in range(4)])
    expected = run_numpy(net, images)
    assert np.array_equal(run_onnxruntime(write_qdq(net), images), expected)
    assert np.array_equal(run_qonnx(write_qonnx(net), net, images), expected)
    assert np.array_equal(run_opencv(write_carried(net), images), expected)


def node(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(item for item in model.graph.node if item.op_type == operator)
    return found


def reader_of(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(item for item in model.graph.node if item.input[0] == tensor)
    return found


def set_constant(model: onnx.ModelProto, name: str, value: NDArray[np.generic]) -> None:
    next(item for item in model.graph.initializer if item.name == name).CopyFrom(numpy_helper.from_array(value, name))


def set_attribute(item: onnx.NodeProto, name: str, value: object) -> None:
    kept = [attribute for attribute in item.attribute if attribute.name != name]
    del item.attribute[:]
    item.attribute.extend([*kept, helper.make_attribute(name, value)])


Change = Callable[[onnx.ModelProto], None]
REFUSED: dict[str, tuple[Change, str]] = {
    "operator": (lambda m: setattr(node(m, "Add"), "op_type", "Mul"), "Mul"),
    "lonely operator": (lambda m: setattr(node(m, "Resize"), "op_type", "Sigmoid"), "node up.*has no Sigmoid"),
    "dilation": (lambda m: set_attribute(node(m, "Conv"), "dilations", [2, 2]), "node stem_sum.*no dilation"),
    "padding": (lambda m: set_attribute(node(m, "Conv"), "pads", [0, 0, 0, 0]), r"node stem_sum.*\[2, 2, 2, 2\]"),
    "strides": (lambda m: set_attribute(node(m, "Conv"), "strides", [2, 1]), "node stem_sum.*square"),
    "groups": (lambda m: set_attribute(node(m, "Conv"), "group", 2), "node stem_sum.*2 groups"),
    "scale": (lambda m: set_constant(m, "scale_2^-5", np.array(0.03, np.float32)), "no power of two"),
    "zero point": (lambda m: set_constant(m, "zero_uint8", np.array(3, np.uint8)), "zero point of 0"),
    "bias scale": (lambda m: set_constant(m, "stem_bias_scale", np.full(16, 1, np.float32)), "units of the sum"),
    "weights": (lambda m: set_constant(m, "stem_weights", np.zeros((16, 3, 5, 5), np.uint8)), "stem_weights_value"),
    "clip": (lambda m: set_constant(m, "highest", np.array(200, np.uint8)), "limits are not those of int8"),
    "resize": (lambda m: set_attribute(node(m, "Resize"), "mode", "linear"), "node up .Resize.*no repetition"),
    "zoom": (lambda m: set_constant(m, "upsample_scales", np.array([1, 1, 4, 4], np.float32)), "scales 1, 1, 2, 2"),
    "read scale": (
        lambda m: reader_of(m, "stem").input.__setitem__(1, "scale_2^-4"),
        "stem_for_.*not that of its tensor",
    ),
    "no bias": (lambda m: node(m, "Conv").input.pop(), "it has no bias"),
    "other output": (lambda m: setattr(m.graph.output[0], "name", "score"), "does not lead"),
    "float input": (lambda m: node(m, "Conv").input.__setitem__(0, "image"), "stem_sum.*nothing makes 'image'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_graphs(case: str) -> None:
    change, reason = REFUSED[case]
    model = write_qdq(random_net(1))
    change(model)
    with pytest.raises(UnsupportedError, match=reason):
        read_qdq(model)


def test_a_sum_cut_off_at_zero_is_refused() -> None:
    """Add has no ReLU: a uint8 quantizer behind negative values would be one."""
    model = write_qdq(random_net(1))
    add = node(model, "Add")
    quantizer = next(
        item for item in model.graph.node if item.op_type == "QuantizeLinear" and add.output[0] in item.input
    )
    name = quantizer.output[0]
    quantizer.input[2] = "zero_uint8"
    quantizer.output[0] = f"{name}_wide"
    clip = helper.make_node("Clip", [f"{name}_wide", "", "highest"], [name])
    model.graph.node.insert(list(model.graph.node).index(quantizer) + 1, clip)
    with pytest.raises(UnsupportedError, match="cuts off negative values"):
        read_qdq(model)


def unsupported_nets() -> dict[str, tuple[list[Layer], str]]:
    rng = np.random.default_rng(0)
    source = random_conv(rng, "source", IMAGE, (3, 16, 1))
    conv = random_conv(rng, MAP, "source", (16, 1, 3))
    far = replace(source, name="far", exponent=EXPONENT - 7, weight_exponents=source.weight_exponents - 7)
    return {
        "kernel 9": (
            [replace(conv, source=IMAGE, weights=np.zeros((1, 3, 9, 9), np.int8))],
            "map: kernel 9, .*1, 3, 5, 7",
        ),
        "stride 3": ([source, replace(conv, stride=3)], "map: stride 3, the overlay takes 1, 2"),
        "scales": ([source, far, Add(MAP, "source", "far", EXPONENT)], "map: .*2.7 apart, the overlay adds up to 2.6"),
        "image pool": ([MaxPool(MAP, IMAGE, 2, 2)], "map: a MaxPool reads the image"),
        "sizes": (
            [source, Upsample("up", "source"), Add(MAP, "up", "source", EXPONENT)],
            "map: adds .*make them of equal shape",
        ),
        "channels": ([source, replace(conv, weights=np.zeros((1, 9, 3, 3), np.int8))], "weights for 9 channels"),
        "many weights": (
            [
                random_conv(rng, "source", IMAGE, (3, 400, 1)),
                random_conv(rng, MAP, "source", (400, 1, 7)),
            ],
            "map: 1226 weight words for 12 outputs, the overlay holds 1024",
        ),
        "wide rows": ([random_conv(rng, MAP, IMAGE, (3, 1030, 1))], "map: 1030 channels of 64 columns"),
    }


@pytest.mark.parametrize("case", unsupported_nets())
def test_refused_networks(case: str) -> None:
    layers, reason = unsupported_nets()[case]
    with pytest.raises(UnsupportedError, match=reason):
        compile_net(IntegerNet((8, 64), tuple(layers)))


def test_inexact_means_and_concatenations_are_refused() -> None:
    rng = np.random.default_rng(0)
    source = random_conv(rng, "source", IMAGE, (3, 16, 1))
    other = replace(source, name="other", exponent=EXPONENT + 1)
    refused: list[tuple[Layer, ...]] = [
        (source, MeanPool(MAP, "source", 3, 1, EXPONENT)),
        (source, other, Concat(MAP, ("source", "other"))),
    ]
    for layers in refused:
        with pytest.raises(NotExactError, match="layer map"):
            check_exact(IntegerNet((8, 8), layers))


def test_pictures_that_are_too_large_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UnsupportedError, match="layer image: 2000 × 8 pixels"):
        compile_net(IntegerNet((8, 2000), (random_conv(rng, MAP, IMAGE, (3, 1, 1)),)))
    tall = IntegerNet((64, 1000), (random_conv(rng, "a", IMAGE, (3, 64, 1)), random_conv(rng, MAP, "a", (64, 64, 7))))
    with pytest.raises(UnsupportedError, match="layer map: a strip of one row does not fit"):
        compile_net(tall)
