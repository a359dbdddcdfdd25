"""The detector as a network: its layers give the same integers as the board's NumPy, on every engine."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from board.overlay.golden import run_program
from board.preprocess import as_input
from board.teaching.lesson import Lesson, learn
from board.teaching.whitening import FEATURE_EXPONENT
from host.compiler.compilation import compile_net
from host.integers.arithmetic import IntegerNet, run_all
from host.integers.carried import write_carried
from host.integers.parity import features_numpy, run_numpy, run_onnxruntime, run_opencv, run_qonnx
from host.integers.qdq import write_qdq
from host.integers.qonnx_graph import write_qonnx
from host.pictures.reading import Images
from host.teaching.backbone import make_backbone
from host.teaching.detector import FEATURES, WHITE, make_detector
from tests.host.teaching.goods import draw_noise, draw_scenes
from tests.host.teaching.weights import random_state

PICTURES = 6


def draw_images() -> Images:
    return np.stack([cv2.resize(scene, (32, 32), interpolation=cv2.INTER_AREA) for scene in draw_scenes(PICTURES)])


@pytest.fixture(scope="module")
def backbone() -> IntegerNet:
    return make_backbone(random_state(), 32)


@pytest.fixture(scope="module")
def lesson(backbone: IntegerNet) -> Lesson:
    return learn(features_numpy(backbone, draw_images()), FEATURE_EXPONENT, np.random.default_rng(0))


@pytest.fixture(scope="module")
def detector(backbone: IntegerNet, lesson: Lesson) -> IntegerNet:
    return make_detector(backbone, lesson.detector)


@pytest.fixture(scope="module")
def images() -> Images:
    return np.stack([draw_images()[0], draw_noise()[:32, :32]])


def test_layers_give_the_boards_integers(detector: IntegerNet, lesson: Lesson, images: Images) -> None:
    for image in images:
        tensors = run_all(detector, as_input(image)[0])
        features = tensors[FEATURES]
        white = lesson.detector.bank.white.apply(features.reshape(len(features), -1).T)
        assert np.array_equal(tensors[WHITE].reshape(len(tensors[WHITE]), -1).T, white)
        assert np.array_equal(tensors["map"], lesson.detector.judge(features[np.newaxis]))
    assert tensors["map"].min() > 0, "what was never seen lies far"


def test_every_engine_agrees(detector: IntegerNet, images: Images) -> None:
    expected = run_numpy(detector, images)
    assert np.array_equal(run_onnxruntime(write_qdq(detector), images), expected)
    assert np.array_equal(run_opencv(write_carried(detector), images), expected)
    assert np.array_equal(run_qonnx(write_qonnx(detector), detector, images), expected)
    program = compile_net(detector).program
    assert np.array_equal(np.stack([run_program(program, image)[0] for image in images]), expected)
