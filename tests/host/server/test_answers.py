"""A board gets the integer truth, bit for bit, whichever way its picture travels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from board.engines.onnx_runtime import OnnxRuntimeEngine
from board.preprocess import preprocess
from protocol.detection import Answer, Pong, Refusal
from protocol.manifest import MODEL_ONNX, Package
from protocol.pictures.reader import rgb
from tests.host.server.running import Board, Server, grey, is_grey, until


def noise(seed: int, side: int = 128) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def test_the_golden_maps_come_back(board: Board, trivial_package: Package) -> None:
    golden = trivial_package.load_golden()
    for image, frame, expected in zip(golden.images, golden.frames, golden.maps, strict=True):
        assert np.array_equal(board.ask(image), expected)
        assert np.array_equal(board.ask(frame, content="frame"), expected)


def test_every_picture_of_many_gets_its_own_map(board: Board, trivial_package: Package) -> None:
    engine = OnnxRuntimeEngine(trivial_package.path(MODEL_ONNX), 1)
    numbers = {board.send(noise(seed)): seed for seed in range(8)}
    for _ in range(8):
        reply, anomaly = board.receive()
        assert isinstance(reply, Answer)
        assert anomaly is not None
        assert np.array_equal(anomaly, engine.infer(noise(numbers.pop(reply.id))))
    engine.close()


def test_a_jpeg_frame_is_decoded_and_preprocessed(board: Board, trivial_package: Package) -> None:
    frame = cv2.GaussianBlur(noise(1, 256), (9, 9), 3)
    _, jpeg = cv2.imencode(".jpg", frame)
    decoded = rgb(np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)))
    engine = OnnxRuntimeEngine(trivial_package.path(MODEL_ONNX), 1)
    expected = engine.infer(preprocess(decoded, trivial_package.manifest.preprocess))
    engine.close()
    assert np.array_equal(board.ask(jpeg, content="frame", encoding="jpeg", shape=(256, 256)), expected)


def test_the_board_learns_which_file_spoke(board: Board, trivial_package: Package) -> None:
    sha256 = trivial_package.manifest.files[MODEL_ONNX]
    board.send(grey(7), model_sha256=sha256)
    reply, anomaly = board.receive()
    assert isinstance(reply, Answer)
    assert reply.model_sha256 == sha256
    assert anomaly is not None
    assert is_grey(anomaly, 7)


def test_a_ping_says_whether_the_model_is_ready(board: Board) -> None:
    assert board.pings("trivial") == Pong(board_number(board) - 1, ready=True)
    refusal = board.pings("nothing")
    assert isinstance(refusal, Refusal)
    assert refusal.code == "unknown-model"


def board_number(board: Board) -> int:
    return next(board.numbers)


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/", 404)])
def test_the_plant_can_ask_how_the_server_is(server: Server, path: str, status: int) -> None:
    assert server.get(path)[0] == status


def test_answers_are_counted(server: Server, board: Board) -> None:
    before = server.metric('beltsight_replies_total{outcome="answered"}')
    board.ask(grey(1))
    assert server.metric('beltsight_replies_total{outcome="answered"}') == before + 1
    until(lambda: server.metric("beltsight_workers ") == 2)
