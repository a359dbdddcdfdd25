"""A USB camera through V4L2 and OpenCV: read by a thread, opened again when it fails.

It gives YUYV where it can, which the board converts in a fifth of the time that MJPEG takes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from board.condition import Complaint
from board.pictures import decode_pixels
from board.sources.v4l2 import (
    Control,
    fixed_exposure,
    fixed_focus,
    fixed_gain,
    fixed_white_balance,
    set_controls,
)
from board.sources.yuyv import YuyvReader
from protocol.errors import InputError, MessageError, SourceError
from protocol.messages import Frame, Trigger, clock_id, new_run
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervised, Supervisor
from protocol.units import NS_PER_MS, NS_PER_S

FORMATS = ("YUYV", "MJPG")  # the first that gives size and rate is taken
EXPOSURE_UNIT_NS = 100_000  # V4L2_CID_EXPOSURE_ABSOLUTE
MAX_FAILED_READS = 3
RETRY_S = 0.5
SILENT_S = 0.8  # a camera that gives nothing for so long beyond its rate has stalled
OPEN_WITHIN_S = 20.0  # OpenCV asks some cameras for a long time
CLOSE_WITHIN_S = 2.0
MAX_SHOTS = 8  # frames that wait for the line; older ones are dropped
MAX_AGE_NS = 1_000_000_000  # of a frame, beside its exposure
COMPLAIN_S = 10.0  # after a frame that failed


@dataclass(frozen=True)
class CameraSettings:
    device: str = "/dev/video0"
    size_px: tuple[int, int] = (480, 640)  # (height, width)
    fps: int = 30
    exposure: int = 0  # in the driver's unit of 100 µs; 0 leaves the camera's own control on
    white_balance_k: int = 0  # colour temperature of the light; 0 leaves the camera's own control on
    focus: int | None = None  # in the driver's unit; left out, the camera's own control stays on
    gain: int | None = None  # the same
    barrier: Literal["gpio", "timer"] = "gpio"  # timer: stamped by the overlay
    barrier_pin: int | None = None  # user GPIO number (EMIO) of the light barrier "gpio", for mode triggered
    barrier_filter_us: float = 500.0  # of the barrier "timer": shorter interruptions and gaps are none
    barrier_inverted: bool = False  # of the barrier "timer": its output is low while a part breaks the beam
    frame_timeout_ms: float = 200.0  # a part whose frame has not come by then is a fault, in mode triggered
    reconnect_s: float = 30.0  # how long a camera that failed is tried again before the line stops

    def __post_init__(self) -> None:
        require(1 <= self.fps <= 240, "fps", "must be 1..240")
        require(all(16 <= side <= 4096 for side in self.size_px), "size_px", "sides must be 16..4096")
        require(0 <= self.exposure <= 10_000, "exposure", "must be 0..10000")
        require(
            self.white_balance_k == 0 or 1000 <= self.white_balance_k <= 20_000,
            "white_balance_k",
            "must be 1000..20000",
        )
        require(0 < self.barrier_filter_us <= 1e6, "barrier_filter_us", "must be above 0 and at most 1000000")
        require(self.frame_timeout_ms > 0, "frame_timeout_ms", "must be above 0")
        require(self.reconnect_s >= 0, "reconnect_s", "must be 0 or more")

    def controls(self) -> list[Control]:
        """What is fixed, in the order in which it has to be set."""
        fixed = fixed_exposure(self.exposure) if self.exposure else []
        fixed += fixed_white_balance(self.white_balance_k) if self.white_balance_k else []
        fixed += [] if self.focus is None else fixed_focus(self.focus)
        return fixed + ([] if self.gain is None else fixed_gain(self.gain))


Picture = NDArray[np.uint8] | bytes  # (h, w, 3) RGB, or the camera's own JPEG


@dataclass(frozen=True, eq=False)
class Shot:
    picture: Picture
    size_px: tuple[int, int]  # (height, width) that it is to have
    exposed_ns: int  # monotonic: the exposure began at this time or later
    number: int  # counts the frames that the camera made, also those that nobody took and those lost in an outage

    def show(self, trigger: Trigger) -> Frame:
        """As the picture of a part; a JPEG is checked and decoded only now, for most are of no part."""
        if isinstance(self.picture, np.ndarray):
            return Frame(trigger, self.picture)
        started_ns = time.monotonic_ns()
        try:
            image = decode_pixels("jpeg", self.size_px, self.picture)
        except MessageError as error:
            return Frame(trigger, None, f"corrupt frame: {error}")
        return Frame(trigger, image, decode_ms=(time.monotonic_ns() - started_ns) / NS_PER_MS)


class Camera(Protocol):
    """An open camera; `V4l2Camera` is the real one."""

    def shoot(self) -> tuple[Picture, int] | None:
        """The next frame, and when its exposure began by the driver's stamp. Waits for it (OpenCV for up to 10 s);
        None when the camera failed."""

    def close(self) -> None: ...


class V4l2Camera:
    def __init__(self, capture: cv2.VideoCapture, exposure_ns: int, yuyv: YuyvReader | None) -> None:
        """`yuyv` reads the buffers, which are JPEGs without it."""
        self._capture = capture
        self._exposure_ns = exposure_ns
        self._yuyv = yuyv

    def shoot(self) -> tuple[Picture, int] | None:
        ok, taken = self._capture.read()
        if not ok:
            return None
        # V4L2's own stamp: monotonic, taken when the first bytes come, which is when the exposure has ended.
        exposed_ns = int(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6) - self._exposure_ns
        picture = self._yuyv.read(np.asarray(taken)) if self._yuyv else taken.tobytes()
        return None if picture is None else (picture, exposed_ns)

    def close(self) -> None:
        self._capture.release()


class CameraFeed:
    """The camera's frames as they come, in a thread of its own: a dead camera never holds up the line."""

    def __init__(
        self, open_it: Callable[[], Camera], settings: CameraSettings, supervisor: Supervisor = SUPERVISOR
    ) -> None:
        """Raises: InputError if the camera cannot be opened now."""
        self._open = open_it
        self._settings = settings
        self._camera: Camera | None = open_it()
        self._number = 0
        self._newest_ns = -1
        self.stale_frames = 0  # dropped: the stamp was old, or no time of this clock, or that of the frame before
        self.failed_reads = 0
        self._complain_until_s = -1.0
        self._shots: deque[Shot] = deque(maxlen=MAX_SHOTS)
        self._trouble = ""
        self._changed = threading.Condition()
        self._closing = threading.Event()
        # longer where frames come slower than that
        self._thread = supervisor.start("camera", self._run, silent_s=SILENT_S + 2 / settings.fps)

    def next(self, timeout_s: float) -> Shot | None:
        """The oldest frame that waits. Raises: SourceError when the camera is gone for good."""
        with self._changed:
            self._changed.wait_for(lambda: self._shots or self._trouble, timeout_s)
            if self._shots:
                return self._shots.popleft()
        self.check()
        return None

    def first_after(self, t_ns: int, deadline_ns: int) -> Shot | None:
        """The first frame whose exposure began at `t_ns` or later; it stays for other parts that it may show."""

        def has_come() -> bool:
            while self._shots and self._shots[0].exposed_ns < t_ns:
                self._shots.popleft()
            return bool(self._shots)

        with self._changed:
            self._changed.wait_for(has_come, max(0.0, (deadline_ns - time.monotonic_ns()) / NS_PER_S))
            return self._shots[0] if has_come() else None

    def check(self) -> None:
        """Raises: SourceError when the camera is gone for good."""
        if self._trouble:
            raise SourceError(self._trouble)

    def close(self) -> None:
        self._thread.stop(self._closing.set, CLOSE_WITHIN_S)

    def _run(self, supervised: Supervised) -> None:
        failed_reads = 0
        while self._camera and not self._closing.is_set():
            supervised.beat()
            taken = self._shoot(self._camera)
            if taken:
                failed_reads = 0
                self._add(*taken)
                continue
            failed_reads += 1
            self.failed_reads += 1
            self._complain()
            if failed_reads >= MAX_FAILED_READS:
                self._reconnect(supervised)
        if self._camera:
            self._camera.close()

    def _shoot(self, camera: Camera) -> tuple[Picture, int] | None:
        """subtle: OpenCV throws at an empty buffer; whatever it was, a camera that throws again is opened anew."""
        try:
            return camera.shoot()
        except (cv2.error, ValueError, TypeError, OSError):
            return None

    def _add(self, picture: Picture, exposed_ns: int) -> None:
        """subtle: a stamp that is not to be believed is never replaced: the picture may be from before the part."""
        age_ns = time.monotonic_ns() - exposed_ns
        is_new = exposed_ns > self._newest_ns and 0 <= age_ns < MAX_AGE_NS + self._settings.exposure * EXPOSURE_UNIT_NS
        with self._changed:
            if is_new:
                self._newest_ns = exposed_ns
                self._shots.append(Shot(picture, self._settings.size_px, exposed_ns, self._number))
            else:
                self.stale_frames += 1
                self._complain()
            self._number += 1
            self._changed.notify()

    def counters(self) -> dict[str, int]:
        return {"camera_stale_frames": self.stale_frames, "camera_failed_reads": self.failed_reads}

    def complaint(self) -> Complaint | None:
        if time.monotonic() >= self._complain_until_s:
            return None
        return Complaint("degraded", "the camera fails or its frames are old: check its cable, power and USB hub")

    def _complain(self) -> None:
        self._complain_until_s = time.monotonic() + COMPLAIN_S

    def _reconnect(self, supervised: Supervised) -> None:
        """Open the camera again, however often it takes; give up after `reconnect_s`."""
        since_s = time.monotonic()
        if self._camera:
            self._camera.close()
        self._camera = None
        while not self._camera and not self._closing.is_set():
            try:
                with supervised.busy(OPEN_WITHIN_S):
                    self._camera = self._open()
            except (InputError, cv2.error) as error:
                if time.monotonic() - since_s > self._settings.reconnect_s:
                    supervised.let_end()  # the line ends with the words below
                    self._give_up(str(error))
                    return
                self._closing.wait(RETRY_S)
        self._number += round((time.monotonic() - since_s) * self._settings.fps)

    def _give_up(self, why: str) -> None:
        device, tried_s = self._settings.device, self._settings.reconnect_s
        with self._changed:
            self._trouble = (
                f"camera {device} stopped and did not come back within {tried_s:g} s ({why}): "
                "check its cable and power, then start again"
            )
            self._changed.notify()


