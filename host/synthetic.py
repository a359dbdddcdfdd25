"""Synthetic defects painted on good pictures, with the mask of what they changed.

In the line of CutPaste (Li et al. 2021) and DRAEM (Zavrtanik et al. 2021): a random region, filled with foreign
texture, a piece of another good picture, a flat colour, or the part's own surface recoloured or blurred.
Pictures are float32 (h, w, 3) in 0..1, square.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.uint8]
Rng = np.random.Generator

VISIBLE_CHANGE = 0.025  # of full scale, averaged over 5 × 5 pixels; a smaller change is nobody's defect
SMALLEST_RADIUS, LARGEST_RADIUS = 0.012, 0.35  # of the picture's side
OUTSIDE_SHARE = 0.2  # of the defects may reach beyond the part


def add_defects(picture: Floats, part: Mask, goods: NDArray[np.uint8], rng: Rng) -> tuple[Floats, Floats]:
    """One to three defects: the changed picture, and float32 (h, w) with 1 defect, 0 good, NaN too faint to say.

    `goods` uint8 (n, h, w, 3) are the good pictures that pieces are taken from.
    """
    changed = picture
    touched = np.zeros(part.shape, np.float32)
    for _ in range(int(rng.choice((1, 2, 3), p=(0.7, 0.2, 0.1)))):
        opacity = draw_region(part, rng) * np.float32(1 if rng.random() < 0.4 else rng.uniform(0.25, 1))
        material = MATERIALS[int(rng.integers(len(MATERIALS)))](changed, goods, rng)
        changed = changed + opacity[..., np.newaxis] * (material - changed)
        touched = np.maximum(touched, opacity)
    changed = np.clip(changed, 0, 1).astype(np.float32)
    return changed, _label(picture, changed, touched)


def draw_region(part: Mask, rng: Rng) -> Floats:
    """Opacity of one defect, float32 (h, w) in 0..1, centred on the part."""
    side = part.shape[0]
    radius_px = side * float(np.exp(rng.uniform(np.log(SMALLEST_RADIUS), np.log(LARGEST_RADIUS))))
    inside = np.flatnonzero(part)
    y, x = np.divmod(inside[int(rng.integers(inside.size))], side)
    draw = SHAPES[int(rng.choice(len(SHAPES), p=SHAPE_SHARES))]
    region = draw(side, np.array([x, y], np.float64), radius_px, rng)
    if rng.random() < 0.5:
        region = _blur(region, 0.5 + 0.3 * radius_px * rng.random())
    return region if rng.random() < OUTSIDE_SHARE else region * part


def noise(side_px: int, rng: Rng) -> Floats:
    """Smooth noise, float32 (side, side), about 0..1, from large clouds to fine grain by chance."""
    cells = int(2 ** rng.uniform(1, 5.5))
    field = np.zeros((side_px, side_px), np.float32)
    for octave in range(3):
        grid = rng.standard_normal((cells << octave, cells << octave), np.float32)
        field += np.float32(0.5**octave) * np.asarray(cv2.resize(grid, (side_px, side_px)), np.float32)
    field -= field.min()
    return field / max(float(field.max()), 1e-6)


def _label(before: Floats, after: Floats, touched: Floats) -> Floats:
    difference = np.asarray(cv2.blur(np.abs(after - before).max(axis=2), (5, 5)), np.float32)
    visible = (difference > VISIBLE_CHANGE) & (touched > 0.15)
    label = visible.astype(np.float32)
    label[~visible & ((touched > 0.02) | (difference > VISIBLE_CHANGE / 2))] = np.nan
    return label


def _blob(side: int, centre: NDArray[np.float64], radius_px: float, rng: Rng) -> Floats:
    """Noise above a level that rises with the distance from the centre: ragged islands."""
    y, x = np.ogrid[:side, :side]
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 0.9))
    u = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
    v = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
    distance = np.sqrt((u / stretch) ** 2 + (v * stretch) ** 2) / radius_px
    return np.asarray(noise(side, rng) > distance - rng.uniform(0.0, 0.6), np.float32)


def _polygon(side: int, centre: NDArray[np.float64], radius_px: float, rng: Rng) -> Floats:
    corners = int(rng.integers(3, 14))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = radius_px * rng.uniform(0.4, 1.3, corners)
    points = centre + np.stack([np.cos(angles) * reach, np.sin(angles) * reach * rng.uniform(0.3, 1)], 1)
    region = np.zeros((side, side), np.uint8)
    cv2.fillPoly(region, [_sixteenths(points)], (255,), cv2.LINE_AA, shift=4)
    return np.asarray(region / 255, np.float32)


def _stroke(side: int, centre: NDArray[np.float64], radius_px: float, rng: Rng) -> Floats:
    """One to three wandering lines: scratches, hairs, cracks."""
    region = np.zeros((side, side), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0, 0.7), 8))
        steps = np.stack([np.cos(heading), np.sin(heading)], 1) * max(radius_px, 5) * rng.uniform(0.15, 0.5)
        points = centre + np.cumsum(steps, 0)
        cv2.polylines(region, [_sixteenths(points)], False, (255,), int(rng.integers(1, 4)), cv2.LINE_AA, 4)
    return np.asarray(region / 255, np.float32)


def _sixteenths(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """OpenCV draws at fractions of a pixel when told `shift=4`."""
    return np.round(points * 16).astype(np.int32)


def _blur(field: Floats, sigma_px: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma_px), np.float32)


def _foreign_texture(picture: Floats, _goods: NDArray[np.uint8], rng: Rng) -> Floats:
    """Two colours mixed by noise, with grain."""
    side = picture.shape[0]
    low, high = rng.random((2, 3), np.float32)
    texture = low + noise(side, rng)[..., np.newaxis] * (high - low)
    texture += rng.uniform(0, 0.15) * rng.standard_normal((side, side, 1), np.float32)
    if rng.random() < 0.5:  # towards the part's own brightness, so that contrast alone does not give it away
        texture += np.float32(rng.uniform(0.3, 1)) * (picture.mean((0, 1)) - texture.mean((0, 1)))
    return np.asarray(texture, np.float32)


def _own_piece(picture: Floats, goods: NDArray[np.uint8], rng: Rng) -> Floats:
    """A good picture turned, shifted and zoomed."""
    side = picture.shape[0]
    donor = goods[int(rng.integers(len(goods)))].astype(np.float32) / 255
    move = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 360), float(np.exp(rng.uniform(-0.7, 1.2))))
    move[:, 2] += rng.uniform(-0.35, 0.35, 2) * side
    return np.asarray(cv2.warpAffine(donor, move, (side, side), borderMode=cv2.BORDER_REFLECT), np.float32)


def _flat_colour(picture: Floats, _goods: NDArray[np.uint8], rng: Rng) -> Floats:
    """Any colour, a grey, or one met in the picture."""
    y, x = rng.integers(0, picture.shape[0], 2)
    choices = (rng.random(3), np.full(3, rng.random()), picture[y, x])
    return np.broadcast_to(choices[int(rng.integers(3))].astype(np.float32), picture.shape)


def _recoloured(picture: Floats, _goods: NDArray[np.uint8], rng: Rng) -> Floats:
    """Bleached, browned, darkened, stained: the picture itself with other saturation, gain and tint."""
    grey = picture.mean(2, keepdims=True)
    gain = np.exp(rng.normal(0, 0.45) + rng.normal(0, 0.22, 3)).astype(np.float32)
    changed = (grey + rng.uniform(0, 1.7) * (picture - grey)) * gain + rng.normal(0, 0.1)
    return np.asarray(changed, np.float32)


def _blurred(picture: Floats, _goods: NDArray[np.uint8], rng: Rng) -> Floats:
    return _blur(picture, rng.uniform(1.5, 6))


Shape = Callable[[int, NDArray[np.float64], float, Rng], Floats]
SHAPES: tuple[Shape, ...] = (_blob, _polygon, _stroke)
SHAPE_SHARES = (0.4, 0.25, 0.35)
Material = Callable[[Floats, NDArray[np.uint8], Rng], Floats]
# Recolouring stands twice: most real defects keep the part's texture.
MATERIALS: tuple[Material, ...] = (_foreign_texture, _own_piece, _flat_colour, _recoloured, _recoloured, _blurred)
