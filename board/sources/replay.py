"""Frames from a folder of pictures, a video, or a recording of the line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import cv2

from board.preprocess import preprocess
from board.records.recording import RECORDING_SUFFIX, read_recording
from board.seams import Ahead, Deaf, EndOfStream
from protocol.errors import InputError
from protocol.manifest import Preprocess
from protocol.messages import Frame, Trigger, clock_id, new_run
from protocol.pictures.files import is_named_picture
from protocol.pictures.reader import ALL_BITS, read_picture, rgb
from protocol.strict import require


@dataclass(frozen=True)
class ReplaySettings:
    path: Path = Path("pictures")  # folder of pictures or recordings, one recording, or one video
    rate_hz: float = 0.0  # frames a second; 0: as fast as the line takes them

    def __post_init__(self) -> None:
        require(self.rate_hz >= 0, "rate_hz", "must be 0 or more")


class ReplaySource:
    def __init__(self, settings: ReplaySettings, expected: Preprocess | None, ahead: Ahead | None = None) -> None:
        """Raises: InputError if there is nothing to replay, or its first picture does not fit `expected`."""
        self._interval_s = 1 / settings.rate_hz if settings.rate_hz else 0.0
        self._due_s = time.monotonic()
        self._ahead = ahead or Deaf()
        self._frames = open_frames(settings.path, expected.depth_bits if expected else ALL_BITS)
        first = next(self._frames, None)
        if first is not None:
            self._frames = chain([first], self._frames)
        if expected and first and first.image is not None:
            preprocess(first.image, expected)

    def read(self, timeout_s: float) -> Frame | None:
        wait_s = self._due_s - time.monotonic()
        self._ahead.seen_until(time.monotonic_ns())
        if wait_s > timeout_s:
            time.sleep(timeout_s)
            return None
        time.sleep(max(0.0, wait_s))
        self._due_s = max(self._due_s, time.monotonic() - 1.0) + self._interval_s
        for frame in self._frames:
            return self._tell(replace(frame.trigger, t_ns=time.monotonic_ns(), clock=clock_id()), frame)
        raise EndOfStream

    def close(self) -> None:
        self._frames = iter(())

    def _tell(self, trigger: Trigger, frame: Frame) -> Frame:
        self._ahead.expect(trigger)
        self._ahead.seen_until(trigger.t_ns)
        return replace(frame, trigger=trigger)


def open_frames(path: Path, depth_bits: int = ALL_BITS) -> Iterator[Frame]:
    """Frames in the order of their file names. Raises: InputError if there is nothing to replay."""
    if not path.exists():
        raise InputError(f"nothing to replay at {path}: correct [replay] path")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    recordings = [p for p in files if p.suffix == RECORDING_SUFFIX]
    pictures = [p for p in files if is_named_picture(p)]
    if recordings:
        return _read_recordings(recordings)
    if pictures:
        return _read_pictures(pictures, depth_bits)
    if path.is_dir():
        raise InputError(f"no pictures or recordings in {path}: correct [replay] path")
    return _read_video(path)


def _read_recordings(paths: list[Path]) -> Iterator[Frame]:
    for path in paths:
        for record in read_recording(path):
            yield record.frame


def _read_pictures(paths: list[Path], depth_bits: int) -> Iterator[Frame]:
    run = new_run()
    for part_id, path in enumerate(paths):
        trigger = Trigger(run, part_id, 0, "")
        try:
            yield Frame(trigger, read_picture(path, depth_bits))
        except InputError as error:
            yield Frame(trigger, None, f"corrupt frame: {error}")


def _read_video(path: Path) -> Iterator[Frame]:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise InputError(f"{path} is no folder, recording or video that OpenCV reads: correct [replay] path")
    return _video_frames(video)


def _video_frames(video: cv2.VideoCapture) -> Iterator[Frame]:
    run, number = new_run(), 0
    while True:
        ok, bgr = video.read()
        if not ok:
            video.release()
            return
        yield Frame(Trigger(run, number, 0, ""), rgb(bgr))
        number += 1
