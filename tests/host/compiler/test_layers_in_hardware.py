"""Single layers, compiled and run on the simulated overlay, equal the integer network and the golden model."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from board.overlay import isa
from board.overlay.golden import run_program
from board.overlay.isa import LoadWeights, WeightFormat
from board.overlay.simulation.simulator import MemoryPort, Simulator
from board.preprocess import as_input
from host.compiler.compilation import compile_net
from host.integers.arithmetic import (
    IMAGE,
    MAP,
    Add,
    ChannelMax,
    Concat,
    Conv,
    IntegerNet,
    Layer,
    MaxPool,
    MeanPool,
    Upsample,
    run_all,
)
from tests.host.compiler.random_layers import EXPONENT, random_conv, random_depthwise, random_image
from tests.host.compiler.test_frames_in_hardware import infer_channels

CASES = 12  # of each of the 46 kinds below
SMALL_WORDS = 400  # of the activation memory
PORTS = [MemoryPort(), MemoryPort(latency_cycles=3, efficiency=1.0, stall=0.2, shy=True), MemoryPort(stall=0.3, seed=5)]


def make_layers(kind: str, kernel_px: int, stride: int, rng: np.random.Generator) -> list[Layer]:
    """The layer and what stands before it."""
    low, out = (int(n) for n in rng.integers(1, 40, 2))
    source = random_conv(rng, "source", IMAGE, (3, low, 1))
    other = random_conv(rng, "other", IMAGE, (3, low, 3))
    layers: dict[str, list[Layer]] = {
        "image": [random_conv(rng, MAP, IMAGE, (3, out, kernel_px), stride)],
        "dense": [source, random_conv(rng, MAP, "source", (low, out, kernel_px), stride)],
        "depthwise": [source, random_depthwise(rng, MAP, "source", (low, kernel_px), stride)],
        "maximum": [source, MaxPool(MAP, "source", kernel_px, stride)],
        "mean": [source, MeanPool(MAP, "source", kernel_px, stride, EXPONENT)],
        "add": [source, other, Add(MAP, "source", "other", EXPONENT + int(rng.integers(3)))],
        "upsample": [source, Upsample("up", "source"), random_conv(rng, MAP, "up", (low, out, kernel_px), stride)],
        "repeat": [source, Upsample(MAP, "source")],
        "concatenate": [source, other, Concat(MAP, ("source", "other"))],
        "largest": [_lower(other), ChannelMax(MAP, "other")],
    }
    return layers[kind]


def _lower(conv: Conv) -> Conv:
    """By two deviations: the largest of many channels would be 127 nearly everywhere."""
    return replace(conv, bias=conv.bias - 2 * np.abs(conv.bias).max())


KINDS = [
    *product(("image", "dense", "depthwise"), (1, 3, 5, 7), (1, 2)),
    *product(("maximum",), (2, 3, 5), (1, 2)),
    *product(("mean",), (2, 4, 8), (1, 2)),
    *product(("upsample",), (1, 3, 5), (1, 2)),
    *product(("add", "repeat", "concatenate", "largest"), (1,), (1,)),
]


@pytest.mark.parametrize(("kind", "kernel_px", "stride"), KINDS)
def test_single_layers(simulator: Simulator, kind: str, kernel_px: int, stride: int) -> None:
    rng = np.random.default_rng([*kind.encode(), kernel_px, stride])
    varied = 0
    for case in range(CASES):
        simulator.set_port(PORTS[case % len(PORTS)])
        height, width = (int(n) for n in rng.integers(1, 17, 2))
        net = IntegerNet((height, width), tuple(make_layers(kind, kernel_px, stride, rng)))
        image = random_image(rng, net.input_px)
        want = run_all(net, as_input(image)[0])[MAP]
        # every other one with little room: large sources pass through DDR
        compiled = compile_net(net, isa.ACTIVATION_WORDS if case % 2 else SMALL_WORDS)
        assert np.array_equal(infer_channels(simulator, compiled.program, image), want), net
        assert np.array_equal(run_program(compiled.program, image), want), net
        varied += len(np.unique(want)) > 9
    assert varied > CASES // 2, "results without variety show nothing"


def test_weights_of_both_widths_reach_the_hardware() -> None:
    """What the cases above load."""
    rng = np.random.default_rng(0)
    layers = (random_conv(rng, "layers", IMAGE, (3, 8, 3)) for _ in range(CASES))
    nets = (IntegerNet((8, 8), (layer, random_conv(rng, MAP, "layers", (8, 8, 3)))) for layer in layers)
    programs = (compile_net(net).instructions for net in nets)
    formats = {item.format for program in programs for item in program if isinstance(item, LoadWeights)}
    assert formats == {WeightFormat.INT8, WeightFormat.INT4}
