"""Preprocessing is exact: equal to OpenCV's exact resize, to sums done by hand, and to itself on any layout."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from board.preprocess import as_input, preprocess, reduce_box, resize_bilinear
from board.score import score_map
from protocol.errors import InputError
from protocol.manifest import AnomalyMap, Preprocess

Image = NDArray[np.uint8]


def picture(height: int, width: int, seed: int = 1) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def whole_frame(frame_px: tuple[int, int], input_px: tuple[int, int]) -> Preprocess:
    return Preprocess(frame_px, (0, 0, *frame_px), input_px)


def opencv_exact(image: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)


def box_by_hand(image: Image, factor: int) -> Image:
    """Mean rounded half up, pixel by pixel, with Python's integers."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    top, left = (image.shape[0] - height * factor) // 2, (image.shape[1] - width * factor) // 2
    reduced = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            box = image[top + y * factor :, left + x * factor :][:factor, :factor].reshape(-1, 3)
            reduced[y, x] = [(2 * sum(map(int, box[:, c])) + len(box)) // (2 * len(box)) for c in range(3)]
    return reduced


SIDES = st.integers(1, 90)


@given(SIDES, SIDES, st.data(), st.integers(0, 99))
def test_resize_equals_opencvs_exact_resize(height: int, width: int, data: st.DataObject, seed: int) -> None:
    size = data.draw(st.tuples(st.integers(1, height), st.integers(1, width)))
    image = picture(height, width, seed)
    assert np.array_equal(resize_bilinear(image, size), opencv_exact(image, size))


@pytest.mark.parametrize(("source", "target"), [((480, 640), (300, 401)), ((200, 200), (150, 101))])
def test_resize_equals_opencvs_exact_resize_on_large_pictures(source: tuple[int, int], target: tuple[int, int]) -> None:
    image = picture(*source)
    assert np.array_equal(resize_bilinear(image, target), opencv_exact(image, target))


def test_a_weight_that_lies_halfway_is_rounded_up() -> None:
    """From 257 to 256 pixels every weight does, and OpenCV rounds some of them down: its scale is not a fraction."""
    ramp = np.repeat(np.arange(257)[np.newaxis, :, np.newaxis] % 2 * 255, 3, axis=2).astype(np.uint8)
    right_weight = [(2 * t + 2) // 2 for t in range(256)]  # of 256: t + 1/2, rounded up
    expected = [(255 * (w if t % 2 == 0 else 256 - w) + 128) // 256 for t, w in enumerate(right_weight)]
    assert resize_bilinear(ramp, (1, 256))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("factor", [1, 2, 3, 5, 16, 17])
def test_box_reduction_equals_sums_by_hand(factor: int) -> None:
    image = picture(3 * factor + factor // 2, 4 * factor + 1 % factor)
    assert np.array_equal(reduce_box(image, factor), box_by_hand(image, factor))


@pytest.mark.parametrize("factor", [2, 16, 17, 100])
@pytest.mark.parametrize("grey", [0, 127, 255])
def test_a_plain_picture_stays_plain(factor: int, grey: int) -> None:
    image = np.full((factor * 2, factor * 2, 3), grey, np.uint8)
    assert np.array_equal(reduce_box(image, factor), np.full((2, 2, 3), grey))


def test_halves_are_rounded_up() -> None:
    assert reduce_box(np.array([[[0] * 3, [1] * 3], [[0] * 3, [1] * 3]], np.uint8), 2).tolist() == [[[1, 1, 1]]]


@given(st.tuples(SIDES, SIDES), st.data())
def test_the_whole_of_it_equals_box_then_opencv(frame_px: tuple[int, int], data: st.DataObject) -> None:
    input_px = data.draw(st.tuples(st.integers(1, frame_px[0]), st.integers(1, frame_px[1])))
    frame = picture(*frame_px)
    factor = min(frame_px[0] // input_px[0], frame_px[1] // input_px[1])
    expected = opencv_exact(reduce_box(frame, factor), input_px)
    assert np.array_equal(preprocess(frame, whole_frame(frame_px, input_px)), expected)


def test_the_crop_is_cut_out() -> None:
    frame = picture(20, 30)
    how = Preprocess((20, 30), (3, 5, 8, 10), (8, 10))
    assert np.array_equal(preprocess(frame, how), frame[3:11, 5:15])


def test_the_result_is_contiguous_and_does_not_depend_on_the_frames_layout() -> None:
    frame = picture(60, 80)
    how = Preprocess((60, 80), (4, 4, 40, 50), (16, 16))
    image = preprocess(frame, how)
    assert image.flags.c_contiguous
    assert image.dtype == np.uint8
    assert np.array_equal(preprocess(np.asfortranarray(frame), how), image)
    assert np.array_equal(frame, picture(60, 80)), "the frame itself is left as it was"


@pytest.mark.parametrize("shape", [(21, 30, 3), (20, 31, 3), (20, 30), (20, 30, 4), (30, 20, 3), (0, 0, 3)])
def test_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="the model expects 30x20 pixels: set the camera to that size, or export"):
        preprocess(np.zeros(shape, np.uint8), whole_frame((20, 30), (10, 10)))


def test_input_is_the_image_minus_128_channels_first() -> None:
    image = picture(5, 7)
    tensor = as_input(image)
    assert tensor.dtype == np.int8
    assert tensor.flags.c_contiguous
    assert np.array_equal(tensor[0], image.transpose(2, 0, 1).astype(int) - 128)


def test_score_is_the_mean_of_the_highest_pixels() -> None:
    anomaly = np.array([[-128, 5], [7, 127]], np.int8)
    assert score_map(anomaly, AnomalyMap((2, 2), 0.5, 1)) == 63.5
    assert score_map(anomaly, AnomalyMap((2, 2), 0.5, 3)) == (127 + 7 + 5) / 3 / 2
    assert score_map(anomaly, AnomalyMap((2, 2), 2.0, 4)) == 5.5


@given(st.lists(st.integers(-128, 127), min_size=6, max_size=6), st.integers(1, 6))
def test_score_equals_a_sum_of_python_integers(values: list[int], top: int) -> None:
    anomaly = np.array(values, np.int8).reshape(2, 3)
    expected = sum(sorted(values)[-top:]) * 2.0**-7 / top
    assert score_map(anomaly, AnomalyMap((2, 3), 2.0**-7, top)) == expected


def test_score_does_not_overflow_on_a_large_map() -> None:
    anomaly = np.full((512, 512), 127, np.int8)
    assert score_map(anomaly, AnomalyMap((512, 512), 1.0, 512 * 512)) == 127.0
