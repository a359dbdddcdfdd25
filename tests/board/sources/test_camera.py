"""The camera's thread and the light barrier, with a camera and a pin that fit their seams and obey the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from board.sources.barrier import MAX_WAITING, BarrierSource, LightBarrier
from board.sources.camera import MAX_SHOTS, CameraFeed, CameraSettings, CameraSource, open_camera
from protocol.errors import InputError, SourceError
from protocol.messages import Frame

FPS = 100
SETTINGS = CameraSettings(fps=FPS, reconnect_s=0.2)


class FakeCamera:
    """Exposes every 10 ms; each image is filled with its number. Out of order while `broken` is set."""

    def __init__(self) -> None:
        self.broken = threading.Event()
        self.opened = 0
        self.made = 0
        self.age_ns = 0  # by which its stamps are too old
        self.throws: Exception | None = None
        self.jpeg = b""  # given instead of pixels

    def open(self) -> FakeCamera:
        if self.broken.is_set():
            raise InputError("no camera at /dev/fake: plug one in")
        self.opened += 1
        return self

    def shoot(self) -> tuple[NDArray[np.uint8] | bytes, int] | None:
        exposed_ns = time.monotonic_ns() - self.age_ns
        time.sleep(1 / FPS)
        if self.throws:
            raise self.throws
        if self.jpeg:
            return self.jpeg, exposed_ns
        if self.broken.is_set():
            return None
        self.made += 1
        return np.full((4, 4, 3), self.made % 256, np.uint8), exposed_ns

    def close(self) -> None:
        pass


class FakePin:
    def __init__(self) -> None:
        self.level = 0
        self.trouble = ""
        self.released = False

    def read(self) -> int:
        if self.trouble:
            raise OSError(self.trouble)
        return self.level

    def release(self) -> None:
        self.released = True

    def pulse(self, high_s: float = 0.01, low_s: float = 0.03) -> None:
        time.sleep(low_s)
        self.level = 1
        time.sleep(high_s)
        self.level = 0


@pytest.fixture
def camera() -> FakeCamera:
    return FakeCamera()


@pytest.fixture
def feed(camera: FakeCamera) -> Iterator[CameraFeed]:
    feed = CameraFeed(camera.open, SETTINGS)
    yield feed
    feed.close()


@pytest.fixture
def pin() -> FakePin:
    return FakePin()


@pytest.fixture
def source(feed: CameraFeed, pin: FakePin) -> Iterator[BarrierSource]:
    source = BarrierSource(LightBarrier(pin), feed, frame_timeout_ms=100)
    yield source
    source.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def read_frame(source: BarrierSource | CameraSource) -> Frame:
    deadline_s = time.monotonic() + 5
    while (frame := source.read(0.05)) is None:
        assert time.monotonic() < deadline_s
    return frame


def read_for(source: BarrierSource | CameraSource, duration_s: float) -> None:
    deadline_s = time.monotonic() + duration_s
    while time.monotonic() < deadline_s:
        source.read(0.05)


@pytest.mark.parametrize("age_ns", [int(1.5e9), int(3e9), int(-60e9)], ids=["old", "older", "of another clock"])
def test_an_old_picture_is_never_a_parts_own(
    camera: FakeCamera, pin: FakePin, source: BarrierSource, feed: CameraFeed, age_ns: int
) -> None:
    camera.age_ns = age_ns
    wait_until(lambda: feed.stale_frames > 2)
    pin.pulse()
    frame = read_frame(source)
    assert frame.image is None
    assert frame.fault.startswith("the camera gave no frame within")
    complaint = feed.complaint()
    assert complaint is not None
    assert complaint.reason.startswith("the camera fails or its frames are old")


@pytest.mark.parametrize("error", [cv2.error("empty buffer"), ValueError("no bytes"), OSError("gone")])
def test_a_camera_that_throws_is_opened_again(camera: FakeCamera, feed: CameraFeed, error: Exception) -> None:
    camera.throws = error
    wait_until(lambda: camera.opened > 1)
    camera.throws = None
    assert read_frame(CameraSource(feed)).image is not None
    assert feed.counters()["camera_failed_reads"] >= 3
    assert feed.complaint() is not None


def test_a_cameras_own_jpeg_is_decoded_only_if_it_is_whole(camera: FakeCamera, feed: CameraFeed) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*SETTINGS.size_px, 3), np.uint8)
    whole = cv2.imencode(".jpg", image)[1].tobytes()
    source = CameraSource(feed)
    camera.jpeg = whole
    wait_until(lambda: (frame := read_frame(source)).image is not None and frame.image.shape == image.shape)
    for cut in (whole[: len(whole) // 2], whole[: len(whole) // 2] + b"\xff\xd9", b"", b"nothing"):
        camera.jpeg = cut or b"\0"
        wait_until(lambda: read_frame(source).fault.startswith("corrupt frame: JPEG"))


def test_frames_of_a_free_running_camera_are_counted(feed: CameraFeed) -> None:
    source = CameraSource(feed)
    frames = [read_frame(source) for _ in range(5)]
    assert [frame.trigger.part_id for frame in frames] == [0, 1, 2, 3, 4]
    assert [int(frame.image[0, 0, 0]) for frame in frames if frame.image is not None] == [1, 2, 3, 4, 5]
    times = [frame.trigger.t_ns for frame in frames]
    assert times == sorted(times)


def test_a_slow_reader_sees_a_gap_in_the_count_and_no_old_frames(camera: FakeCamera, feed: CameraFeed) -> None:
    source = CameraSource(feed)
    wait_until(lambda: camera.made > 3 * MAX_SHOTS)
    assert read_frame(source).trigger.part_id >= 2 * MAX_SHOTS - 1


def test_a_camera_that_fails_is_opened_again(camera: FakeCamera, feed: CameraFeed) -> None:
    source = CameraSource(feed)
    before = read_frame(source)
    camera.broken.set()
    wait_until(lambda: source.read(0.02) is None)
    time.sleep(0.05)
    camera.broken.clear()
    after = read_frame(source)
    wait_until(lambda: camera.opened == 2)
    assert after.trigger.run == before.trigger.run
    assert after.trigger.part_id > before.trigger.part_id


def test_a_camera_that_stays_away_stops_the_line(camera: FakeCamera, feed: CameraFeed) -> None:
    camera.broken.set()
    with pytest.raises(SourceError, match=r"did not come back within 0\.2 s \(no camera at /dev/fake.*check its cable"):
        read_for(CameraSource(feed), 5)


def test_each_part_gets_the_first_frame_exposed_after_its_edge(source: BarrierSource, pin: FakePin) -> None:
    for part_id in range(5):
        before_ns = time.monotonic_ns()
        pin.pulse()
        frame = read_frame(source)
        assert (frame.trigger.part_id, frame.fault) == (part_id, "")
        assert before_ns < frame.trigger.t_ns < time.monotonic_ns()
        assert frame.image is not None


def test_the_frame_is_never_one_exposed_before_the_edge(feed: CameraFeed) -> None:
    for _ in range(20):
        t_ns = time.monotonic_ns()
        shot = feed.first_after(t_ns, t_ns + 1_000_000_000)
        assert shot is not None
        assert t_ns <= shot.exposed_ns < t_ns + 500_000_000


def test_two_parts_may_share_a_frame(feed: CameraFeed) -> None:
    t_ns = time.monotonic_ns()
    first = feed.first_after(t_ns, t_ns + 1_000_000_000)
    assert first is feed.first_after(t_ns + 1, t_ns + 1_000_000_000)


def test_parts_during_an_outage_are_faults_and_the_line_goes_on(
    camera: FakeCamera, source: BarrierSource, pin: FakePin
) -> None:
    pin.pulse()
    assert read_frame(source).image is not None
    camera.broken.set()
    time.sleep(0.03)
    pin.pulse()
    lost = read_frame(source)
    assert (lost.image, lost.fault) == (None, "the camera gave no frame within 100 ms")
    camera.broken.clear()
    wait_until(lambda: camera.opened == 2)
    pin.pulse()
    after = read_frame(source)
    assert (after.trigger.part_id, after.fault) == (2, "")


def test_a_read_keeps_its_timeout_while_a_frame_is_awaited(
    camera: FakeCamera, source: BarrierSource, pin: FakePin
) -> None:
    camera.broken.set()
    pin.pulse()
    started_s = time.monotonic()
    assert source.read(0.01) is None
    assert time.monotonic() - started_s < 0.09


def test_a_bouncing_edge_is_one_part(source: BarrierSource, pin: FakePin) -> None:
    time.sleep(0.03)
    for level in (1, 0, 1, 0, 1):
        pin.level = level
        time.sleep(0.0012)
    assert read_frame(source).trigger.part_id == 0
    assert source.read(0.05) is None


def test_a_beam_that_is_broken_at_the_start_is_no_part(pin: FakePin) -> None:
    pin.level = 1
    barrier = LightBarrier(pin)
    assert barrier.next(0.05) is None
    pin.level = 0
    pin.pulse()
    trigger = barrier.next(1.0)
    assert trigger is not None
    assert trigger.part_id == 0
    barrier.close()
    assert pin.released


def test_parts_beyond_the_queue_come_as_faults(feed: CameraFeed) -> None:
    class Rattling(FakePin):
        """Five polls clear, one broken, for 300 parts."""

        polls = 0

        def read(self) -> int:
            self.polls += 1
            return int(self.polls % 6 == 0 and self.polls < 6 * 300)

    rattling = Rattling()
    source = BarrierSource(LightBarrier(rattling), feed, frame_timeout_ms=100)
    wait_until(lambda: rattling.polls > 6 * 300)
    frames = [read_frame(source) for _ in range(MAX_WAITING)]
    rattling.polls = 6 * 298
    frames += [read_frame(source) for _ in range(300 - MAX_WAITING)]
    source.close()
    assert [frame.trigger.part_id for frame in frames] == list(range(300))
    assert {frame.fault for frame in frames[MAX_WAITING:-1]} == {"too many parts waited for the line"}


def test_a_pin_that_cannot_be_read_stops_the_line(source: BarrierSource, pin: FakePin) -> None:
    pin.trouble = "No such device"
    with pytest.raises(SourceError, match=r"light barrier cannot be read \(No such device\): check its pin"):
        read_for(source, 5)


def test_an_absent_camera_is_named() -> None:
    with pytest.raises(InputError, match="no camera at /dev/video-absent: plug one in, or correct"):
        open_camera(CameraSettings(device="/dev/video-absent"))