class CameraSource:
    """Frames of a free-running camera; `trigger.part_id` counts them, also those that were lost."""

    def __init__(self, feed: CameraFeed) -> None:
        self._feed = feed
        self._run = new_run()
        self._clock = clock_id()

    def read(self, timeout_s: float) -> Frame | None:
        shot = self._feed.next(timeout_s)
        if shot is None:
            return None
        return shot.show(Trigger(self._run, shot.number, shot.exposed_ns, self._clock))

    def counters(self) -> dict[str, int]:
        return self._feed.counters()

    def complaint(self) -> Complaint | None:
        return self._feed.complaint()

    def close(self) -> None:
        self._feed.close()


def open_camera_source(settings: CameraSettings) -> CameraSource:
    """Raises: InputError if there is no camera or it refuses a setting."""
    return CameraSource(CameraFeed(lambda: open_camera(settings), settings))


def open_camera(settings: CameraSettings) -> V4l2Camera:
    """Raises: InputError if there is no camera or it refuses a setting."""
    absent = InputError(f"no camera at {settings.device}: plug one in, or correct [camera] device")
    if not Path(settings.device).exists():  # asked first: OpenCV would add complaints of its own on stderr
        raise absent
    capture = cv2.VideoCapture(settings.device, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise absent
    try:
        yuyv = YuyvReader(settings.size_px) if choose_format(capture, settings) == "YUYV" else None
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)  # by us: OpenCV does not tell what is missing of a picture
        set_controls(settings.device, settings.controls())  # last: some cameras forget them with a new format
    except InputError:
        capture.release()
        raise
    exposure_ns = settings.exposure * EXPOSURE_UNIT_NS or NS_PER_S // settings.fps
    return V4l2Camera(capture, exposure_ns, yuyv)


class Properties(Protocol):
    """What `cv2.VideoCapture` has: properties that it may set to something else than what was wanted."""

    def set(self, key: int, value: float, /) -> bool: ...

    def get(self, key: int, /) -> float: ...


def choose_format(capture: Properties, settings: CameraSettings) -> str:
    """The pixel format that gives size and rate. Raises: InputError with what the camera gives instead."""
    height, width = settings.size_px
    given = []
    for name in FORMATS:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*name))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        capture.set(cv2.CAP_PROP_FPS, settings.fps)
        got = (int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
        fps = capture.get(cv2.CAP_PROP_FPS)
        made = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1")
        if got == settings.size_px and (round(fps) >= settings.fps or fps <= 0):  # 0: the camera does not tell
            return made
        given.append(f"{got[1]}x{got[0]} at {fps:g} fps as {made}")
    raise InputError(
        f"{settings.device} gives {', or '.join(given)}, not {width}x{height} at {settings.fps} fps: "
        "correct [camera] size_px or fps"
    )
