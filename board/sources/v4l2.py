"""A camera's controls through V4L2 (linux/videodev2.h): set, then read back: a driver may keep a value of its own."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from ctypes import c_char, c_int32, c_uint32
from dataclasses import dataclass
from functools import partial
from typing import Any

from protocol.errors import InputError

Ioctl = Callable[[int, Any], object]  # of an open device: request and structure, which it may change. Raises: OSError

EXPOSURE_MANUAL = 1  # V4L2_EXPOSURE_MANUAL


class ExtControl(ctypes.Structure):
    """struct v4l2_ext_control. Its 64-bit member is never used, but it makes the size."""

    _pack_ = 1
    _fields_ = (("id", c_uint32), ("size", c_uint32), ("reserved", c_uint32), ("value", c_int32), ("rest", c_int32))


class ExtControls(ctypes.Structure):
    """struct v4l2_ext_controls"""

    _fields_ = (
        *(("which", c_uint32), ("count", c_uint32), ("error_idx", c_uint32), ("request_fd", c_int32)),
        *(("reserved", c_uint32), ("controls", ctypes.POINTER(ExtControl))),
    )


class QueryControl(ctypes.Structure):
    """struct v4l2_queryctrl"""

    _fields_ = (
        *(("id", c_uint32), ("type", c_uint32), ("name", c_char * 32)),
        *(("minimum", c_int32), ("maximum", c_int32), ("step", c_int32), ("default_value", c_int32)),
        *(("flags", c_uint32), ("reserved", c_uint32 * 2)),
    )


def _iowr(number: int, structure: type[ctypes.Structure]) -> int:
    """The kernel's _IOWR('V', number, structure) (asm-generic/ioctl.h)."""
    return 3 << 30 | ctypes.sizeof(structure) << 16 | ord("V") << 8 | number


VIDIOC_QUERYCTRL = _iowr(36, QueryControl)
VIDIOC_G_EXT_CTRLS = _iowr(71, ExtControls)
VIDIOC_S_EXT_CTRLS = _iowr(72, ExtControls)


@dataclass(frozen=True)
class Control:
    name: str
    id: int  # V4L2_CID_…
    value: int
    key: str  # of the configuration
    is_optional: bool = False  # a camera without it has nothing to switch off


def fixed_exposure(value_100us: int) -> list[Control]:
    return [
        Control("exposure_auto", 0x009A0901, EXPOSURE_MANUAL, "exposure"),
        Control("exposure_auto_priority", 0x009A0903, 0, "exposure", is_optional=True),  # it would lower the frame rate
        Control("exposure_absolute", 0x009A0902, value_100us, "exposure"),
    ]


def fixed_white_balance(kelvin: int) -> list[Control]:
    return [
        Control("white_balance_automatic", 0x0098090C, 0, "white_balance_k"),
        Control("white_balance_temperature", 0x0098091A, kelvin, "white_balance_k"),
    ]


def fixed_focus(value: int) -> list[Control]:
    return [
        Control("focus_auto", 0x009A090C, 0, "focus", is_optional=True),
        Control("focus_absolute", 0x009A090A, value, "focus"),
    ]


def fixed_gain(value: int) -> list[Control]:
    return [
        Control("autogain", 0x00980912, 0, "gain", is_optional=True),
        Control("gain", 0x00980913, value, "gain"),
    ]


def set_controls(device: str, controls: Sequence[Control]) -> None:
    """In this order. Raises: InputError naming the control that the camera refuses."""
    if not controls:
        return
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"cannot open {device} ({error.strerror}): plug the camera in, or correct [camera]") from None
    try:
        apply_controls(partial(fcntl.ioctl, descriptor), device, controls)
    finally:
        os.close(descriptor)


def apply_controls(ioctl: Ioctl, device: str, controls: Sequence[Control]) -> None:
    """Raises: InputError."""
    for control in controls:
        try:
            limits = _query(ioctl, control)
            if limits is None:
                continue
            _access(ioctl, VIDIOC_S_EXT_CTRLS, control, control.value)
            got = _access(ioctl, VIDIOC_G_EXT_CTRLS, control, 0)
        except OSError as error:
            why = f"{control.name} = {control.value} ({error.strerror})"
            raise InputError(f"{device} refuses {why}: correct [camera] {control.key}") from None
        if got != control.value:
            told = f"{limits.minimum}..{limits.maximum} in steps of {limits.step}"
            raise InputError(
                f"{device} makes {control.name} {got}, not {control.value}; it says that it takes {told}: "
                f"correct [camera] {control.key}"
            )


def _query(ioctl: Ioctl, control: Control) -> QueryControl | None:
    """What the control can be; None for an optional one that the camera has not. Raises: OSError."""
    limits = QueryControl(id=control.id)
    try:
        ioctl(VIDIOC_QUERYCTRL, limits)
    except OSError as error:
        if error.errno == errno.EINVAL and control.is_optional:
            return None
        if error.errno == errno.EINVAL:
            raise OSError(errno.EINVAL, "the camera has no such control") from None
        raise
    return limits


def _access(ioctl: Ioctl, request: int, control: Control, value: int) -> int:
    """One control, set or read: its value afterwards. Raises: OSError."""
    one = ExtControl(id=control.id, value=value)
    ioctl(request, ExtControls(which=0, count=1, controls=ctypes.pointer(one)))  # which 0: V4L2_CTRL_WHICH_CUR_VAL
    return int(one.value)
