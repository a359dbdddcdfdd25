"""The geometry of the self-supervised defects, as published."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from host.bench.pretext import draw_line, draw_polygon, draw_triplet, find_area, paste

SEEDS = st.integers(0, 10_000)
WHOLE = np.ones((96, 96), np.uint8)
PIXELS = WHOLE.size


@given(SEEDS)
def test_polygons_have_the_published_geometry(seed: int) -> None:
    points = draw_polygon(WHOLE, np.random.default_rng(seed))
    wide, high = np.ptp(points, axis=0)
    assert 0.03 <= find_area(points) / PIXELS <= 0.1
    assert 0.3 <= wide / high <= 3.3
    assert 4 <= len(points) <= 8
    assert cv2.isContourConvex(points.astype(np.float32)[:, np.newaxis])


@given(SEEDS)
def test_lines_have_the_published_geometry(seed: int) -> None:
    points = draw_line(WHOLE, np.random.default_rng(seed))
    sides = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1)
    aspect = sides[0] / sides[1]
    assert 0.003 - 1e-9 <= find_area(points) / PIXELS <= 0.007 + 1e-9
    assert 0.05 <= aspect <= 0.5 or 2.5 <= aspect <= 3.3
    turn = np.rad2deg(np.arctan2(*(points[1] - points[0])[::-1]))
    assert abs(turn) <= 45


def test_every_kind_occurs() -> None:
    rng = np.random.default_rng(0)
    polygons = [draw_polygon(WHOLE, rng) for _ in range(200)]
    assert {len(points) for points in polygons} == {4, 5, 6, 7, 8}
    shapes = [np.ptp(points, axis=0) for points in polygons]
    assert 40 < sum(wide < high for wide, high in shapes) < 160
    areas = [find_area(points) / PIXELS for points in polygons]
    assert min(areas) < 0.04
    assert max(areas) > 0.09


@given(SEEDS)
def test_defects_lie_in_the_picture_and_on_the_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    part = np.zeros((96, 96), np.uint8)
    part[30:70, 20:60] = 1
    for draw in (draw_polygon, draw_line):
        points = draw(part, rng)
        assert points.min() >= 0
        assert points.max() <= 95
        x, y = ((points.min(axis=0) + points.max(axis=0)) / 2).round().astype(int)
        assert part[max(0, y - 12) : y + 12, max(0, x - 12) : x + 12].any()


@pytest.mark.parametrize("side", [32, 64, 256])
def test_as_much_changes_as_was_drawn(side: int) -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (side, side, 3), np.uint8)
    whole = np.ones((side, side), np.uint8)
    for draw, tolerance in ((draw_polygon, 0.35), (draw_line, 1.6)):
        points = draw(whole, rng)
        changed = (paste(image, points, rng) != image).any(axis=2)
        assert changed.sum() == pytest.approx(find_area(points), rel=tolerance if side == 32 else tolerance / 2)


def test_a_triplet_is_intact_polygon_line() -> None:
    image: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    intact, polygon, line = draw_triplet(image, np.random.default_rng(1))
    assert np.array_equal(intact, image)
    changes = [int((one != image).any(axis=2).sum()) for one in (polygon, line)]
    assert 100 <= changes[0] <= 600
    assert 5 <= changes[1] <= 60
