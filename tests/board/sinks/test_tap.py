"""Who looks on sees frame, map and verdict bit for bit; who is slow misses some, and the line does not wait."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from board.sinks.tap import TapSettings, TapSink
from protocol.errors import InputError
from protocol.messages import Frame, Trigger, Verdict, decode_verdict
from protocol.sockets import Socket, open_socket

WITHIN_S = 5.0
SCALE = 2.0**-7


@pytest.fixture
def tap(endpoint: str) -> Iterator[TapSink]:
    sink = TapSink(TapSettings(endpoint, queue_parts=4), lambda: SCALE)
    yield sink
    sink.close()


@pytest.fixture
def looker_on(tap: TapSink, endpoint: str, verdict: Verdict) -> Iterator[Socket]:
    """Subscribed: what was published until then is not for it."""
    with open_socket("SUB", endpoint, bind=False, high_water_mark=4, timeout_ms=int(WITHIN_S * 1e3)) as socket:
        deadline_s = time.monotonic() + WITHIN_S
        while not socket.poll(10):
            assert time.monotonic() < deadline_s
            tap.publish(lost(), verdict, None)
        while socket.poll(50):
            socket.recv_multipart()
        yield socket


def lost() -> Frame:
    return Frame(Trigger("run", 0, 0, ""), None, "frame lost")


def noise_frame() -> Frame:
    image = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    return Frame(Trigger("run", 7, 0, ""), image[:, ::-1])


def receive(socket: Socket) -> tuple[dict[str, Any], Verdict, bytes, NDArray[np.int8]]:
    name, head, verdict, pixels, anomaly = socket.recv_multipart()
    assert name == b"part"
    described = json.loads(head)
    shown = np.frombuffer(anomaly, np.int8).reshape(described["map_shape"])
    return described, decode_verdict(verdict), pixels, shown


def test_frame_map_and_verdict_arrive_bit_for_bit(tap: TapSink, looker_on: Socket, verdict: Verdict) -> None:
    frame, anomaly = noise_frame(), np.arange(-6, 6, dtype=np.int8).reshape(3, 4).T
    tap.publish(frame, verdict, anomaly)
    head, seen, pixels, shown = receive(looker_on)
    assert frame.image is not None
    assert (head["shape"], head["map_scale"]) == ([6, 8], SCALE)
    assert np.array_equal(np.frombuffer(pixels, np.uint8).reshape(6, 8, 3), frame.image)
    assert np.array_equal(shown, anomaly)
    assert seen == verdict


def test_a_lost_frame_is_shown_without_pixels(tap: TapSink, looker_on: Socket, verdict: Verdict) -> None:
    tap.publish(lost(), replace(verdict, decision="UNKNOWN", score=None), None)
    head, seen, pixels, shown = receive(looker_on)
    assert (head["shape"], head["map_shape"], pixels, shown.size) == ([0, 0], [0, 0], b"", 0)
    assert seen.decision == "UNKNOWN"


def test_a_slow_looker_on_misses_parts_and_sees_how_many(tap: TapSink, looker_on: Socket, verdict: Verdict) -> None:
    """1.5 GB would have to wait somewhere if the tap did not drop."""
    frame = Frame(Trigger("run", 0, 0, ""), np.zeros((500, 1000, 3), np.uint8))
    count, started_s = 1000, time.monotonic()
    for _ in range(count):
        tap.publish(frame, verdict, None)
    assert time.monotonic() - started_s < WITHIN_S
    seqs = []
    while looker_on.poll(100):
        seqs.append(receive(looker_on)[0]["seq"])
    assert seqs == sorted(set(seqs))
    assert 0 < len(seqs) < count


def test_a_looker_on_that_vanishes_changes_nothing(tap: TapSink, looker_on: Socket, verdict: Verdict) -> None:
    looker_on.close(0)
    for _ in range(20):
        tap.publish(noise_frame(), verdict, None)


def test_a_taken_port_says_what_to_do(tap: TapSink, endpoint: str) -> None:
    assert tap
    with pytest.raises(InputError, match="is taken: stop the process that holds it, or choose another port"):
        TapSink(TapSettings(endpoint), lambda: SCALE)
