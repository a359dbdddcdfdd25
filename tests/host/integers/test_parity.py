"""One integer truth: torch, NumPy, ONNX Runtime, OpenCV and qonnx give the same integers, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from board.preprocess import as_input
from host.integers.arithmetic import MAP, Conv, IntegerNet, NotExactError, check_exact
from host.integers.carried import write_carried
from host.integers.parity import check_parity, run_numpy, run_onnxruntime, run_opencv, run_qonnx
from host.integers.qdq import write_qdq
from host.integers.qonnx_graph import write_qonnx
from host.learning.training import infer
from tests.armhf.networks import random_late_net
from tests.host.conftest import Trained
from tests.host.random_nets import random_net

LEVELS = [
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
]
Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def reference(trained: Trained, images: Images) -> NDArray[np.int8]:
    maps = run_numpy(trained.integers, images)
    assert len(images) >= 200
    assert len(np.unique(maps)) > 20  # a dull map would prove little
    return maps


def test_torch(trained: Trained, images: Images, reference: NDArray[np.int8]) -> None:
    scale = 2.0 ** trained.integers.exponents()[MAP]
    assert np.array_equal(infer(trained.quantized, images) / scale, reference)


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_onnxruntime(
    trained: Trained,
    images: Images,
    reference: NDArray[np.int8],
    level: onnxruntime.GraphOptimizationLevel,
) -> None:
    assert np.array_equal(run_onnxruntime(write_qdq(trained.integers), images, level), reference)


def test_opencv(trained: Trained, images: Images, reference: NDArray[np.int8]) -> None:
    assert np.array_equal(run_opencv(write_carried(trained.integers), images), reference)


def test_qonnx(trained: Trained, images: Images, reference: NDArray[np.int8]) -> None:
    """On every sixth image and the flat ones, as it takes its time."""
    some = [*range(0, len(images) - 2, 6), -2, -1]
    answer = run_qonnx(write_qonnx(trained.integers), trained.integers, images[some])
    assert np.array_equal(answer, reference[some])


@pytest.mark.parametrize("write", [write_qdq, write_carried, write_qonnx])
def test_the_same_integers_make_the_same_file(write: Callable[[IntegerNet], ModelProto], trained: Trained) -> None:
    once, again = (write(trained.integers).SerializeToString(deterministic=True) for _ in range(2))
    assert once == again


@pytest.mark.parametrize("seed", range(6))
def test_random_networks(seed: int) -> None:
    """They saturate and meet many ties."""
    net = random_net(seed)
    check_exact(net)
    images = np.random.default_rng(seed).integers(0, 256, (8, 32, 32, 3), np.uint8)
    expected = run_numpy(net, images)
    assert len(np.unique(expected)) > 60
    for level in LEVELS:
        assert np.array_equal(run_onnxruntime(write_qdq(net), images, level), expected)
    assert np.array_equal(run_opencv(write_carried(net), images), expected)
    assert np.array_equal(run_qonnx(write_qonnx(net), net, images), expected)


@pytest.mark.parametrize("seed", range(6))
def test_windows_that_start_late_and_largest_channels(seed: int) -> None:
    net = random_late_net(seed)
    check_exact(net)
    images = np.random.default_rng(seed).integers(0, 256, (4, *net.input_px, 3), np.uint8)
    expected = run_numpy(net, images)
    for level in LEVELS:
        assert np.array_equal(run_onnxruntime(write_qdq(net), images, level), expected)
    assert np.array_equal(run_opencv(write_carried(net), images), expected)
    assert np.array_equal(run_qonnx(write_qonnx(net), net, images), expected)


def test_batches_of_any_size(trained: Trained, images: Images, reference: NDArray[np.int8]) -> None:
    session = onnxruntime.InferenceSession(write_qdq(trained.integers).SerializeToString())
    batch = np.concatenate([as_input(image) for image in images[:5]])
    assert np.array_equal(session.run(["map"], {"image": batch})[0][:, 0], reference[:5])


def test_one_wrong_shift_is_seen(trained: Trained, images: Images) -> None:
    wrong = _with_shifted_channel(trained.integers)
    answers = {"ONNX Runtime": run_onnxruntime(write_qdq(wrong), images[:20])}
    with pytest.raises(NotExactError, match="ONNX Runtime differs from the integer reference in"):
        check_parity(run_numpy(trained.integers, images[:20]), answers)


def test_threads_of_torch_do_not_matter(trained: Trained, images: Images) -> None:
    """Sums below 2^24 are exact in any order."""
    once = infer(trained.quantized, images[:8])
    torch.set_num_threads(2)
    twice = infer(trained.quantized, images[:8])
    torch.set_num_threads(1)
    assert np.array_equal(once, twice)


def _with_shifted_channel(net: IntegerNet) -> IntegerNet:
    """The stem's first channel twice as large."""
    stem = net.layers[0]
    assert isinstance(stem, Conv)
    exponents = stem.weight_exponents.copy()
    exponents[0] += 1
    return replace(net, layers=(replace(stem, weight_exponents=exponents), *net.layers[1:]))
