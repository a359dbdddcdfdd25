"""A camera that froze, or that sees nothing, gives no picture to any part, and the line says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from board.sources.checks import COMPLAIN_PARTS, MISSED, CheckedSource, FrameSettings
from protocol.manifest import Distribution
from protocol.messages import Frame, Trigger
from protocol.strict import FieldError

RANDOM = np.random.default_rng(1)


def noisy(level: int = 90) -> NDArray[np.uint8]:
    return (level + RANDOM.integers(0, 3, (40, 52, 3))).astype(np.uint8)


class Pictures:
    """A source of these, one a part."""

    def __init__(self, *images: NDArray[np.uint8] | str, runs: Sequence[int] = ()) -> None:
        """`runs`: the parts with which another one begins."""
        self._images: Iterator[tuple[int, NDArray[np.uint8] | str]] = iter(enumerate(images))
        self._runs = runs

    def read(self, timeout_s: float) -> Frame | None:  # noqa: ARG002
        for number, image in self._images:
            trigger = Trigger(f"run{sum(number >= run for run in self._runs)}", number, number, "clock")
            return Frame(trigger, None, image) if isinstance(image, str) else Frame(trigger, image)
        return None

    def close(self) -> None: ...


def check(
    *images: NDArray[np.uint8] | str, settings: FrameSettings | None = None, shows_parts: bool = True
) -> tuple[CheckedSource, list[Frame]]:
    source = CheckedSource(Pictures(*images), settings or FrameSettings(), shows_parts=shows_parts)
    return source, [frame for _ in images if (frame := source.read(0)) is not None]


def test_a_frozen_camera_is_seen_at_once() -> None:
    frozen = noisy()
    source, frames = check(noisy(), frozen, *[frozen.copy() for _ in range(200)])
    assert [frame.image is None for frame in frames] == [False, False] + [True] * 200
    assert all(frame.fault.startswith("repeated frame: ") for frame in frames[2:])
    assert source.counters()["frames_repeated"] == 200
    complaint = source.complaint()
    assert complaint is not None
    assert complaint.state == "degraded"
    assert complaint.reason == "the camera's frames are repeated: check camera, lens, light and cable"


def test_a_belt_that_starts_again_may_bring_its_pictures_again_but_a_frozen_camera_is_seen() -> None:
    pictures = [noisy() for _ in range(5)]
    source = CheckedSource(Pictures(*pictures, *pictures, *[pictures[-1]] * 3, runs=[5, 10, 11]), FrameSettings())
    frames = [frame for _ in range(13) if (frame := source.read(0))]
    assert [bool(frame.fault) for frame in frames] == [False] * 10 + [True] * 3


@pytest.mark.parametrize("buffers", [2, 3, 4, 5, 6, 32])
def test_a_driver_that_hands_its_buffers_out_again_is_seen(buffers: int) -> None:
    ring = [noisy() for _ in range(buffers)]
    _, frames = check(*ring, *ring, *ring)
    assert [frame.image is None for frame in frames] == [False] * buffers + [True] * 2 * buffers


def textured() -> NDArray[np.uint8]:
    picture = noisy()
    picture[10:30, 15:40] += 60
    return picture


@pytest.mark.parametrize("shows_parts", [True, False], ids=["parts", "views"])
@pytest.mark.parametrize(
    "frozen",
    [np.s_[:20], np.s_[20:], np.s_[:, :26], np.s_[:, 26:], np.s_[:37], np.s_[:, 10:]],
    ids=["top", "bottom", "left", "right", "all but the bottom", "all but the left"],
)
def test_a_camera_that_froze_in_one_half_is_seen(frozen: tuple[slice, ...], shows_parts: bool) -> None:
    first = textured()
    pictures = [first, *(textured() for _ in range(5))]
    for picture in pictures:
        picture[frozen] = first[frozen]
    source, frames = check(*pictures, shows_parts=shows_parts)
    assert [frame.image is None for frame in frames] == [False] + [shows_parts] * 5
    if shows_parts:
        assert frames[1].fault == "repeated frame: half of the picture is bit for bit that of one before"
        assert source.complaint() is not None


def test_what_compression_leaves_alike_may_stay() -> None:
    """Guide rails and background that do not move are the same in picture after picture of a camera with MJPEG."""
    pictures = [noisy() for _ in range(5)]
    for picture in pictures:
        picture[:, :20] = pictures[0][:, :20]
        picture[30:] = 90
    _, frames = check(*pictures)
    assert [frame.fault for frame in frames] == [""] * 5


def test_one_bit_makes_another_picture() -> None:
    first = noisy()
    for at in (0, first.size // 2 + 1, first.size - 1):
        second = first.copy()
        second.reshape(-1)[at] ^= 1
        _, frames = check(first, second)
        assert [frame.fault for frame in frames] == ["", ""]


def test_it_is_quiet_again_after_so_many_good_ones() -> None:
    frozen = noisy()
    source, _ = check(frozen, frozen, *[noisy() for _ in range(COMPLAIN_PARTS - 1)])
    assert source.complaint() is not None
    source, _ = check(frozen, frozen, *[noisy() for _ in range(COMPLAIN_PARTS)])
    assert source.complaint() is None


@pytest.mark.parametrize(("level", "kind"), [(0, "dark"), (253, "white")])
def test_a_cap_on_the_lens_is_no_picture(level: int, kind: str) -> None:
    source, frames = check(noisy(level), noisy(level))
    assert all(frame.image is None and frame.fault.startswith(f"{kind} frame: mean") for frame in frames)
    assert source.counters()[f"frames_{kind}"] == 2


def test_what_is_expected_can_be_set() -> None:
    _, frames = check(noisy(90), noisy(60), settings=FrameSettings((80.0, 100.0)))
    assert [frame.fault.split(":")[0] for frame in frames] == ["", "dark frame"]
    with pytest.raises(FieldError, match="mean_range"):
        FrameSettings((100.0, 80.0))


@pytest.mark.parametrize(
    ("usual", "level", "fault"),
    [(1.8, 1, ""), (1.8, 0, "dark frame"), (120.0, 1, "dark frame"), (253.6, 253, ""), (120.0, 253, "white frame")],
)
def test_dark_and_light_products_decide_what_is_too_dark_and_too_light(usual: float, level: int, fault: str) -> None:
    brightness = Distribution(usual, 0.1, (usual, usual, usual))
    picture = np.full((40, 52, 3), level, np.uint8)
    picture[0, 0] = 7  # a cap's own noise
    frame = CheckedSource(Pictures(picture), FrameSettings(), lambda: brightness).read(0)
    assert frame is not None
    assert frame.fault.split(":")[0] == fault


def test_many_parts_without_a_picture_are_said_until_they_have_one_again() -> None:
    source, _ = check(*["frame lost"] * 4, *[noisy() for _ in range(46)])
    assert source.complaint() is None
    source, _ = check(*["frame lost"] * 5, *[noisy() for _ in range(45)])
    complaint = source.complaint()
    assert complaint is not None
    assert (complaint.state, complaint.reason) == ("degraded", MISSED)
    source, _ = check(*["frame lost"] * 5, *[noisy() for _ in range(46)])
    assert source.complaint() is None


def test_faults_of_the_source_stay_and_corrupt_ones_are_said() -> None:
    source, frames = check("frame lost", noisy())
    assert [frame.fault for frame in frames] == ["frame lost", ""]
    assert source.complaint() is None
    source, frames = check("corrupt frame: JPEG ends before its last block")
    assert source.complaint() is not None
