"""Where a synthetic defect lies: opacities float32 in 0..1, (h, w) of the picture."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from host.learning.textures import Bank, Floats, Mask, Rng

SMALLEST_RADIUS, LARGEST_RADIUS = 0.02, 0.45  # of the picture's side
INSIDE_SHARE = 0.85  # of the defects end where the part ends

Point = NDArray[np.float64]  # (x, y), pixels
Points = NDArray[np.float64]  # (n, 2)


def draw_region(part: Mask, bank: Bank, rng: Rng) -> Floats:
    """Opacity of one defect, centred on the part."""
    side, (height, width) = max(part.shape), part.shape  # drawn on a square that holds the picture
    radius_px = round(math.sqrt(height * width)) * _draw_radius(rng)
    centre = _pick_point(part, rng)
    draw = SHAPES[int(rng.choice(len(SHAPES), p=SHAPE_SHARES))]
    region = draw(side, centre, radius_px, bank, rng)[:height, :width]
    if rng.random() < 0.5:
        region = _soften(region, (1.0 if draw in THIN_SHAPES else 0.3 * radius_px) * rng.random())
    return region * part if rng.random() < INSIDE_SHARE else region


def _draw_radius(rng: Rng) -> float:
    """Of the side. Specks and whole surfaces get their share: mostly even in the logarithm, for a quarter in size."""
    if rng.random() < 0.25:
        return float(rng.uniform(SMALLEST_RADIUS, LARGEST_RADIUS))
    return float(np.exp(rng.uniform(np.log(SMALLEST_RADIUS), np.log(LARGEST_RADIUS))))


def _pick_point(part: Mask, rng: Rng) -> Point:
    inside = np.flatnonzero(part)
    y, x = np.divmod(inside[int(rng.integers(inside.size))], part.shape[1])
    return np.array([x, y], np.float64)


def _soften(region: Floats, sigma_px: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(region, (0, 0), sigma_px), np.float32) if sigma_px > 0.4 else region


def _blob(side: int, centre: Point, radius_px: float, bank: Bank, rng: Rng) -> Floats:
    """Noise above a level that rises with the distance from the centre: ragged islands."""
    y, x = np.ogrid[:side, :side]
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 0.9))
    u = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
    v = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
    distance = np.sqrt((u / stretch) ** 2 + (v * stretch) ** 2) / radius_px
    return np.asarray(bank.noise(rng, (side, side)) > distance - rng.uniform(0.0, 0.6), np.float32)


def _polygon(side: int, centre: Point, radius_px: float, _bank: Bank, rng: Rng) -> Floats:
    corners = int(rng.integers(3, 11))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = radius_px * rng.uniform(0.4, 1.3, corners)
    return _fill(side, centre + np.stack([np.cos(angles) * reach, np.sin(angles) * reach * rng.uniform(0.3, 1)], 1))


def _ellipse(side: int, centre: Point, radius_px: float, _bank: Bank, rng: Rng) -> Floats:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    u, v = radius_px * np.cos(angles), radius_px * rng.uniform(0.25, 1) * np.sin(angles)
    turn = rng.uniform(0, np.pi)
    return _fill(side, centre + np.stack([u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)], 1))


def _stroke(side: int, centre: Point, radius_px: float, _bank: Bank, rng: Rng) -> Floats:
    """One to three wandering lines: scratches, hairs, cracks, wires."""
    region = np.zeros((side, side), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0, 0.7), 8))
        steps = np.stack([np.cos(heading), np.sin(heading)], 1) * max(radius_px, 5) * rng.uniform(0.15, 0.5)
        points = centre + rng.normal(0, radius_px * 0.3, 2) + np.cumsum(steps, 0)
        cv2.polylines(region, [_sixteenths(points)], False, (255,), 1 + int(rng.random() ** 2 * 4), cv2.LINE_AA, 4)
    return np.asarray(region / 255, np.float32)


def _specks(side: int, centre: Point, radius_px: float, _bank: Bank, rng: Rng) -> Floats:
    region = np.zeros((side, side), np.uint8)
    largest_px = rng.uniform(0.7, 4)
    for _ in range(int(np.exp(rng.uniform(0, np.log(40))))):
        x, y = _sixteenths(centre + rng.normal(0, radius_px * 0.6, 2)).tolist()
        cv2.circle(region, (x, y), int(16 * rng.uniform(0.5, largest_px)), (255,), -1, cv2.LINE_AA, 4)
    return np.asarray(region / 255, np.float32)


def _everywhere(side: int, _centre: Point, _radius_px: float, bank: Bank, rng: Rng) -> Floats:
    """Patches of noise over the whole surface."""
    return np.asarray(bank.noise(rng, (side, side)) > rng.uniform(0.0, 0.7), np.float32)


def _fill(side: int, points: Points) -> Floats:
    region = np.zeros((side, side), np.uint8)
    cv2.fillPoly(region, [_sixteenths(points)], (255,), cv2.LINE_AA, shift=4)
    return np.asarray(region / 255, np.float32)


def _sixteenths(points: Points) -> NDArray[np.int32]:
    """OpenCV draws at fractions of a pixel when told `shift=4`."""
    return np.round(points * 16).astype(np.int32)


Shape = Callable[[int, Point, float, Bank, Rng], Floats]
SHAPES: tuple[Shape, ...] = (_blob, _polygon, _ellipse, _stroke, _specks, _everywhere)
THIN_SHAPES = (_stroke, _specks)
SHAPE_SHARES = (0.36, 0.16, 0.12, 0.18, 0.09, 0.09)
