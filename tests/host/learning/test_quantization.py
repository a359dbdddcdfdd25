"""Folding, calibration and the choice of scales."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from host.compiler.compilation import compile_net
from host.compiler.table import make_rows
from host.integers.arithmetic import IMAGE, MAP, Conv, IntegerNet
from host.integers.parity import check_parity, run_numpy, run_onnxruntime, run_qonnx
from host.integers.qdq import write_qdq
from host.integers.qonnx_graph import write_qonnx
from host.learning.network import DetectorNet, Widths
from host.learning.quantization import extract, fold, quantize
from tests.host.conftest import Trained


def test_folding_changes_nothing() -> None:
    net = warmed_up()
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(fold(net)(pictures), net(pictures), atol=1e-5)


def test_quantized_map_stays_near_the_float_one() -> None:
    """A grid of 1/16 and eight bits before it: half a unit is expected, three would be a wrong scale."""
    net = warmed_up()
    pictures = torch.rand(8, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        quantized = quantize(fold(net), [pictures]).eval()
        difference = (quantized(pictures) - net(pictures)).abs().mean()
    assert difference < 3 / 16


def test_activations_after_relu_are_signed_and_not_negative(trained: Trained) -> None:
    seen: dict[str, Tensor] = {}
    pictures = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        trained.quantized.run(pictures, lambda name, tensor: seen.update({name: getattr(tensor, "value", tensor)}))
    exponents = trained.integers.exponents()
    for layer in trained.integers.layers:
        if isinstance(layer, Conv) and layer.relu:
            integers = seen[layer.name] / 2.0 ** exponents[layer.name]
            assert integers.min() >= 0
            assert integers.max() <= 127


def test_dead_channels_keep_their_bias_exact() -> None:
    """Weights near zero must not make the unit of the bias so small that it leaves float32's integers."""
    net = warmed_up()
    with torch.no_grad():
        net.stem[0].weight[0] = 1e-12  # type: ignore[operator]
        net.stem[1].bias[0] = 0.9  # type: ignore[operator]
        integers = extract(quantize(fold(net), [torch.rand(4, 3, 64, 64) * 2 - 1]), (64, 64))
    stem = integers.layers[0]
    assert isinstance(stem, Conv)
    assert stem.source == IMAGE
    assert abs(int(stem.bias[0])) < 1 << 24
    assert integers.layers[-1].name == MAP


def test_four_bits_inside_eight_at_both_ends() -> None:
    """The compiler stores what fits in four bits so; every engine gives the same integers."""
    layers, batches = fold(warmed_up()), [torch.rand(4, 3, 64, 64) * 2 - 1]
    wide, integers = (extract(quantize(layers, batches, bits), (64, 64)) for bits in (8, 4))
    first, *inner, last = (layer for layer in integers.layers if isinstance(layer, Conv))
    assert max(np.abs(layer.weights).max() for layer in inner) == 7
    assert min(np.abs(first.weights).max(), np.abs(last.weights).max()) > 7
    assert loaded_bytes(integers) < 0.7 * loaded_bytes(wide)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    answers = {
        "ONNX Runtime": run_onnxruntime(write_qdq(integers), images),
        "qonnx": run_qonnx(write_qonnx(integers), integers, images),
    }
    check_parity(run_numpy(integers, images), answers)


def test_operators_that_the_overlay_lacks_are_refused() -> None:
    class Squashed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1)

        def forward(self, pictures: Tensor) -> Tensor:
            return torch.sigmoid(self.conv(pictures))

    with pytest.raises(TypeError, match="is not for the overlay"):
        fold(Squashed())


def loaded_bytes(net: IntegerNet) -> int:
    return sum(row.weight_bytes for row in make_rows(compile_net(net)))


def warmed_up() -> DetectorNet:
    """Batch normalisation that has seen pictures."""
    torch.manual_seed(1)
    net = DetectorNet(Widths((16, 16, 32, 32, 32), 16, 16))
    with torch.no_grad():
        for _ in range(10):
            net(torch.rand(4, 3, 64, 64) * 2 - 1)
    return net.eval()
