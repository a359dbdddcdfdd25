"""The detector: its layers give the distances that are written down in NumPy, and a defect lies far from all."""

from __future__ import annotations

import numpy as np
import pytest

from board.overlay.golden import run_program
from board.preprocess import as_input
from host.compiler.compilation import compile_net
from host.integers.arithmetic import IntegerNet, run, run_all
from host.integers.carried import write_carried
from host.integers.parity import features_numpy, run_numpy, run_onnxruntime, run_opencv, run_qonnx
from host.integers.qdq import write_qdq
from host.integers.qonnx_graph import write_qonnx
from host.pictures.reading import Images
from host.teaching.backbone import FEATURE_EXPONENT, make_backbone
from host.teaching.detector import (
    FEATURES,
    WHITE,
    Taught,
    choose_bank,
    estimate_half_squares,
    half_distances,
    half_squares,
    make_detector,
    teach,
    to_map,
    whiten,
)
from host.teaching.make_backbone import draw_proof
from tests.host.teaching.weights import random_state

PICTURES = 6


def draw_images() -> Images:
    rng = np.random.default_rng(1)
    scene = draw_proof(32)[0].astype(np.int16)
    noisy: Images = (scene + rng.integers(-12, 13, (PICTURES, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    return noisy


@pytest.fixture(scope="module")
def backbone() -> IntegerNet:
    return make_backbone(random_state(), 32)


@pytest.fixture(scope="module")
def taught(backbone: IntegerNet) -> Taught:
    return teach(features_numpy(backbone, draw_images()), FEATURE_EXPONENT, np.random.default_rng(0))[0]


@pytest.fixture(scope="module")
def detector(backbone: IntegerNet, taught: Taught) -> IntegerNet:
    return make_detector(backbone, taught)


def test_layers_give_the_distances(detector: IntegerNet, taught: Taught) -> None:
    for image in [*draw_images()[:1], *draw_proof(32)]:
        tensors = run_all(detector, as_input(image)[0])
        vectors = tensors[WHITE].reshape(len(tensors[WHITE]), -1).T
        expected = to_map(half_distances(vectors, taught.bank), taught)
        assert np.array_equal(tensors["map"].ravel(), expected)


def test_every_engine_agrees(detector: IntegerNet) -> None:
    images = np.concatenate([draw_images()[:1], draw_proof(32)])
    expected = run_numpy(detector, images)
    assert np.array_equal(run_onnxruntime(write_qdq(detector), images), expected)
    assert np.array_equal(run_opencv(write_carried(detector), images), expected)
    assert np.array_equal(run_qonnx(write_qonnx(detector), detector, images), expected)
    program = compile_net(detector).program
    assert np.array_equal(np.stack([run_program(program, image)[0] for image in images]), expected)


def test_what_was_never_seen_lies_far(detector: IntegerNet) -> None:
    good, strange = draw_images()[0], draw_proof(32)[2]
    assert run(detector, as_input(good)[0]).max() < 0 < run(detector, as_input(strange)[0]).max()


def test_distances_are_those_of_the_definition() -> None:
    """Straight lines lie above the parabola, at most by 128 for a channel, and 2 % of the largest digit below it."""
    rng = np.random.default_rng(0)
    vectors = rng.integers(-50, 51, (300, 80)).astype(np.int8)
    excess = estimate_half_squares(vectors) - half_squares(vectors)
    assert excess.min() >= 0
    assert excess.max() <= 80 * 128
    assert excess.std() < 0.02 * half_squares(vectors).mean()
    bank = vectors[:20]
    exact = ((vectors[:, np.newaxis].astype(int) - bank) ** 2).sum(axis=2).min(axis=1) / 2
    assert np.abs(half_distances(vectors, bank) - excess - exact).max() <= 1


def test_corners_of_int8_are_those_of_the_layers(backbone: IntegerNet, taught: Taught) -> None:
    corners = np.array([[-128] * 80, [127] * 80, [0] * 80, [-1, 1] * 40], np.int8)
    assert estimate_half_squares(corners)[2] == 0
    assert (estimate_half_squares(corners)[:2] == estimate_half_squares(corners)[:2].max()).all()
    assert FEATURES in make_detector(backbone, taught).exponents()


def test_the_bank_spreads_and_is_bounded() -> None:
    rng = np.random.default_rng(0)
    heap = rng.integers(-3, 4, (500, 80)).astype(np.int8)
    heap[7] = 100
    chosen = choose_bank(heap, 20, rng)
    assert len(chosen) == len(set(chosen.tolist())) == 20
    assert 7 in chosen
    assert choose_bank(heap, 600, rng).tolist() == list(range(500))


def test_a_picture_is_not_judged_by_itself(backbone: IntegerNet) -> None:
    images = draw_images()
    images[2] = draw_proof(32)[2]
    features = features_numpy(backbone, images)
    taught, maps = teach(features, FEATURE_EXPONENT, np.random.default_rng(0))
    vectors = whiten(features[2].reshape(len(features[2]), -1).T, taught.white, FEATURE_EXPONENT)
    with_itself = to_map(half_distances(vectors, taught.bank), taught)
    assert (with_itself < maps[2].ravel()).all()
