"""A camera's controls and formats: against a driver written with the kernel's header, and its refusals.

No real camera: what uvcvideo and OpenCV make of a real one is for tests/hardware.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from board.sources.camera import CameraSettings, choose_format
from board.sources.v4l2 import (
    ExtControl,
    apply_controls,
    fixed_exposure,
    fixed_focus,
    fixed_gain,
    fixed_white_balance,
    set_controls,
)
from protocol.errors import InputError

SOURCE = Path(__file__).with_name("v4l2_fake.c")
EXPOSURE_AUTO, EXPOSURE, PRIORITY, TEMPERATURE = 0x009A0901, 0x009A0902, 0x009A0903, 0x0098091A


class Driver:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.value: Callable[[int], int] = library.fake_value

    def ioctl(self, request: int, argument: Any) -> None:
        error = self._library.fake_ioctl(ctypes.c_ulong(request), ctypes.byref(argument))
        if error:
            raise OSError(error, os.strerror(error))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if not compiler or not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("the camera's driver is compiled with gcc and the kernel's headers, which are not installed")
    library = tmp_path_factory.mktemp("v4l2") / "fake.so"
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", str(SOURCE), "-o", str(library)], check=True)
    return library


@pytest.fixture
def driver(compiled: Path, tmp_path: Path) -> Driver:
    """Its own copy: controls begin at their defaults."""
    return Driver(ctypes.CDLL(str(shutil.copy(compiled, tmp_path / "fake.so"))))


def test_what_is_fixed_is_set_and_its_automatics_are_off(driver: Driver) -> None:
    settings = CameraSettings(exposure=100, white_balance_k=5000, focus=35)
    apply_controls(driver.ioctl, "/dev/video0", settings.controls())
    assert [driver.value(one) for one in (EXPOSURE_AUTO, PRIORITY, EXPOSURE, TEMPERATURE)] == [1, 0, 100, 5000]


def test_a_control_has_the_size_that_the_kernel_writes_back(compiled: Path) -> None:
    assert ctypes.sizeof(ExtControl) == ctypes.CDLL(str(compiled)).fake_control_bytes()


def test_nothing_is_touched_that_is_not_configured(driver: Driver) -> None:
    assert CameraSettings().controls() == []
    apply_controls(driver.ioctl, "/dev/video0", CameraSettings(focus=5).controls())
    assert driver.value(EXPOSURE_AUTO) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            CameraSettings(exposure=2),
            r"makes exposure_absolute 3, not 2; it says that it takes 3\.\.2047 in steps of 1",
        ),
        (CameraSettings(exposure=5000), r"makes exposure_absolute 2047, not 5000.*correct \[camera\] exposure"),
        (CameraSettings(white_balance_k=5005), r"makes white_balance_temperature 5000, not 5005; .* in steps of 10"),
        (CameraSettings(focus=7), r"makes focus_absolute 5, not 7.*correct \[camera\] focus"),
        (CameraSettings(gain=8), r"makes gain 7, not 8.*correct \[camera\] gain"),
    ],
)
def test_a_value_that_the_camera_does_not_keep_is_named(driver: Driver, settings: CameraSettings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply_controls(driver.ioctl, "/dev/video0", settings.controls())


def test_a_control_that_is_inactive_is_named(driver: Driver) -> None:
    (absolute,) = [control for control in fixed_exposure(100) if control.name == "exposure_absolute"]
    with pytest.raises(InputError, match=r"refuses exposure_absolute = 100 \(Permission denied\)"):
        apply_controls(driver.ioctl, "/dev/video0", [absolute])


def test_a_control_that_the_camera_has_not_is_named_unless_it_only_would_switch_something_off() -> None:
    def has_nothing(_request: int, _argument: Any) -> None:
        raise OSError(22, "Invalid argument")

    for controls in (fixed_exposure(1), fixed_white_balance(5000), fixed_focus(1), fixed_gain(1)):
        required = next(control.name for control in controls if not control.is_optional)
        with pytest.raises(InputError, match=rf"refuses {required} = \d+ \(the camera has no such control\)"):
            apply_controls(has_nothing, "/dev/video0", controls)


def test_what_is_no_camera_says_so() -> None:
    """Through the kernel itself."""
    with pytest.raises(InputError, match=r"/dev/null refuses focus_auto = 0 \(Inappropriate ioctl for device\)"):
        set_controls("/dev/null", fixed_focus(1))
    with pytest.raises(InputError, match=r"cannot open /dev/no-camera .*: plug the camera in"):
        set_controls("/dev/no-camera", fixed_focus(1))


class Formats:
    """Properties of a camera: frames a second by format and width; other sizes become the largest one."""

    def __init__(self, **fps: dict[int, float]) -> None:
        self.fps = fps
        self.values: dict[int, float] = {}

    def set(self, key: int, value: float, /) -> bool:
        self.values[key] = value
        name = int(self.values[cv2.CAP_PROP_FOURCC]).to_bytes(4, "little").decode()
        if name not in self.fps:
            name = next(iter(self.fps))
            self.values[cv2.CAP_PROP_FOURCC] = cv2.VideoWriter.fourcc(*name)
        width = int(self.values.get(cv2.CAP_PROP_FRAME_WIDTH, 640))
        width = width if width in self.fps[name] else max(self.fps[name])
        self.values |= {cv2.CAP_PROP_FRAME_WIDTH: width, cv2.CAP_PROP_FRAME_HEIGHT: width * 3 // 4}
        wanted = self.values.get(cv2.CAP_PROP_FPS, 30)
        self.values[cv2.CAP_PROP_FPS] = min(wanted, self.fps[name][width])
        return True

    def get(self, key: int, /) -> float:
        return self.values[key]


@pytest.mark.parametrize(
    ("camera", "wanted_width", "chosen"),
    [
        (Formats(YUYV={640: 30, 1280: 10}, MJPG={640: 30, 1280: 30}), 640, "YUYV"),
        (Formats(YUYV={640: 30, 1280: 10}, MJPG={640: 30, 1280: 30}), 1280, "MJPG"),  # YUYV is too slow there
        (Formats(MJPG={640: 30}), 640, "MJPG"),
        (Formats(YUYV={640: 0}), 640, "YUYV"),  # does not tell its rate
    ],
)
def test_yuyv_is_taken_where_it_gives_size_and_rate(camera: Formats, wanted_width: int, chosen: str) -> None:
    settings = CameraSettings(size_px=(wanted_width * 3 // 4, wanted_width))
    assert choose_format(camera, settings) == chosen


def test_a_camera_that_cannot_is_told_what_it_gives() -> None:
    camera = Formats(YUYV={640: 30}, MJPG={640: 30, 1280: 15})
    message = (
        r"gives 640x480 at 30 fps as YUYV, or 1280x960 at 15 fps as MJPG, not 1280x960 at 30 fps: correct \[camera\]"
    )
    with pytest.raises(InputError, match=message):
        choose_format(camera, CameraSettings(size_px=(960, 1280)))
