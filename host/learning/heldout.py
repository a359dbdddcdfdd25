"""Defects that no training sees, painted on held-out good pictures: what settings are chosen by.

Six kinds, none made by the training's generator (host/learning/synthetic.py): a network that only knows that
generator's traces does badly here. Test pictures take no part. Pictures are uint8 (h, w, 3).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from host.learning.synthetic import measure_change
from host.pictures.objectmask import find_object

VISIBLE = 8  # of 255, the mean change of 5 × 5 pixels; a defect that stays below it nearly everywhere is drawn anew
FEWEST_VISIBLE_PX = 30
MOST_TRIES = 50  # a part so dark that a kind cannot be seen on it gets whatever came last

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rng = np.random.Generator
Defect = Callable[[Floats, Floats, Rng], Floats]


def draw_heldout(goods: Images, per_kind: int, seed: int) -> dict[str, Images]:
    """For each kind of defect `per_kind` pictures, from goods uint8 (n, h, w, 3)."""
    rng = np.random.default_rng(seed)
    parts = [find_object(image).astype(np.float32) for image in goods]
    drawn = {}
    for kind, defect in DEFECTS.items():
        chosen = rng.integers(0, len(goods), per_kind)
        drawn[kind] = np.stack([_draw(defect, goods[index], parts[index], rng) for index in chosen])
    return drawn


def draw_defect(kind: str, good: Images, rng: Rng) -> Images:
    """A good picture with one defect of a kind of `DEFECTS`."""
    return _draw(DEFECTS[kind], good, find_object(good).astype(np.float32), rng)


def _draw(defect: Defect, good: Images, part: Floats, rng: Rng) -> Images:
    picture = good.astype(np.float32)
    for _ in range(MOST_TRIES):
        changed = np.clip(defect(picture, part, rng), 0, 255)
        if (measure_change(picture, changed) > VISIBLE).sum() >= FEWEST_VISIBLE_PX:
            break
    return np.round(changed).astype(np.uint8)


def _rot(picture: Floats, part: Floats, rng: Rng) -> Floats:
    """A brown soft spot with a dark middle."""
    spot = _spot(part, rng, 0.06, 0.3)
    brown = np.array([0.55, 0.35, 0.15], np.float32) * (0.8 * picture.mean(axis=2, keepdims=True) + 40)
    return _blend(picture, brown, spot * rng.uniform(0.5, 0.95))


def _mould(picture: Floats, part: Floats, rng: Rng) -> Floats:
    """Grainy white around grainy blue-green."""
    spot = _spot(part, rng, 0.08, 0.3)
    grain = cv2.GaussianBlur(rng.standard_normal(part.shape, np.float32), (0, 0), 0.7)[..., np.newaxis]
    core = np.clip(3 * spot - 1.5, 0, 1)[..., np.newaxis]
    green = np.array([110, 135, 105], np.float32) + 30 * grain
    return _blend(picture, (215 + 25 * grain) * (1 - core) + green * core, spot * rng.uniform(0.6, 1))


def _dent(picture: Floats, part: Floats, rng: Rng) -> Floats:
    """The surface drawn inwards or outwards, one side lit and one dark."""
    side = min(part.shape)
    x0, y0 = _point(part, rng)
    radius_px = rng.uniform(0.08, 0.2) * side
    y, x = np.mgrid[: part.shape[0], : part.shape[1]].astype(np.float32)
    dx, dy = x - np.float32(x0), y - np.float32(y0)
    depth = np.clip(1 - np.hypot(dx, dy) / radius_px, 0, 1).astype(np.float32) ** np.float32(1.5)
    pull = np.float32(rng.choice((-0.8, 0.8)))
    moved = cv2.remap(picture, x + pull * dx * depth, y + pull * dy * depth, cv2.INTER_LINEAR)
    heading = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(1, 2.5) * depth * (dx * np.cos(heading) + dy * np.sin(heading)) / radius_px
    return np.asarray(moved * light[..., np.newaxis], np.float32)


def _cut(picture: Floats, part: Floats, rng: Rng) -> Floats:
    """A wavy strip missing: the background's corner shows."""
    side = min(part.shape)
    x0, y0 = _point(part, rng)
    y, x = np.mgrid[: part.shape[0], : part.shape[1]]
    heading = rng.uniform(0, 2 * np.pi)
    across = (x - x0) * np.cos(heading) + (y - y0) * np.sin(heading)
    along = (y - y0) * np.cos(heading) - (x - x0) * np.sin(heading)
    across = across - 3 * np.sin(along / rng.uniform(3, 8) + rng.uniform(0, 6))
    strip = (np.abs(across) < rng.uniform(0.015, 0.06) * side) & (np.abs(along) < rng.uniform(0.06, 0.25) * side)
    fill = picture[2, 2] if rng.random() < 0.5 else np.full(3, rng.uniform(0, 255), np.float32)
    return _blend(picture, np.broadcast_to(fill, picture.shape), strip * part)


