"""Another product among the good pictures is listed; good pictures are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from host.pictures.outliers import find_outliers, name_outliers
from sim.camera import Camera, CameraSettings
from sim.parts import RenderedParts

Images = NDArray[np.uint8]


def shoot(product: str, count: int) -> Images:
    """Good parts, uint8 (n, 128, 128, 3)."""
    camera, parts = Camera(CameraSettings(), seed=1), RenderedParts(product, seed=1, defect_share=0.0)
    return np.stack([camera.shoot(parts.part(number)).image[::2, ::2] for number in range(count)])


@pytest.fixture(scope="module")
def oranges() -> Images:
    return shoot("orange", 60)


@pytest.mark.parametrize("count", [16, 60])
def test_good_parts_are_not_listed(oranges: Images, count: int) -> None:
    assert find_outliers(oranges[:count]).size == 0
    assert name_outliers([Path("a.png")] * count, oranges[:count]) == ""


@pytest.mark.parametrize("strangers", [1, 4])
def test_another_product_is_listed(oranges: Images, strangers: int) -> None:
    images = np.concatenate([oranges[:40], shoot("bottle", strangers)])
    assert sorted(find_outliers(images)) == list(range(40, 40 + strangers))


def test_black_frame_is_listed(oranges: Images) -> None:
    images = oranges.copy()
    images[7] = 0
    assert find_outliers(images).tolist() == [7]


def test_the_strangest_comes_first(oranges: Images) -> None:
    images = oranges.copy()
    images[9] = images[9] // 2
    images[7] = 0
    assert find_outliers(images).tolist() == [7, 9]


def test_warning_names_the_strangest_pictures(oranges: Images) -> None:
    images = oranges.copy()
    images[7], images[9] = 0, 255
    warning = name_outliers([Path(f"{number}.png") for number in range(60)], images)
    assert warning.startswith("2 of 60 good pictures look unlike the others: ")
    assert "7.png" in warning
    assert "9.png" in warning
    assert "\n" not in warning


def test_equal_pictures_are_no_outliers() -> None:
    assert find_outliers(np.full((20, 128, 128, 3), 90, np.uint8)).size == 0
