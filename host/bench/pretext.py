"""Pictures of the three-class pretext task: intact, with a large polygon, with a small line.

Self-supervised defects with the published geometry: shares of the picture's area, aspect ratios (width / height) that
are far enough from the other class's, convex polygons of 4 to 8 points, lines turned by up to 45°. They lie on the
part, where an object mask finds one, and are filled with the same picture from elsewhere, recoloured, as in CutPaste
(Li et al. 2021, arXiv 2104.04015).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from host.bench.detector import Images
from host.pictures.objectmask import find_object

INTACT, POLYGON, LINE = 0, 1, 2
Range = tuple[float, float]
POLYGON_AREA: Range = (0.03, 0.1)
LINE_AREA: Range = (0.003, 0.007)
POLYGON_ASPECTS: tuple[Range, ...] = ((0.3, 1.0), (1.0, 3.3))
LINE_ASPECTS: tuple[Range, ...] = ((0.05, 0.5), (2.5, 3.3))
POLYGON_POINTS = (4, 8)
LINE_TURN_DEG = 45.0
GAIN, TINT = (0.6, 1.4), 25.0  # of the pasted piece: all its channels together, and each by itself in levels
SUBPIXEL_BITS = 8

Points = NDArray[np.float64]  # (n, 2): x, y in pixels
Rng = np.random.Generator


def draw_triplet(image: Images, rng: Rng) -> Images:
    """(3, h, w, 3): the picture intact, with a polygon, with a line. Labels are their places."""
    part = find_object(image)
    return np.stack([image, paste(image, draw_polygon(part, rng), rng), paste(image, draw_line(part, rng), rng)])


def draw_polygon(part: NDArray[np.uint8], rng: Rng) -> Points:
    """Convex, with the drawn area and aspect ratio, centred on the part."""
    count = int(rng.integers(POLYGON_POINTS[0], POLYGON_POINTS[1] + 1))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(0, 0.8, count)) / count
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # on a circle: convex in this order
    return _place(_shape(corners, part.shape, POLYGON_AREA, POLYGON_ASPECTS, rng), part, rng)


def draw_line(part: NDArray[np.uint8], rng: Rng) -> Points:
    """A turned rectangle, centred on the part."""
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    points = _shape(corners, part.shape, LINE_AREA, LINE_ASPECTS, rng)
    turn = np.deg2rad(rng.uniform(-LINE_TURN_DEG, LINE_TURN_DEG))
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return _place(points @ rotation, part, rng)


def find_area(points: Points) -> float:
    """Of a simple polygon (the surveyor's formula)."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def paste(image: Images, points: Points, rng: Rng) -> Images:
    """The picture with what lies elsewhere in it, recoloured, inside the polygon."""
    side = image.shape[0]
    inside = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.rint(points * (1 << SUBPIXEL_BITS)).astype(np.int32)], 1, cv2.LINE_8, SUBPIXEL_BITS)
    away = rng.integers(side // 4, side - side // 4, 2)
    piece = np.roll(image, tuple(int(step) for step in away), axis=(0, 1)).astype(np.float64)
    piece = piece * rng.uniform(*GAIN) + rng.uniform(-TINT, TINT, 3)
    changed = np.where(inside[..., np.newaxis] > 0, np.clip(piece, 0, 255), image)
    return np.asarray(changed, np.uint8)


def _shape(corners: Points, size_px: Sequence[int], area: Range, aspects: Sequence[Range], rng: Rng) -> Points:
    """Stretched to an aspect ratio and an area that are drawn, around 0."""
    wide, high = np.ptp(corners, axis=0)
    low, top = aspects[int(rng.integers(len(aspects)))]
    stretched = corners * (rng.uniform(low, top) * high / wide, 1.0)
    wanted = rng.uniform(*area) * size_px[0] * size_px[1]
    return np.asarray((stretched - stretched.mean(axis=0)) * np.sqrt(wanted / find_area(stretched)), np.float64)


def _place(points: Points, part: NDArray[np.uint8], rng: Rng) -> Points:
    """Centred on the part as far as the shape then lies in the picture."""
    on_part = np.argwhere(part)
    y, x = on_part[int(rng.integers(len(on_part)))] if len(on_part) else np.array(part.shape) // 2
    placed = points + np.array([x, y])
    limit = np.array(part.shape[::-1]) - 1.0
    placed = placed - np.maximum(placed.max(axis=0) - limit, 0)
    return np.asarray(placed - np.minimum(placed.min(axis=0), 0), np.float64)