def _smear(picture: Floats, part: Floats, rng: Rng) -> Floats:
    """Dragged along one direction, a little brighter or darker."""
    length_px = int(rng.integers(9, 22))
    line = np.zeros((length_px, length_px), np.float32)
    line[length_px // 2] = 1
    middle = (length_px / 2 - 0.5, length_px / 2 - 0.5)
    matrix = cv2.getRotationMatrix2D(middle, rng.uniform(0, 180), 1)
    turned = np.asarray(cv2.warpAffine(line, matrix, (length_px, length_px)), np.float32)
    dragged = np.asarray(cv2.filter2D(picture, -1, turned / turned.sum()), np.float32)
    return _blend(picture, dragged * rng.uniform(0.75, 1.25) + rng.uniform(-15, 25), _spot(part, rng, 0.08, 0.25))


def _wither(picture: Floats, part: Floats, rng: Rng) -> Floats:
    """The whole part dull, dark and patchy."""
    cells = rng.uniform(0, 1, (5, 5)).astype(np.float32)
    patches = np.asarray(cv2.resize(cells, part.shape[::-1], interpolation=cv2.INTER_CUBIC))[..., np.newaxis]
    grey = picture.mean(axis=2, keepdims=True)
    dull = (grey + (picture - grey) * (1 - 0.7 * patches)) * (1 - rng.uniform(0.3, 0.6) * patches)
    return _blend(picture, dull, part)


DEFECTS: dict[str, Defect] = {
    "rot": _rot, "mould": _mould, "dent": _dent, "cut": _cut, "smear": _smear, "wither": _wither,
}  # fmt: skip


def _spot(part: Floats, rng: Rng, smallest: float, largest: float) -> Floats:
    """Opacity float32 (h, w) of a closed curve with six waves; radii are shares of the side."""
    side = min(part.shape)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    waves = sum(rng.normal(0, 0.25 / wave) * np.cos(wave * angles + rng.uniform(0, 6.3)) for wave in range(1, 7))
    radii = rng.uniform(smallest, largest) * side * (1 + waves)
    points = np.array(_point(part, rng)) + np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)
    region = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(region, [np.round(points * 16).astype(np.int32)], (255,), cv2.LINE_AA, shift=4)
    return np.asarray(cv2.GaussianBlur(region.astype(np.float32) / 255, (0, 0), 1.5) * part, np.float32)


def _point(part: Floats, rng: Rng) -> tuple[int, int]:
    """(x, y) on the part."""
    inside = np.flatnonzero(part)
    y, x = np.divmod(int(inside[int(rng.integers(inside.size))]), part.shape[1])
    return int(x), int(y)


def _blend(picture: Floats, material: NDArray[np.floating], opacity: NDArray[np.floating]) -> Floats:
    return np.asarray(picture + opacity[..., np.newaxis] * (material - picture), np.float32)
