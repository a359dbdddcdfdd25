"""The camera, asked what it is and what it can; no picture is taken, so that a running station is not disturbed.

Structures and numbers are those of the Linux kernel's include/uapi/linux/videodev2.h.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from pathlib import Path
from typing import Protocol

from board.checkup.finding import Finding, fail, ok, refused
from board.sources.camera import CameraSettings
from protocol.errors import InputError

QUERYCAP, QUERYCAP_BYTES = 0x80685600, 104  # _IOR('V', 0, struct v4l2_capability)
FRAMESIZES, FRAMESIZES_BYTES = 0xC02C564A, 44  # _IOWR('V', 74, struct v4l2_frmsizeenum)
VIDEO_CAPTURE = 0x1
DEVICE_CAPS = 0x80000000
DISCRETE = 1
FORMATS = (b"YUYV", b"MJPG")
MAX_SIZES = 256


class Control(Protocol):
    """ioctl(2): fills the request's structure. Raises: OSError."""

    def __call__(self, handle: int, request: int, structure: bytearray, /) -> object: ...


def check_camera(settings: CameraSettings, control: Control = fcntl.ioctl) -> Finding:
    path = Path(settings.device)
    if not path.exists():
        there = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
        return fail(
            "camera", f"there is no {path} (cameras: {there})", "plug the camera in, or correct [camera] device"
        )
    if not stat.S_ISCHR(path.stat().st_mode):
        return fail("camera", f"{path} is no device", "correct [camera] device")
    try:
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        return fail("camera", f"{path}: {error.strerror}", "add this user to the group video, or free the camera")
    try:
        name = _ask_name(handle, path, control)
        sizes = _ask_sizes(handle, control)
    except InputError as error:
        return refused("camera", error)
    finally:
        os.close(handle)
    height, width = settings.size_px
    if sizes and (width, height) not in sizes:
        offered = ", ".join(f"{w}x{h}" for w, h in sorted(sizes))
        return fail("camera", f"{name} has no {width}x{height}; it has {offered}", "correct [camera] size_px")
    return ok("camera", f"{name} at {path}, {width}x{height}")


def _ask_name(handle: int, path: Path, control: Control) -> str:
    """Raises: InputError for a device that delivers no pictures."""
    answer = bytearray(QUERYCAP_BYTES)
    try:
        control(handle, QUERYCAP, answer)
    except OSError:
        raise InputError(f"{path} is no camera: correct [camera] device") from None
    _, card, _, _, capabilities, device_caps = struct.unpack_from("=16s32s32sIII", answer)
    able = device_caps if capabilities & DEVICE_CAPS else capabilities
    name = card.split(b"\0")[0].decode(errors="replace")
    if not able & VIDEO_CAPTURE:  # a camera's second node carries its metadata
        raise InputError(f"{path} ({name}) delivers no pictures: try the number before or after it")
    return str(name)


def _ask_sizes(handle: int, control: Control) -> set[tuple[int, int]]:
    """(width, height) in the formats that the station takes; empty where the driver does not list them."""
    sizes = set()
    for pixel_format in FORMATS:
        for index in range(MAX_SIZES):
            entry = bytearray(FRAMESIZES_BYTES)
            struct.pack_into("=I4s", entry, 0, index, pixel_format)
            try:
                control(handle, FRAMESIZES, entry)
            except OSError:  # no more of this format, or the driver does not enumerate
                break
            _, _, kind, width, height = struct.unpack_from("=I4sIII", entry)
            if kind != DISCRETE:  # any size in a range
                return set()
            sizes.add((width, height))
    return sizes
