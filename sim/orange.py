"""Oranges as a camera above the belt sees them: a lit sphere with peel, a pole, a colour of its own, and defects.

A fruit is a `Peel`: geometry, relief, albedo and gloss of its visible half. A defect changes the peel before the light
falls on it, so that shading, pores and highlight stay right in and around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sim.defects import (
    Field,
    Mask,
    Picture,
    dots,
    grain,
    linear,
    outline_change,
    paint,
    smoothstep,
    stroke,
    to_levels,
    tone,
    value_noise,
    wander,
)

SPRITE_PX = 216
_SHAPE_PX = (SPRITE_PX, SPRITE_PX)
RADIUS_PX = (86.0, 99.0)  # at 2.5 px/mm: 69 to 79 mm across


@dataclass(frozen=True)
class Peel:
    """The visible half of a fruit, every field (SPRITE_PX, SPRITE_PX[, 3])."""

    radius_px: float
    alpha: Picture
    normal: Field  # unit vectors of the smooth body: x right, y down, z to the camera
    relief_px: Field  # height above the smooth body
    albedo: Field  # linear light, RGB
    gloss: Field  # strength of the highlight, about 1


def render(look: np.random.Generator, defect: str, harm: np.random.Generator) -> tuple[Picture, Picture, Mask]:
    """RGB, alpha and defect mask of the fruit that `look` draws; `harm` draws the defect ('' for none)."""
    peel = grow(look)
    good = shade(peel)
    if not defect:
        return good, peel.alpha, np.zeros(good.shape[:2], np.bool_)
    bad = shade(DEFECTS[defect](peel, harm))
    mask = outline_change(good, bad) & (peel.alpha > 0)
    return bad, peel.alpha, mask


def grow(rng: np.random.Generator) -> Peel:
    """A good fruit."""
    radius_px = float(rng.uniform(*RADIUS_PX))
    alpha, normal = _body(rng, radius_px)
    relief, pits = _pores(rng, normal, radius_px)
    albedo = _colour(rng, normal, pits)
    peel = Peel(radius_px, alpha, normal, relief, albedo, np.full(alpha.shape, rng.uniform(0.75, 1.25), np.float32))
    return _pole(rng, _freckles(rng, peel))


def shade(peel: Peel) -> Picture:
    """The fruit under the station's light: a large soft lamp upper left, a weaker one right, a pale dome above."""
    slope_x = cv2.Sobel(peel.relief_px, cv2.CV_32F, 1, 0, scale=1 / 8)
    slope_y = cv2.Sobel(peel.relief_px, cv2.CV_32F, 0, 1, scale=1 / 8)
    nx, ny, nz = peel.normal[..., 0] - slope_x, peel.normal[..., 1] - slope_y, peel.normal[..., 2]
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    nx, ny, nz = nx / length, ny / length, nz / length
    light = np.zeros(peel.albedo.shape, np.float32)
    shine = np.zeros(peel.alpha.shape, np.float32)
    for (lx, ly, lz), power in (((-0.38, -0.46, 0.80), 0.62), ((0.62, 0.10, 0.78), 0.22)):
        facing = nx * lx + ny * ly + nz * lz
        for channel, wrap in enumerate((0.30, 0.18, 0.10)):  # light seeps through peel, red the farthest
            light[..., channel] += np.maximum((facing + wrap) / (1 + wrap), 0) * power
        shine += _highlight(nx, ny, nz, (lx, ly, lz)) * power
    dome = 0.10 + 0.22 * np.maximum(peel.normal[..., 2], 0)
    light += dome[..., None]
    return to_levels(peel.albedo * light * 1.12 + (shine * peel.gloss)[..., None] * linear(255, 250, 240))


def _highlight(nx: Field, ny: Field, nz: Field, lamp: tuple[float, float, float]) -> Field:
    """Blinn-Phong with the viewer straight above: a broad waxy lobe and a narrow one that the pores break up."""
    half = np.array([lamp[0], lamp[1], lamp[2] + 1])
    half /= np.linalg.norm(half)
    facing = np.maximum(nx * np.float32(half[0]) + ny * np.float32(half[1]) + nz * np.float32(half[2]), 0)
    squared = facing * facing
    fourth = squared * squared
    lobe16 = np.square(np.square(fourth))
    lobe64 = np.square(np.square(lobe16))
    return np.asarray(0.07 * lobe16 + 0.30 * lobe64 * np.sqrt(lobe64), np.float32)


