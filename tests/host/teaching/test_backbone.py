"""The backbone's integers: near the float network, the same on every engine, and kept whole on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from board.preprocess import as_input
from board.teaching.whitening import FEATURE_EXPONENT
from host.integers.arithmetic import IntegerNet, check_exact, run_all
from host.integers.parity import features_onnxruntime
from host.integers.qdq import write_qdq
from host.pictures.reading import Images
from host.teaching.backbone import POOL_PX, make_backbone
from host.teaching.lite0 import BLOCKS, Floats, State, fold_block, fold_stem, read_weights
from host.teaching.make_backbone import draw_proof, make
from host.teaching.store import LICENCE_TXT, load_backbone
from protocol.errors import InputError
from tests.host.teaching.weights import random_state, write_state

INPUT_PX = 32


@pytest.fixture(scope="module")
def state() -> State:
    return random_state()


@pytest.fixture(scope="module")
def net(state: State) -> IntegerNet:
    return make_backbone(state, INPUT_PX)


@pytest.fixture(scope="module")
def weights(state: State, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = write_state(state, tmp_path_factory.mktemp("weights") / "random.pth")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def float_features(state: State, image: Images) -> Floats:
    """The network as published, before any scale was changed."""
    value = (torch.from_numpy(image).double().permute(2, 0, 1)[None] - 127) / 128
    stem = fold_stem(state)
    value = _convolve(value, stem.weights, stem.bias, stride=2).clamp(0, 6)
    means: list[Floats] = []
    for number, block in enumerate(BLOCKS):
        source, (expand, each, project) = value, fold_block(state, number)
        if expand is not None:
            value = _convolve(value, expand.weights, expand.bias).clamp(0, 6)
        value = _convolve(value, each.weights, each.bias, stride=block.stride, each=True).clamp(0, 6)
        value = _convolve(value, project.weights, project.bias)
        value = value + source if block.adds else value
        means = [*means, project.mean] if block.adds else [project.mean]
    variance = sum(fold_block(state, number)[2].deviation ** 2 for number in (5, 6, 7))
    pooled = functional.avg_pool2d(value, POOL_PX, 1, POOL_PX // 2)[0].numpy()
    return np.asarray((pooled - np.sum(means, axis=0)[:, None, None]) / np.sqrt(variance)[:, None, None])


def _convolve(
    value: torch.Tensor, weights: Floats, bias: Floats, stride: int = 1, *, each: bool = False
) -> torch.Tensor:
    """TensorFlow's padding: at stride 2 one less above and left than below and right."""
    kernel_px = weights.shape[-1]
    before, after = kernel_px // 2 - (stride - 1), kernel_px // 2
    padded = functional.pad(value, (before, after, before, after))
    groups = len(weights) if each else 1
    return functional.conv2d(padded, torch.from_numpy(weights), torch.from_numpy(bias), stride, groups=groups)


def test_integers_follow_the_float_network(state: State, net: IntegerNet) -> None:
    image = draw_proof(INPUT_PX)[0]
    integers = run_all(net, as_input(image)[0])["map"] * 2.0**FEATURE_EXPONENT
    floats = float_features(state, image)
    assert integers.shape == floats.shape == (80, 2, 2)
    assert np.corrcoef(integers.ravel(), floats.ravel())[0, 1] > 0.97


def test_a_proof_of_all_engines_is_kept_with_the_licence(weights: tuple[Path, str], tmp_path: Path) -> None:
    """`make` compares ONNX Runtime, OpenCV, qonnx and the overlay's model."""
    path, sha256 = weights
    backbone = load_backbone(make(path, INPUT_PX, tmp_path, sha256))
    with np.load(backbone.files.folder / "golden.npz") as golden:
        answer = features_onnxruntime(write_qdq(backbone.net), golden["images"])
        assert np.array_equal(answer, golden["features"])
    assert len(np.unique(answer)) > 60, "features without variety show nothing"
    assert "Apache License" in (backbone.files.folder / LICENCE_TXT).read_text()
    (backbone.files.folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(InputError, match="make it again with `beltsight backbone`"):
        load_backbone(backbone.files.folder)


def test_other_weights_are_refused(weights: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the known file"):
        read_weights(weights[0])
    with pytest.raises(InputError, match="cannot read"):
        read_weights(tmp_path / "none.pth")
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    with pytest.raises(InputError, match="holds no weights"):
        read_weights(text, hashlib.sha256(text.read_bytes()).hexdigest())


@pytest.mark.parametrize("input_px", [0, 16, 100, -32])
def test_sides_that_cannot_be_halved_four_times_are_refused(state: State, input_px: int) -> None:
    with pytest.raises(InputError, match="take 192 or 320"):
        make_backbone(state, input_px)


def test_a_folder_without_a_backbone_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make one with `beltsight backbone`"):
        load_backbone(tmp_path)
    (tmp_path / "backbone.json").write_text("{}")
    with pytest.raises(InputError, match="make it again"):
        load_backbone(tmp_path)


def test_the_sums_of_any_weights_are_exact() -> None:
    for seed in range(3):
        check_exact(make_backbone(random_state(seed), INPUT_PX))
