"""Each number follows its own cause: lamp, lens, colour. The reference is OpenCV's arithmetic."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from numpy.typing import NDArray

from board.drift.picture_statistics import PICTURE_STATISTICS, measure_picture
from board.preprocess import preprocess
from protocol.manifest import Preprocess
from sim.camera import Camera, CameraSettings
from sim.parts import RenderedParts

HOW = Preprocess(frame_px=(256, 256), crop_px=(0, 0, 256, 256), input_px=(128, 128))


@pytest.fixture(scope="module")
def orange() -> NDArray[np.uint8]:
    return preprocess(Camera(CameraSettings(), 1).shoot(RenderedParts("orange", 1, 0.0).part(3)).image, HOW)


def scale(image: NDArray[np.uint8], *factors: float) -> NDArray[np.uint8]:
    return np.asarray(np.round(image * np.array(factors)), np.uint8)


@pytest.mark.parametrize("rows", [3, 32, 33, 34, 35, 64, 66, 67, 128])
def test_against_opencv(orange: NDArray[np.uint8], rows: int) -> None:
    """Of pictures that fill the bands of rows, and that do not."""
    image = np.ascontiguousarray(orange[-rows:])
    found = measure_picture(image)
    means, deviations = (values.ravel() for values in cv2.meanStdDev(image))
    laplacian = cv2.Laplacian(image[:, :, 1], cv2.CV_64F, ksize=1)[1:-1, 1:-1]
    assert found["brightness"] == pytest.approx(means.mean())
    assert found["contrast"] == pytest.approx(deviations[1] / means[1])
    assert found["sharpness"] == pytest.approx(np.sqrt((laplacian**2).mean()) / means[1])
    assert found["red_share"] == pytest.approx(means[0] / means.sum())
    assert found["blue_share"] == pytest.approx(means[2] / means.sum())


def test_a_dim_lamp_is_seen_in_the_brightness_alone(orange: NDArray[np.uint8]) -> None:
    before, after = measure_picture(orange), measure_picture(scale(orange, 0.8))
    assert after["brightness"] == pytest.approx(0.8 * before["brightness"], rel=0.01)
    for name in ("contrast", "red_share", "blue_share"):
        assert after[name] == pytest.approx(before[name], rel=0.01), name
    assert after["sharpness"] == pytest.approx(before["sharpness"], rel=0.05)  # levels are rounded


def test_a_soft_lens_is_seen_in_the_sharpness(orange: NDArray[np.uint8]) -> None:
    before, after = measure_picture(orange), measure_picture(cv2.GaussianBlur(orange, (0, 0), 1.0).astype(np.uint8))
    assert after["sharpness"] < 0.6 * before["sharpness"]
    assert after["brightness"] == pytest.approx(before["brightness"], rel=0.01)


def test_a_warmer_lamp_is_seen_in_the_colour(orange: NDArray[np.uint8]) -> None:
    before, after = measure_picture(orange), measure_picture(scale(orange, 1.0, 0.95, 0.8))
    assert after["red_share"] > before["red_share"]
    assert after["blue_share"] < before["blue_share"]


@pytest.mark.parametrize("level", [0, 255])
def test_flat_pictures_have_finite_numbers(level: int) -> None:
    found = measure_picture(np.full((128, 128, 3), level, np.uint8))
    assert found["contrast"] == found["sharpness"] == 0
    assert found["brightness"] == pytest.approx(level, abs=0.001)


@settings(max_examples=50)
@given(stnp.arrays(np.uint8, st.tuples(st.integers(3, 9), st.integers(3, 9), st.just(3))))
def test_every_picture_has_every_number(image: NDArray[np.uint8]) -> None:
    found = measure_picture(image)
    assert tuple(found) == PICTURE_STATISTICS
    assert all(np.isfinite(value) and value >= 0 for value in found.values())
    assert found["red_share"] + found["blue_share"] <= 1


def test_it_costs_well_under_a_millisecond(orange: NDArray[np.uint8]) -> None:
    """Of the processor's time, usually 0.07 ms: the best of many."""

    def spend_ms() -> float:
        started_ns = time.thread_time_ns()
        measure_picture(orange)
        return (time.thread_time_ns() - started_ns) / 1e6

    assert min(spend_ms() for _ in range(100)) < 0.5