def _body(rng: np.random.Generator, radius_px: float) -> tuple[Picture, Field]:
    """Alpha (h, w) and smooth normals (h, w, 3) of a slightly irregular ball; normals go on beyond the edge."""
    y, x = np.mgrid[:SPRITE_PX, :SPRITE_PX].astype(np.float32) - np.float32((SPRITE_PX - 1) / 2)
    angle = np.arctan2(y, x)
    outline = np.full(x.shape, radius_px, np.float32)
    for wave, spread in ((2, 0.014), (3, 0.006), (4, 0.003)):
        swing = np.float32(np.clip(rng.normal(0, spread), -0.025, 0.025))
        outline *= 1 + swing * np.cos(wave * angle + np.float32(rng.uniform(0, 2 * np.pi)))
    rho = np.hypot(x, y) / outline
    alpha = np.clip((1 - rho) * outline + 0.5, 0, 1) * 255
    inside = np.minimum(rho, 0.99) / np.maximum(rho, 1e-6) / outline
    nx, ny = x * inside, y * inside
    normal = np.stack([nx, ny, np.sqrt(1 - nx * nx - ny * ny)], axis=2)
    return np.round(alpha).astype(np.uint8), normal.astype(np.float32)


def _pores(rng: np.random.Generator, normal: Field, radius_px: float) -> tuple[Field, Field]:
    """Relief in px and pit strength 0..1.3 of the peel: dimples 1 to 2 mm apart, laid on the ball undistorted."""
    side = int(np.pi * radius_px) + 8
    dimples = grain(rng, (side, side), *sorted(rng.uniform((0.9, 1.9), (1.25, 2.6))))
    swell = value_noise(rng, (side, side), 26, 2)
    rho = np.hypot(normal[..., 0], normal[..., 1])
    stretch = np.arcsin(rho) / np.maximum(rho, 1e-6) * np.float32(radius_px)
    flat_x = (normal[..., 0] * stretch + side / 2).astype(np.float32)
    flat_y = (normal[..., 1] * stretch + side / 2).astype(np.float32)
    pits = np.clip(dimples - np.float32(0.7), 0, 1.3)
    depth = np.float32(rng.uniform(0.16, 0.34))
    relief = (swell - dimples * depth) * np.float32(0.45) - pits * depth
    both = cv2.remap(np.dstack([relief, pits]), flat_x, flat_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(both[..., 0], np.float32), np.asarray(both[..., 1], np.float32)


def _colour(rng: np.random.Generator, normal: Field, pits: Field) -> Field:
    """Albedo: between deep and yellowish orange, cloudy, darker in the pits; some fruits keep a greenish side."""
    shape = pits.shape
    ripeness = np.float32(rng.beta(2, 2)) + np.float32(0.10) * value_noise(rng, shape, 70, 3)
    ripeness = np.clip(ripeness, 0, 1)
    albedo = paint(np.broadcast_to(linear(247, 168, 38), (*shape, 3)), linear(234, 102, 14), ripeness)
    if rng.random() < 0.35:
        side = _direction(rng)
        facing = normal @ side + np.float32(0.15) * value_noise(rng, shape, 50, 2)
        albedo = paint(albedo, linear(176, 156, 40), smoothstep(0.3, 1.3, facing) * np.float32(rng.uniform(0.2, 0.6)))
    brightness = np.float32(rng.uniform(0.86, 1.04)) - np.float32(0.20) * pits
    return np.asarray(albedo * brightness[..., None], np.float32)


def _freckles(rng: np.random.Generator, peel: Peel) -> Peel:
    """A few pale specks that every good fruit may have: no defect, below a millimetre and faint."""
    count = int(rng.integers(0, 9))
    places = rng.uniform(20, SPRITE_PX - 20, (count, 2))
    specks = dots(_SHAPE_PX, places, rng.uniform(0.5, 1.1, count), rng.uniform(0.15, 0.5, count))
    return replace(peel, albedo=paint(peel.albedo, linear(226, 168, 84), specks))


def _pole(rng: np.random.Generator, peel: Peel) -> Peel:
    """The stem's calyx or, seen from the other side, the blossom's scar, in a dimple with furrows."""
    axis = _direction(rng)
    is_stem_side = rng.random() < 0.55
    across, along = _tangents(axis)
    u, v = peel.normal @ across, peel.normal @ along
    near = np.hypot(u, v)
    near = np.where(peel.normal @ axis > 0, near, 9).astype(np.float32)
    angle = np.arctan2(v, u)
    furrow = _furrows(rng, angle)
    reach = np.float32(rng.uniform(0.13, 0.24))
    bowl = np.exp(-np.square(near / reach))
    ring = np.exp(-np.square((near - reach) / (reach * 0.75)))
    relief = peel.relief_px - bowl * np.float32(rng.uniform(2.0, 4.5))
    relief = relief + ring * furrow * np.float32(rng.uniform(0.5, 1.3))
    pale = paint(peel.albedo, linear(214, 168, 60), bowl * np.float32(rng.uniform(0.1, 0.45)))
    peel = replace(peel, relief_px=relief, albedo=pale)
    return _calyx(rng, peel, near, angle) if is_stem_side else _scar(rng, peel, near)


def _furrows(rng: np.random.Generator, angle: Field) -> Field:
    """Relief around the pole, -1..1: folds that run outwards at uneven angles."""
    table = np.zeros(512, np.float32)
    turn = np.linspace(0, 2 * np.pi, 512, endpoint=False)
    for wave in (5, 7, 9, 12):
        table += (rng.normal(0, 0.45) * np.cos(wave * turn + rng.uniform(0, 6.3))).astype(np.float32)
    return table[((angle + np.pi) * (512 / (2 * np.pi))).astype(np.int32) % 512]


def _calyx(rng: np.random.Generator, peel: Peel, near: Field, angle: Field) -> Peel:
    """A green-brown star of five lobes with the pale cut stem in it."""
    size = np.float32(rng.uniform(0.055, 0.085))
    lobes = size * (1 + np.float32(0.22) * np.cos(5 * angle + np.float32(rng.uniform(0, 6.3))))
    lobes = lobes * (1 + np.float32(0.10) * value_noise(rng, _SHAPE_PX, 5))
    star = smoothstep(1.15, 0.85, near / lobes)
    dark = smoothstep(1.9, 0.9, near / lobes) * (1 - star)
    core = smoothstep(0.55, 0.35, near / size)
    green = tone(rng, (84, 92, 34), (132, 118, 62))
    albedo = paint(peel.albedo, linear(120, 72, 14), dark * np.float32(0.5))
    albedo = paint(albedo, green * (1 + np.float32(0.18) * value_noise(rng, _SHAPE_PX, 3))[..., None], star)
    albedo = paint(albedo, tone(rng, (120, 96, 52), (186, 164, 104)), core)
    relief = peel.relief_px + star * 1.6 + core * 0.9
    return replace(peel, albedo=albedo, relief_px=relief, gloss=peel.gloss * (1 - 0.85 * star))


def _scar(rng: np.random.Generator, peel: Peel, near: Field) -> Peel:
    """The small brown blossom scar; on navel fruits a wider wrinkled mouth."""
    size = np.float32(rng.choice([rng.uniform(0.018, 0.035), rng.uniform(0.05, 0.09)], p=[0.7, 0.3]))
    rough = near / size * np.exp(np.float32(0.2) * value_noise(rng, _SHAPE_PX, 5, 2))
    spot = smoothstep(1.2, 0.6, rough)
    lip = np.exp(-np.square((rough - 1.5) / 0.45))
    albedo = paint(peel.albedo, tone(rng, (96, 58, 20), (140, 92, 40)), spot * np.float32(0.85))
    relief = peel.relief_px - spot * 1.5 + lip * 1.2
    return replace(peel, albedo=albedo, relief_px=relief, gloss=peel.gloss * (1 - 0.7 * spot))


def _direction(rng: np.random.Generator, rim: float = 1.0) -> Field:
    """A random unit vector of the visible half, closer to the middle than `rim` (1 is the outline)."""
    turn, reach = rng.uniform(0, 2 * np.pi), rim * np.sqrt(rng.uniform(0, 1))
    return np.array([reach * np.cos(turn), reach * np.sin(turn), np.sqrt(1 - reach * reach)], np.float32)


def _tangents(axis: Field) -> tuple[Field, Field]:
    """Two unit vectors at right angles to `axis` and to each other."""
    side = np.cross(axis, (0.0, 1.0, 0.0) if abs(axis[1]) < 0.9 else (1.0, 0.0, 0.0))
    side /= np.linalg.norm(side)
    return side.astype(np.float32), np.cross(axis, side).astype(np.float32)


# Defects: each takes a good peel and returns the harmed one.


def _spot(rng: np.random.Generator, peel: Peel, size_rad: float, ragged: float, cell_px: float) -> Field:
    """Distance (h, w) from a random place on the fruit in units of `size_rad`, with a noise-shaped outline."""
    place = _direction(rng, 0.72)
    across, along = _tangents(place)
    squeeze = np.float32(rng.uniform(0.75, 1.3))
    u, v = peel.normal @ across * squeeze, peel.normal @ along / squeeze
    apart = np.where(peel.normal @ place > 0, np.hypot(u, v), 9) / np.float32(np.sin(size_rad))
    # exp, not 1 + noise: noise below -1 would open a second spot far away
    return np.asarray(apart * np.exp(np.float32(ragged) * value_noise(rng, _SHAPE_PX, cell_px, 4)), np.float32)


# Green, blue and olive Penicillium, each between a young and an old tone.
_SPORES = (((142, 160, 132), (84, 106, 82)), ((150, 172, 176), (92, 116, 124)), ((166, 164, 128), (112, 110, 76)))


def _mould(peel: Peel, rng: np.random.Generator) -> Peel:
    """Penicillium: softened peel, then white mycelium, then blue-green spores in the old middle."""
    size_rad = float(rng.uniform(0.13, 0.62))
    apart = _spot(rng, peel, size_rad, 0.09, 12 + size_rad * 70)
    fuzz = grain(rng, _SHAPE_PX, 0.6, 2.0)
    cloud = value_noise(rng, _SHAPE_PX, 12, 2)
    soaked = smoothstep(rng.uniform(1.25, 1.6), 1.0, apart)
    felt = smoothstep(-0.8, 1.4, (1 - apart) * rng.uniform(4, 9) + fuzz * 0.45 + cloud * 0.25)
    spores = smoothstep(-0.2, 1.3, (rng.uniform(0.2, 0.85) - apart) * 5 + fuzz * 0.25 + cloud * 0.35)
    white = tone(rng, (206, 200, 180), (240, 238, 230)) * (1 + np.float32(0.07) * cloud)[..., None]
    green = tone(rng, *_SPORES[int(rng.integers(len(_SPORES)))]) * (1 + np.float32(0.12) * (fuzz + cloud))[..., None]
    albedo = paint(peel.albedo, tone(rng, (178, 104, 36), (130, 78, 36)), soaked * np.float32(rng.uniform(0.25, 0.75)))
    albedo = paint(albedo, white, felt * np.float32(rng.uniform(0.8, 0.96)))
    albedo = paint(albedo, green, spores * felt * np.float32(0.95))
    relief = peel.relief_px * (1 - 0.75 * felt) + felt * (1.2 + 0.16 * fuzz)
    return replace(peel, albedo=albedo, relief_px=relief, gloss=peel.gloss * (1 - felt))


def _bruise(peel: Peel, rng: np.random.Generator) -> Peel:
    """A soft brown sunken place."""
    apart = _spot(rng, peel, float(rng.uniform(0.14, 0.36)), 0.12, 22)
    depth = np.float32(rng.uniform(0.45, 1.0))
    soft = smoothstep(1.3, 0.35, apart) * depth
    tint = np.array([0.50, 0.36, 0.55], np.float32)
    albedo = peel.albedo * (1 - soft[..., None] * (1 - tint))
    relief = peel.relief_px - soft * np.float32(rng.uniform(1.0, 4.0))
    return replace(peel, albedo=albedo, relief_px=relief, gloss=peel.gloss * (1 - 0.5 * soft))


def _puncture(peel: Peel, rng: np.random.Generator) -> Peel:
    """A small dark hole, its lip raised and dried, a brown halo around."""
    apart = _spot(rng, peel, float(rng.uniform(0.024, 0.065)), 0.12, 6)
    hole = smoothstep(1.1, 0.7, apart)
    lip = np.exp(-np.square((apart - 1.35) / 0.35)).astype(np.float32)
    halo = smoothstep(3.2, 1.2, apart) * np.float32(rng.uniform(0.2, 0.65))
    albedo = paint(peel.albedo, linear(150, 84, 22), halo)
    albedo = paint(albedo, linear(206, 158, 86), lip * np.float32(0.45))
    albedo = paint(albedo, linear(34, 20, 10), hole)
    relief = peel.relief_px + lip * 1.3 - hole * 2.5
    return replace(peel, albedo=albedo, relief_px=relief, gloss=peel.gloss * (1 - hole))


def _scratch(peel: Peel, rng: np.random.Generator) -> Peel:
    """A thin curved scar: corky and pale when old, brown when fresh; sometimes two side by side."""
    middle = (SPRITE_PX - 1) / 2
    place = _direction(rng, 0.6)
    heading = float(rng.uniform(0, 2 * np.pi))
    length_px = float(rng.uniform(24, 85))
    line = np.zeros(_SHAPE_PX, np.float32)
    for offset_px in (0.0, *rng.uniform(4, 9, int(rng.random() < 0.3))):
        x = middle + place[0] * peel.radius_px - np.cos(heading) * length_px / 2 - np.sin(heading) * offset_px
        y = middle + place[1] * peel.radius_px - np.sin(heading) * length_px / 2 + np.cos(heading) * offset_px
        curve = wander(rng, (x, y), heading, length_px * (1 if not offset_px else 0.6), 0.6)
        line = np.maximum(line, stroke(_SHAPE_PX, curve, float(rng.uniform(0.9, 2.6))))
    broken = line * (0.3 + 0.7 * smoothstep(-1.6, 0.4, value_noise(rng, _SHAPE_PX, 9, 2)))
    broken *= smoothstep(0.12, 0.3, peel.normal[..., 2])
    is_old = rng.random() < 0.5
    colour = tone(rng, (214, 184, 132), (190, 146, 88)) if is_old else tone(rng, (128, 80, 34), (84, 48, 22))
    albedo = paint(peel.albedo, colour, broken * np.float32(rng.uniform(0.65, 0.95)))
    relief = peel.relief_px + broken * np.float32(rng.choice([-0.9, 0.7]))
    return replace(peel, albedo=albedo, relief_px=relief, gloss=peel.gloss * (1 - 0.6 * broken))


# Unripe green, bleached yellow, russet.
_HUES = (((128, 138, 40), (154, 148, 44)), ((238, 206, 112), (226, 188, 84)), ((158, 100, 52), (136, 86, 54)))


def _discolouration(peel: Peel, rng: np.random.Generator) -> Peel:
    """An irregular patch of another hue: unripe green, bleached yellow, or rusty russet."""
    apart = _spot(rng, peel, float(rng.uniform(0.22, 0.58)), 0.13, 40)
    edge = rng.uniform(0.25, 0.6)
    cover = smoothstep(1 + edge / 2, 1 - edge / 2, apart) * np.float32(rng.uniform(0.55, 0.9))
    mottle = np.clip(1 + 0.14 * value_noise(rng, _SHAPE_PX, 9, 3), 0.4, 1.1)
    hue = tone(rng, *_HUES[int(rng.integers(len(_HUES)))])
    clouds = np.sqrt(peel.albedo.mean(axis=2) / peel.albedo.mean())  # the fruit's own pattern shows through
    albedo = paint(peel.albedo, hue * clouds[..., None], cover * mottle)
    return replace(peel, albedo=albedo, gloss=peel.gloss * (1 - 0.35 * cover))


DEFECTS: dict[str, Callable[[Peel, np.random.Generator], Peel]] = {
    "mould": _mould,
    "bruise": _bruise,
    "puncture": _puncture,
    "scratch": _scratch,
    "discolouration": _discolouration,
}
