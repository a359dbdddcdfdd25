"""A USB camera through V4L2 and OpenCV, its exposure and white balance fixed and read back."""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2

from board.pictures import rgb
from protocol.errors import InputError, SourceError
from protocol.messages import Frame, Trigger, clock_id, new_run
from protocol.strict import require

V4L2_MANUAL_EXPOSURE = 1  # V4L2_CID_EXPOSURE_AUTO = V4L2_EXPOSURE_MANUAL
MAX_FAILED_READS = 10


@dataclass(frozen=True)
class CameraSettings:
    device: str = "/dev/video0"
    size_px: tuple[int, int] = (480, 640)  # (height, width)
    fps: int = 30
    exposure: int = 0  # in the driver's unit of 100 µs; 0 leaves the camera's own control on
    barrier_pin: int | None = None  # user GPIO number (EMIO) of the light barrier, for mode triggered

    def __post_init__(self) -> None:
        require(1 <= self.fps <= 240, "fps", "must be 1..240")
        require(all(16 <= side <= 4096 for side in self.size_px), "size_px", "sides must be 16..4096")


class CameraSource:
    """Frames of a free-running camera; `trigger.part_id` counts them."""

    def __init__(self, settings: CameraSettings) -> None:
        self._settings = settings
        self._camera = open_camera(settings)
        self._run = new_run()
        self._number = 0
        self._failed_reads = 0

    def read(self, timeout_s: float) -> Frame | None:  # noqa: ARG002 - OpenCV's V4L2 driver gives up after 10 s itself
        ok, bgr = self._camera.read()
        if not ok:
            self._note_failure()
            return None
        self._failed_reads = 0
        frame = Frame(Trigger(self._run, self._number, time.monotonic_ns(), clock_id()), rgb(bgr))
        self._number += 1
        return frame

    def close(self) -> None:
        self._camera.release()

    def _note_failure(self) -> None:
        self._failed_reads += 1
        if self._failed_reads >= MAX_FAILED_READS:
            raise SourceError(f"camera {self._settings.device} stopped: check its cable and power, then start again")


def open_camera(settings: CameraSettings) -> cv2.VideoCapture:
    """Raises: InputError if there is no camera or it refuses a setting."""
    camera = cv2.VideoCapture(settings.device, cv2.CAP_V4L2)
    if not camera.isOpened():
        raise InputError(f"no camera at {settings.device}: plug one in, or correct [camera] device")
    height, width = settings.size_px
    wanted = [(cv2.CAP_PROP_FRAME_WIDTH, width), (cv2.CAP_PROP_FRAME_HEIGHT, height), (cv2.CAP_PROP_FPS, settings.fps)]
    if settings.exposure:
        wanted += [(cv2.CAP_PROP_AUTO_EXPOSURE, V4L2_MANUAL_EXPOSURE), (cv2.CAP_PROP_EXPOSURE, settings.exposure)]
    for key, value in wanted:
        camera.set(key, value)
    got = (int(camera.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(camera.get(cv2.CAP_PROP_FRAME_WIDTH)))
    if got != settings.size_px:
        camera.release()
        raise InputError(f"{settings.device} gives {got[1]}x{got[0]}, not {width}x{height}: correct [camera] size_px")
    return camera
