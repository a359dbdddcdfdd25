"""Whatever a board sends, it gets a typed refusal that is counted, and the server goes on."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from protocol.detection import RefusalCode, Request, encode
from protocol.wire import MAX_HEADER_BYTES
from tests.host.server.running import Board, Server, grey, is_grey

PIXELS = bytes(128 * 128 * 3)
FRAME = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
JPEG = cv2.imencode(".jpg", cv2.GaussianBlur(FRAME, (9, 9), 3))[1].tobytes()


def request(**changes: object) -> bytes:
    """An encoded Request with fields that its class would refuse."""
    good = encode(Request(1, "trivial", 5000.0, (128, 128)))
    return good[:4] + json.dumps(json.loads(good[4:]) | changes).encode()


def jpeg_request(height: int = 256, width: int = 256) -> bytes:
    return request(content="frame", encoding="jpeg", shape=[height, width])


def claim_size(data: bytes, height: int, width: int) -> bytes:
    """The same JPEG with another size in its frame header."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 9 :]


BAD: dict[str, tuple[RefusalCode, list[bytes]]] = {
    "nothing": ("bad-message", [b""]),
    "garbage": ("bad-message", [b"\xff" * 100]),
    "garbage in two parts": ("bad-message", [b"GET / HTTP/1.1", b"\r\n\r\n"]),
    "many parts": ("bad-message", [request(), PIXELS, PIXELS]),
    "no pixels": ("bad-message", [request()]),
    "another version": ("bad-message", [b"BS\x02" + request()[3:], PIXELS]),
    "a message of the belt": ("bad-message", [b"BS\x01\x02{}", PIXELS]),
    "an answer": ("bad-message", [b"BS\x01\x12{}", PIXELS]),
    "header too long": ("bad-message", [request(model="m" * MAX_HEADER_BYTES), PIXELS]),
    "name too long": ("bad-message", [request(model="m" * 65), PIXELS]),
    "not JSON": ("bad-message", [request()[:-1], PIXELS]),
    "deep JSON": ("bad-message", [b"BS\x01\x10" + b"[" * 4000, PIXELS]),
    "unknown key": ("bad-message", [request(gpu=True), PIXELS]),
    "no time left": ("bad-message", [request(deadline_ms=0), PIXELS]),
    "endless deadline": ("bad-message", [request(deadline_ms=1e300), PIXELS]),
    "number 0": ("bad-message", [request(id=0), PIXELS]),
    "negative sides": ("bad-message", [request(shape=[-128, -128]), PIXELS]),
    "huge sides": ("bad-message", [request(shape=[1 << 40, 1 << 40]), PIXELS]),
    "pixels with a ping": ("bad-message", [b'BS\x01\x11{"id":1,"model":"trivial"}', PIXELS]),
    "unknown model": ("unknown-model", [request(model="nothing"), PIXELS]),
    "a path as a model": ("unknown-model", [request(model="../trivial"), PIXELS]),
    "another file of that name": ("other-model", [request(model_sha256="0" * 64), PIXELS]),
    "another size": ("wrong-size", [request(shape=[64, 64]), bytes(64 * 64 * 3)]),
    "header lies about the shape": ("wrong-size", [request(), PIXELS[:-1]]),
    "pixels too many": ("wrong-size", [request(), bytes(20 << 20)]),
    "image for a frame": ("wrong-size", [request(content="frame"), PIXELS]),
    "JPEG is none": ("wrong-size", [jpeg_request(), b"no picture"]),
    "JPEG of another size": ("wrong-size", [jpeg_request(), cv2.imencode(".jpg", FRAME[:128])[1].tobytes()]),
    "JPEG bomb": ("wrong-size", [jpeg_request(), claim_size(JPEG, 65000, 65000)]),
    "JPEG bomb, declared": ("wrong-size", [jpeg_request(4096, 4096), claim_size(JPEG, 4096, 4096)]),
    "JPEG longer than the picture": ("wrong-size", [jpeg_request(), JPEG + bytes(256 * 256 * 3)]),
    "JPEG without its data": ("undecodable", [jpeg_request(), JPEG[: JPEG.index(b"\xff\xda")]]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_typed_refusal_and_is_counted(name: str, server: Server, board: Board) -> None:
    code, parts = BAD[name]
    label = "refused by worker" if code == "undecodable" else code
    before = server.metric(f'beltsight_replies_total{{outcome="{label}"}}')
    board.send_bytes(*parts)
    refusal = board.is_refused()
    assert (refusal.code, refusal.id) == (code, 0 if code == "bad-message" else 1)
    assert refusal.text
    assert server.metric(f'beltsight_replies_total{{outcome="{label}"}}') == before + 1
    assert is_grey(board.ask(grey(9), id=2), 9)


def test_of_two_requests_with_equal_headers_only_the_broken_one_is_refused(server: Server) -> None:
    """They come from two boards, and may be judged in one batch."""
    for _ in range(10):
        with Board(server.endpoint) as one, Board(server.endpoint) as other:
            one.send_bytes(jpeg_request(), BAD["JPEG without its data"][1][1])
            other.send_bytes(jpeg_request(), JPEG)
            assert one.is_refused().code == "undecodable"
            assert other.receive()[1] is not None


def test_garbage_without_end_takes_no_memory(server: Server) -> None:
    before_mb = server.resident_mb()
    with Board(server.endpoint) as board:
        for _ in range(20):
            for name in ("garbage", "pixels too many", "JPEG bomb", "another size"):
                board.send_bytes(*BAD[name][1])
                board.is_refused()
    assert server.resident_mb() - before_mb < 60, "400 MB of pixels went by"
