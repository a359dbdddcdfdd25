"""What the belt sends, received on a real socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
import pytest

from protocol.errors import InputError
from protocol.messages import Trigger
from protocol.sockets import Socket, open_socket
from protocol.wire import EndOfRun, FrameMessage, Message, Motion, Passage, decode_message
from sim.drawing import DRAWN_AHEAD, Drawer, Exposure, mark, repeat
from sim.faults import END_MARKER, QUALITY, CameraFaults
from sim.feed import Feed, Journey
from sim.motion import BeltMotion, Stop
from sim.sensors import Sensors
from sim.station import LOOPBACK, free_port

PARTS = 6
PITCH_MM = 250.0  # at 5 m/s a part every 50 ms


def draw(number: int) -> Exposure:
    return Exposure(number, np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8), {})


def plan(*, has_encoder: bool = False, stops: tuple[Stop, ...] = ()) -> Journey:
    centres_mm = [number * PITCH_MM for number in range(PARTS)]
    sensors = Sensors(BeltMotion(5000.0, stops), centres_mm, None if has_encoder else 260.0, 300.0, has_encoder)
    return Journey(draw, PARTS, sensors, sensors.exposures_s)


@pytest.fixture
def board() -> Iterator[tuple[Socket, str]]:
    endpoint = f"tcp://{LOOPBACK}:{free_port()}"
    socket = open_socket("PULL", endpoint, bind=True, high_water_mark=1000)
    yield socket, endpoint
    socket.close(0)


def receive(board: tuple[Socket, str], journey: Journey, faults: CameraFaults | None = None) -> list[Message]:
    """All that a run sends, in order."""
    socket, endpoint = board
    feed = Feed(endpoint, "run", triggered=True, faults=faults)
    messages: list[Message] = []
    try:
        feed.start(journey)
        until_s = time.monotonic() + 10
        while (not feed.finished.is_set() or socket.poll(100)) and time.monotonic() < until_s:
            if socket.poll(20):
                messages.append(decode_message(socket.recv_multipart()))
        assert feed.error is None
    finally:
        feed.stop()
    return messages


def frames_of(messages: list[Message]) -> dict[int, FrameMessage]:
    return {m.header.trigger.part_id: m for m in messages if isinstance(m, FrameMessage)}


def test_parts_trigger_at_their_places_and_reach_the_second_barrier(board: tuple[Socket, str]) -> None:
    messages = receive(board, plan(stops=(Stop(400.0, 0.1),)))
    triggers = [m for m in messages if isinstance(m, Trigger)]
    passages = [m for m in messages if isinstance(m, Passage)]
    assert [t.part_id for t in triggers] == list(range(PARTS))
    after_ms = [(t.t_ns - triggers[0].t_ns) / 1e6 for t in triggers]
    assert after_ms == pytest.approx([0, 50, 200, 250, 300, 350], abs=0.01)  # the belt stood before part 2
    travelled_ms = [(p.t_ns - t.t_ns) / 1e6 for t, p in zip(triggers, passages, strict=True)]
    assert travelled_ms == pytest.approx([52, 152, 52, 52, 52, 52], abs=0.01)
    assert sum(isinstance(m, EndOfRun) for m in messages) == 1
    assert not any(isinstance(m, Motion) for m in messages)
    assert {t.position_um for t in triggers} == {None}
    assert set(frames_of(messages)) == set(range(PARTS))
    assert all(frames_of(messages)[t.part_id].header.trigger == t for t in triggers)


def test_an_encoder_is_read_in_order_with_the_triggers(board: tuple[Socket, str]) -> None:
    messages = receive(board, plan(has_encoder=True))
    told = [m for m in messages if isinstance(m, (Trigger, Motion))]
    assert all(before.t_ns <= after.t_ns for before, after in pairwise(told))
    assert [m.position_um for m in told if isinstance(m, Trigger)] == [250_000 * n for n in range(PARTS)]
    positions_um = [m.position_um for m in told if isinstance(m, Motion)]
    assert positions_um == sorted(positions_um)
    assert positions_um[-1] > 250_000 * (PARTS - 1) + 300_000  # until the last part has left the gate
    assert not any(isinstance(m, Passage) for m in messages)


def test_a_frozen_camera_repeats_its_picture(board: tuple[Socket, str]) -> None:
    frames = frames_of(receive(board, plan(), CameraFaults(frozen_after=3)))
    pixels = [bytes(frames[number].pixels) for number in range(PARTS)]
    assert len(set(pixels)) == 3
    assert set(pixels[2:]) == {pixels[2]}


def test_late_frames_leave_late_and_triggers_do_not(board: tuple[Socket, str]) -> None:
    faults = CameraFaults(late_share=0.5, seed=2)
    late = {number for number in range(PARTS) if faults.late_s(number)}
    assert 0 < len(late) < PARTS
    order = [
        ("trigger", m.part_id) if isinstance(m, Trigger) else ("frame", m.header.trigger.part_id)
        for m in receive(board, plan(), faults)
        if isinstance(m, (Trigger, FrameMessage))
    ]
    assert [number for what, number in order if what == "trigger"] == list(range(PARTS))
    for number in range(PARTS - 1):
        is_behind = order.index(("frame", number)) > order.index(("trigger", number + 1))
        assert is_behind == (number in late)  # 0.1 s and more, with a part every 50 ms


def test_cut_pictures_lack_their_end(board: tuple[Socket, str]) -> None:
    frames = frames_of(receive(board, plan(), CameraFaults(cut_share=1.0, seed=1)))
    assert {frame.header.encoding for frame in frames.values()} == {"jpeg"}
    for number, frame in frames.items():
        whole = cv2.imencode(".jpg", draw(number).image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        kept = bytes(frame.pixels).removesuffix(END_MARKER)
        assert whole.startswith(kept)
        assert len(kept) < 0.9 * len(whole)
    ends = [bytes(frame.pixels).endswith(END_MARKER) for frame in frames.values()]
    assert {True, False} == set(ends)


def test_a_drawer_stays_a_few_ahead_and_skips_what_is_past() -> None:
    drawn = []
    drawer = Drawer(lambda number: drawn.append(number) or draw(number), 1000, skips=True)  # type: ignore[func-returns-value]
    try:
        assert drawer.is_ahead(5)
        assert drawn == list(range(DRAWN_AHEAD))
        drawer.expose(100)
        assert drawer.take(100, 5) is not None
        assert drawer.take(50) is None
        assert 50 not in drawn
    finally:
        drawer.close()


def test_what_cannot_be_drawn_is_told_whoever_takes_it() -> None:
    def refuse(number: int) -> Exposure:
        if number == 1:
            raise InputError("no picture")
        return draw(number)

    drawer = Drawer(refuse, 9, skips=False)
    try:
        assert drawer.take(0, 5) is not None
        with pytest.raises(InputError, match="no picture"):
            drawer.take(1, 5)
    finally:
        drawer.close()


def test_distinct_frames_come_again_under_new_numbers() -> None:
    again = repeat(draw, 3)
    assert again(7).number == 7
    assert again(7).image is again(1).image
    first, second = (mark(again(number), 3).image for number in (1, 7))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, again(1).image)
    assert np.array_equal(first[1:], second[1:])
