"""The camera's picture, its fixed controls, and that it comes back."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from board.config import LineConfig
from board.pictures import decode_pixels
from board.sources.camera import CameraFeed, Picture, Shot, open_camera
from tests.hardware.conftest import Person

FRAMES = 60
MOST_GREY_LEVELS = 3.0  # between mean brightness of two pictures of a thing that stands still
UNPLUGGED_S = 60.0


def read(feed: CameraFeed, within_s: float) -> Shot:
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        shot = feed.next(0.5)
        if shot:
            return shot
    raise AssertionError(f"no picture within {within_s:g} s")


def pixels(picture: Picture, config: LineConfig) -> NDArray[np.uint8]:
    return decode_pixels("jpeg", config.camera.size_px, picture) if isinstance(picture, bytes) else picture


def test_the_picture_is_sharp_and_its_rate_is_kept(config: LineConfig, person: Person, tmp_path: Path) -> None:
    camera = open_camera(config.camera)  # refuses a control that the camera does not keep, and names it
    person.do("Put a part under the camera")
    shots = [camera.shoot() for _ in range(FRAMES)]
    camera.close()
    taken = [shot for shot in shots if shot]
    assert len(taken) == FRAMES
    fps = (FRAMES - 1) * 1e9 / (taken[-1][1] - taken[0][1])
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), cv2.cvtColor(pixels(taken[-1][0], config), cv2.COLOR_RGB2BGR))
    person.tell(f"{fps:.1f} frames a second; a picture is in {path}")
    assert fps == pytest.approx(config.camera.fps, rel=0.1)
    person.confirm("Is the part sharp, well lit, in its natural colours, and seen whole?")


def test_brightness_does_not_follow_the_light(config: LineConfig, person: Person) -> None:
    if not config.camera.exposure:
        pytest.skip("set [camera] exposure: with the camera's own control pictures of one part differ")
    camera = open_camera(config.camera)
    person.do("Leave the view as it is")
    first = [camera.shoot() for _ in range(FRAMES)][-1]
    person.do("Cover half of the view with white paper and take it away again")
    last = [camera.shoot() for _ in range(FRAMES)][-1]
    camera.close()
    assert first
    assert last
    assert abs(float(pixels(first[0], config).mean()) - float(pixels(last[0], config).mean())) < MOST_GREY_LEVELS


def test_a_camera_that_was_unplugged_comes_back(config: LineConfig, person: Person) -> None:
    feed = CameraFeed(lambda: open_camera(config.camera), config.camera)
    before = read(feed, 5)
    person.do("Unplug the camera")
    person.do(f"Plug it in again, within {min(UNPLUGGED_S, config.camera.reconnect_s):g} s of unplugging it")
    time.sleep(2)
    after = read(feed, UNPLUGGED_S)
    feed.close()
    assert after.number > before.number + config.camera.fps
