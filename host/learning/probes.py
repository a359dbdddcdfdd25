"""Small, faint, colourless defects, not drawn as in training, on held-out good pictures: fitness is judged by them.

Large and coloured defects are easy, and every network trained on synthetic ones finds most of those. Real ones are
often a few cells of the map wide and of the product's own colour. A probe covers 2 to 8 cells, and differs from what
is around it as much as a person needs to see it at a glance, not more. Pictures are uint8 (h, w, 3).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from board.preprocess import BLANK
from host.learning.network import MAP_STRIDE_PX
from host.learning.synthetic import measure_change
from host.pictures.objectmask import find_object

CELLS = (2.0, 8.0)  # of the map that a probe covers
CONTRAST = 24.0  # of 255: on an even surface at once seen by a person
BUSY = 1.5  # standard deviations of the surroundings that a probe differs by where they are uneven
MOST_CONTRAST = 96.0
VISIBLE, FEWEST_VISIBLE_PX = 8.0, 16  # mean change over 5 × 5 pixels; a cell's worth of pixels
MOST_TRIES = 30
RING = 3  # the surroundings reach so many radii

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rng = np.random.Generator
Point = tuple[int, int]


def draw_probes(goods: Images, per_kind: int, seed: int, ignored: Mask | None = None) -> dict[str, Images]:
    """For each kind up to `per_kind` pictures, of goods uint8 (n, h, w, 3) in turn.

    A picture on which a kind cannot be seen anywhere (a dislocation of an even surface) is left out. Nothing is painted
    on `ignored` pixels (h, w).
    """
    rng = np.random.default_rng(seed)
    places = [_find_places(good, ignored) for good in goods]
    order = rng.permutation(max(per_kind, len(goods)))[:per_kind] % len(goods)
    drawn = {
        kind: [_draw(probe, goods[index], places[index], rng) for index in order] for kind, probe in PROBES.items()
    }
    return {kind: _blank(np.stack(kept), ignored) for kind, all_ in drawn.items() if (kept := _keep(all_))}


def _keep(drawn: list[Images | None]) -> list[Images]:
    return [picture for picture in drawn if picture is not None]


def _blank(pictures: Images, ignored: Mask | None) -> Images:
    if ignored is not None:
        pictures[:, ignored] = BLANK
    return pictures


def _find_places(good: Images, ignored: Mask | None) -> NDArray[np.intp]:
    """Flat indices of pixels on the part, away from its outline where it is wide enough for that."""
    part = find_object(good)
    if ignored is not None:
        part = part * ~ignored
    inside = np.asarray(cv2.erode(part, np.ones((MAP_STRIDE_PX + 1,) * 2, np.uint8), borderValue=0))
    return np.flatnonzero(inside if inside.any() else part)


def _draw(probe: Probe, good: Images, places: NDArray[np.intp], rng: Rng) -> Images | None:
    """None where it cannot be seen."""
    if not places.size:
        return None
    picture = good.astype(np.float32)
    for _ in range(MOST_TRIES):
        y, x = divmod(int(rng.choice(places)), good.shape[1])
        radius_px = MAP_STRIDE_PX * float(np.sqrt(np.exp(rng.uniform(*np.log(CELLS))) / np.pi))
        changed = np.clip(probe(picture, (x, y), radius_px, rng), 0, 255)
        if (measure_change(picture, changed) > VISIBLE).sum() >= FEWEST_VISIBLE_PX:
            return np.asarray(np.round(changed), np.uint8)
    return None


def _spot(picture: Floats, at: Point, radius_px: float, rng: Rng) -> Floats:
    """A soft oval, darker or brighter: a stain, a pore, a blister."""
    along, across = _axes(picture, at, rng)
    stretch = rng.uniform(1, 1.6)
    distance = np.hypot(along / stretch, across * stretch) / radius_px
    return _shade(picture, np.clip(2.5 * (1.2 - distance), 0, 1), _contrast(picture, at, radius_px), rng)


def _scratch(picture: Floats, at: Point, radius_px: float, rng: Rng) -> Floats:
    """A slightly bent hairline, as long as its area allows at a width of two pixels."""
    along, across = _axes(picture, at, rng)
    length_px = np.pi * radius_px**2 / 2
    across = across - rng.uniform(-0.4, 0.4) * along**2 / length_px
    line = np.clip(1.5 - np.abs(across), 0, 1) * np.clip(length_px / 2 - np.abs(along), 0, 1)
    return _shade(picture, line, 1.5 * _contrast(picture, at, radius_px), rng)


def _dent(picture: Floats, at: Point, radius_px: float, rng: Rng) -> Floats:
    """Lit on one side and in shadow on the other: a dent or a burr."""
    along, across = _axes(picture, at, rng)
    distance = np.hypot(along, across) / radius_px
    slope = along / radius_px * np.exp(-(distance**2)) * 2.3  # ±1 at its steepest
    return np.asarray(picture + (_contrast(picture, at, radius_px) * slope)[..., np.newaxis], np.float32)


def _shift(picture: Floats, at: Point, radius_px: float, rng: Rng) -> Floats:
    """A small piece pulled aside, where that shows: a bent edge, a damaged thread, a broken fibre."""
    along, across = _axes(picture, at, rng)
    pull = radius_px * 0.8 * np.exp(-((np.hypot(along, across) / (1.2 * radius_px)) ** 2))
    heading = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    x, y = (np.asarray(v + turn * pull, np.float32) for v, turn in ((x, np.cos(heading)), (y, np.sin(heading))))
    moved = np.asarray(cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)
    # one pore in place of another is nobody's defect: only an edge that moved is
    return moved if (measure_change(picture, moved) > CONTRAST).sum() >= FEWEST_VISIBLE_PX else picture


Probe = Callable[[Floats, Point, float, Rng], Floats]
PROBES: dict[str, Probe] = {"spot": _spot, "scratch": _scratch, "dent": _dent, "bent edge": _shift}


def _axes(picture: Floats, at: Point, rng: Rng) -> tuple[Floats, Floats]:
    """(h, w) each: pixels from `at` along and across a random heading."""
    heading = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    x, y = x - at[0], y - at[1]
    cosine, sine = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    return np.asarray(x * cosine + y * sine, np.float32), np.asarray(y * cosine - x * sine, np.float32)


def _contrast(picture: Floats, at: Point, radius_px: float) -> float:
    """Of 255: more where the surroundings are uneven, so that a person would see it there too."""
    x, y = at
    reach = round(RING * radius_px)
    around = picture[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].mean(axis=2)
    return float(np.clip(BUSY * around.std(), CONTRAST, MOST_CONTRAST))


def _shade(picture: Floats, opacity: NDArray[np.floating], contrast: float, rng: Rng) -> Floats:
    """Darker or brighter by the contrast, towards where there is room for it."""
    level = float((picture.mean(axis=2) * opacity).sum() / max(float(opacity.sum()), 1e-6))
    room_up, room_down = level + contrast <= 255, level >= contrast
    sign = rng.choice((-1, 1)) if room_up == room_down else (1 if room_up else -1)
    return np.asarray(picture + (sign * contrast * opacity)[..., np.newaxis], np.float32)
