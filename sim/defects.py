"""What irregular things are made of: noise fields, blots, strokes, and the mask of what they changed.

Colours in the renderers are linear light, 0..1, float32; `to_levels` turns them into picture levels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# A change of 8 levels of 255 in any channel is what a careful person still sees on a textured surface.
VISIBLE_LEVELS = 8
CRUMB_PX = 16  # a fragment with fewer is no region of its own
_GAP = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


def value_noise(rng: np.random.Generator, shape_px: tuple[int, int], cell_px: float, octaves: int = 1) -> Field:
    """Smooth noise (h, w), zero mean, deviation about 1; each octave halves the cell and the amplitude."""
    height_px, width_px = shape_px
    total = np.zeros(shape_px, np.float32)
    for octave in range(octaves):
        cell = cell_px / 2**octave
        grid = rng.standard_normal((int(height_px / cell) + 3, int(width_px / cell) + 3), np.float32)
        place = np.array([[1 / cell, 0, 1], [0, 1 / cell, 1]], np.float32)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        layer = cv2.warpAffine(grid, place, (width_px, height_px), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        total += layer * np.float32(1.4 * 0.5**octave)
    return total


def grain(rng: np.random.Generator, shape_px: tuple[int, int], fine_px: float, coarse_px: float) -> Field:
    """Noise (h, w) with bumps between two sizes only (difference of Gaussians), deviation 1."""
    white = rng.standard_normal(shape_px, np.float32)
    band = cv2.GaussianBlur(white, (0, 0), fine_px) - cv2.GaussianBlur(white, (0, 0), coarse_px)
    return np.asarray(band / band.std(), np.float32)


def smoothstep(start: float, end: float, value: Field) -> Field:
    """0 at `start`, 1 at `end` (which may be the smaller one), smooth between."""
    t = np.clip((value - np.float32(start)) / np.float32(end - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def paint(base: Field, colour: Field, coverage: Field) -> Field:
    """`colour` ((3,) or (h, w, 3)) over `base` (h, w, 3) where `coverage` (h, w) is 1."""
    return np.asarray(base + (colour - base) * coverage[..., None], np.float32)


def linear(red: float, green: float, blue: float) -> Field:
    """Picture levels 0..255 as linear light (3,). Gamma 2 instead of 2.2: a square root is cheap."""
    return np.asarray(np.square(np.array([red, green, blue], np.float32) / np.float32(255)))


def tone(rng: np.random.Generator, one: tuple[float, ...], other: tuple[float, ...]) -> Field:
    """Linear light (3,) of a random colour between two, both in picture levels."""
    share = rng.random()
    red, green, blue = ((1 - share) * a + share * b + rng.normal(0, 4) for a, b in zip(one, other, strict=True))
    return linear(max(red, 0), max(green, 0), max(blue, 0))


def to_levels(light: Field) -> Picture:
    """Linear light (h, w, 3) as picture levels; more than 0.8 is compressed, as a camera's knee does."""
    knee = np.where(light > 0.8, 0.8 + (light - 0.8) / (1 + 2.5 * np.maximum(light - 0.8, 0)), light)
    return np.asarray(np.sqrt(np.clip(knee, 0, 1)) * 255 + 0.5).astype(np.uint8)


def wander(
    rng: np.random.Generator, start_px: tuple[float, float], heading_rad: float, length_px: float, bend: float
) -> Field:
    """Points (n, 2) as x, y of a curve that starts somewhere and turns at random by about `bend` rad in all."""
    steps = max(4, int(length_px / 3))
    turns = rng.normal(0, bend / np.sqrt(steps), steps).cumsum() + rng.normal(0, bend) * np.linspace(-0.5, 0.5, steps)
    heading = heading_rad + turns
    x = start_px[0] + np.cumsum(np.cos(heading)) * length_px / steps
    y = start_px[1] + np.cumsum(np.sin(heading)) * length_px / steps
    return np.stack([x, y], axis=1).astype(np.float32)


def stroke(shape_px: tuple[int, int], points_px: Field, width_px: float) -> Field:
    """Coverage (h, w), 0..1, of a curve through `points_px` (n, 2) as x, y."""
    canvas = np.zeros(shape_px, np.uint8)
    fixed = np.round(points_px * 16).astype(np.int32)  # cv2 draws with 4 fractional bits
    cv2.polylines(canvas, [fixed.reshape(-1, 1, 2)], False, 255, max(1, round(width_px)), cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(canvas, (0, 0), 0.6).astype(np.float32)
    strength = min(1.0, width_px) * 1.3 / 255  # a line of a pixel loses a quarter to the blur
    return np.asarray(np.minimum(soft * np.float32(strength), 1))


def dots(shape_px: tuple[int, int], centres_px: Field, radii_px: Field, strengths: Field) -> Field:
    """Coverage (h, w), 0..1, of round specks: centres (n, 2) as x, y, radii (n,), strengths (n,) of 0..1."""
    canvas = np.zeros(shape_px, np.uint8)  # cv2 smooths edges on 8-bit pictures only
    for (x, y), radius, strength in zip(centres_px, radii_px, strengths, strict=True):
        centre = (round(float(x) * 16), round(float(y) * 16))
        cv2.circle(canvas, centre, round(float(radius) * 16), round(float(strength) * 255), -1, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.6).astype(np.float32) / np.float32(255))


def outline_change(before: Picture, after: Picture) -> Mask:
    """The visible change (h, w) as a person outlines it: across narrow gaps, without crumbs at a frayed edge."""
    changed = (cv2.absdiff(before, after).max(axis=2) > VISIBLE_LEVELS).astype(np.uint8)
    closed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, _GAP)
    _, regions, statistics, _ = cv2.connectedComponentsWithStats(closed)
    areas_px = statistics[:, cv2.CC_STAT_AREA]
    outlined = areas_px >= min(CRUMB_PX, areas_px[1:].max(initial=0))  # small ones count where there is nothing else
    outlined[0] = False
    return np.asarray(outlined[regions])
