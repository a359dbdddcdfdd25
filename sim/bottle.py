"""Mouths of brown glass bottles from above: thread, rim, inner wall and bore as rings, with the lamps mirrored in them.

Radii are fractions of the outline's radius. The rings lie at different heights and the camera is never quite on the
axis, so each depth has a centre of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sim.defects import (
    Field,
    Mask,
    Picture,
    dots,
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
RADIUS_PX = (92.0, 98.0)  # at 2.5 px/mm: 74 to 78 mm across, shoulder included
ANGLES = 1024  # steps of the tables that run around the ring

# Rings from the bore outwards: radius, and the level of red, green, blue there.
RINGS = np.array(
    [
        (0.00, 30, 29, 40),
        (0.20, 26, 25, 36),
        (0.46, 20, 20, 30),
        (0.490, 25, 21, 26),
        (0.505, 66, 46, 44),
        (0.518, 38, 40, 46),
        (0.535, 62, 68, 74),
        (0.555, 30, 36, 42),
        (0.640, 36, 44, 48),
        (0.660, 52, 62, 66),
        (0.675, 74, 84, 92),
        (0.690, 50, 56, 68),
        (0.735, 78, 82, 100),
        (0.760, 48, 50, 66),
        (0.785, 70, 66, 80),
        (0.815, 58, 54, 66),
        (0.840, 82, 80, 96),
        (0.870, 64, 62, 76),
        (0.895, 38, 38, 48),
        (0.925, 92, 88, 100),
        (0.945, 104, 100, 108),
        (0.965, 54, 52, 60),
        (0.985, 24, 24, 30),
        (1.10, 14, 14, 18),
    ],
    np.float32,
)
BORE = 0.50
RIM = (0.53, 0.83)  # where glass can break away and dust can lie


@dataclass(frozen=True)
class Mouth:
    """A bottle's mouth; every field is (SPRITE_PX, SPRITE_PX[, 3])."""

    radius_px: float
    alpha: Picture
    light: Field  # linear light, RGB
    centre_px: tuple[float, float]  # x, y of the rim's centre
    radius: Field  # around the rim's centre, 1 at the outline
    step: NDArray[np.int32]  # angle around the rim's centre in ANGLES steps


def render(look: np.random.Generator, defect: str, harm: np.random.Generator) -> tuple[Picture, Picture, Mask]:
    """RGB, alpha and defect mask of the mouth that `look` draws; `harm` draws the defect ('' for none)."""
    mouth = blow(look)
    good = to_levels(mouth.light)
    if not defect:
        return good, mouth.alpha, np.zeros(good.shape[:2], np.bool_)
    bad = to_levels(DEFECTS[defect](mouth, harm).light)
    mask = outline_change(good, bad) & (mouth.alpha > 0)
    return bad, mouth.alpha, mask


def blow(rng: np.random.Generator) -> Mouth:
    """A good mouth."""
    radius_px = float(rng.uniform(*RADIUS_PX))
    tilt_px = rng.normal(0, 1.3, 2)
    middle = (SPRITE_PX - 1) / 2
    outer_radius, outer_step = _around(middle, middle, radius_px)
    rim_x, rim_y = middle + tilt_px[0], middle + tilt_px[1]
    rim_radius, rim_step = _around(rim_x, rim_y, radius_px)
    bore_radius, _ = _around(middle + tilt_px[0] * 2.6, middle + tilt_px[1] * 2.6, radius_px)
    wobble = _turn(rng, (1, 2, 3, 5), 0.0018)
    blend = smoothstep(0.84, 0.92, outer_radius)
    radius = rim_radius * (1 - blend) + outer_radius * blend
    inside = smoothstep(0.66, 0.50, rim_radius)
    radius = radius * (1 - inside) + bore_radius * inside + wobble[rim_step]
    radius += _thread(rng, outer_radius, outer_step)
    mouth = Mouth(radius_px, _alpha(outer_radius, radius_px), _rings(rng, radius), (rim_x, rim_y), radius, rim_step)
    return _lamps(rng, _copper(rng, _wall(rng, mouth)))


def _around(x_px: float, y_px: float, radius_px: float) -> tuple[Field, NDArray[np.int32]]:
    """Radius (outline is 1) and angle step (h, w) around a centre."""
    y, x = np.mgrid[:SPRITE_PX, :SPRITE_PX].astype(np.float32)
    x, y = x - np.float32(x_px), y - np.float32(y_px)
    step = ((np.arctan2(y, x) + np.float32(np.pi)) * np.float32(ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
    return np.asarray(np.hypot(x, y) / np.float32(radius_px), np.float32), step


def _turn(rng: np.random.Generator, waves: tuple[int, ...], spread: float) -> Field:
    """A random closed curve (ANGLES,) made of a few waves around the ring."""
    angle = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    total = np.zeros(ANGLES)
    for wave in waves:
        total += rng.normal(0, spread) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return total.astype(np.float32)


def _streaks(rng: np.random.Generator, cell_steps: float, radii: int) -> Field:
    """Noise (radii, ANGLES) that closes around the ring, coarse along it and fine across."""
    around = value_noise(rng, (radii, ANGLES * 2), cell_steps, 3)
    fade = np.linspace(0, 1, ANGLES, dtype=np.float32)
    return np.asarray(around[:, :ANGLES] * fade + around[:, ANGLES:] * (1 - fade), np.float32)


def _thread(rng: np.random.Generator, radius: Field, step: NDArray[np.int32]) -> Field:
    """How far the screw thread shifts the outer rings: a ramp around the neck that starts somewhere."""
    ramp = (np.arange(ANGLES) / ANGLES - 0.5).astype(np.float32) * np.float32(rng.uniform(0.004, 0.014))
    turns = np.tile(np.roll(ramp, int(rng.integers(ANGLES))), (1, 3))  # three, so that the blur closes the ring
    soft = cv2.GaussianBlur(turns, (0, 0), 18)[0, ANGLES : 2 * ANGLES]
    return np.asarray(soft[step] * smoothstep(0.86, 0.93, radius) * smoothstep(1.0, 0.97, radius), np.float32)


def _alpha(radius: Field, radius_px: float) -> Picture:
    """Coverage: the shoulder is out of focus, so the outline is soft over 4 px."""
    return np.round(smoothstep(1 + 2 / radius_px, 1 - 2 / radius_px, radius) * 255).astype(np.uint8)


def _rings(rng: np.random.Generator, radius: Field) -> Field:
    """The rings' light, each ring a little brighter or darker on every bottle."""
    levels = RINGS[:, 1:] * rng.normal(1, 0.07, (len(RINGS), 1)) * rng.uniform(0.9, 1.12)
    levels = levels * (1 + rng.normal(0, 0.025, 3))
    places = RINGS[:, 0] + np.clip(rng.normal(0, 0.0022, len(RINGS)), -0.004, 0.004)
    fine = np.linspace(0, 1.1, 1024)
    table = np.stack([np.interp(fine, places, levels[:, channel]) for channel in range(3)], axis=1)
    table = np.square(cv2.GaussianBlur(table.astype(np.float32), (1, 9), 0, sigmaY=2.5) / np.float32(255))
    return np.asarray(table[np.clip(radius * (1023 / 1.1), 0, 1023).astype(np.int32)], np.float32)


def _wall(rng: np.random.Generator, mouth: Mouth) -> Mouth:
    """The rough inner wall below the rim, the uneven light of the glass, and dust-like sparkle of the wall."""
    rough = _streaks(rng, 7, 64)
    row = np.clip((mouth.radius - np.float32(0.5)) * 200, 0, 63).astype(np.int32)
    band = smoothstep(0.53, 0.55, mouth.radius) * smoothstep(0.68, 0.63, mouth.radius)
    texture = rough[row, mouth.step] * band
    around = 1 + _turn(rng, (1, 2, 3, 4), 0.07)[mouth.step] * smoothstep(0.5, 0.55, mouth.radius)
    light = mouth.light * (np.clip(1 + np.float32(0.26) * texture, 0.35, 3) * around)[..., None]
    haze = np.exp(-np.square((mouth.radius) / np.float32(rng.uniform(0.12, 0.3)))) * np.float32(rng.uniform(0.0, 0.012))
    return replace(mouth, light=np.asarray(light + haze[..., None], np.float32))


def _copper(rng: np.random.Generator, mouth: Mouth) -> Mouth:
    """The amber caustic in the rim: two or three thin lines, bright in places, that wander across the glass."""
    light = mouth.light
    for place, width, power in ((0.815, 0.007, 1.0), (0.790, 0.005, 0.55), (0.505, 0.004, 0.20)):
        bright = np.clip(0.45 + _turn(rng, (1, 2, 3, 5, 8, 13), 0.22), 0.05, 1.4) * power * rng.uniform(0.6, 1.2)
        path = place + _turn(rng, (1, 2, 4, 7, 11), 0.0022) + rng.normal(0, 0.003)
        thick = width * np.clip(1 + _turn(rng, (3, 6, 10, 17), 0.25), 0.4, 2)
        apart = (mouth.radius - path.astype(np.float32)[mouth.step]) / thick.astype(np.float32)[mouth.step]
        line = np.exp(-apart * apart) * bright.astype(np.float32)[mouth.step]
        light = light + line[..., None] * linear(214, 128, 84)
    return replace(mouth, light=np.asarray(light, np.float32))


def _lamps(rng: np.random.Generator, mouth: Mouth) -> Mouth:
    """Mirror images of the station's two lamps: bright short arcs lower left, faint long ones upper right."""
    light = mouth.light
    angle = np.arange(ANGLES, dtype=np.float32) * np.float32(2 * np.pi / ANGLES) - np.float32(np.pi)
    for middle, radius, width, spread, power in (
        (2.55, 0.735, 0.010, 0.11, 0.95),
        (2.62, 0.690, 0.006, 0.20, 0.30),
        (-0.15, 0.755, 0.006, 0.30, 0.16),
        (-0.75, 0.930, 0.020, 0.70, 0.10),
        (2.40, 0.940, 0.022, 0.55, 0.12),
    ):
        away = np.angle(np.exp(1j * (angle - middle - rng.normal(0, 0.10)))).astype(np.float32)
        along = np.exp(-np.square(away / (spread * rng.uniform(0.7, 1.4))))
        along *= np.clip(1 + _turn(rng, (17, 29, 41, 67), 0.3), 0, 2)
        apart = (mouth.radius - np.float32(radius + rng.normal(0, 0.004))) / np.float32(width)
        mirrored = np.exp(-apart * apart) * along.astype(np.float32)[mouth.step]
        light = light + mirrored[..., None] * linear(246, 250, 236) * np.float32(power * rng.uniform(0.5, 1.2))
    return replace(mouth, light=np.asarray(light, np.float32))


# Defects: each takes a good mouth and returns the harmed one.


@dataclass(frozen=True)
class _Gap:
    """Where glass is gone: a sector of the rim."""

    middle_rad: float
    half_rad: float
    inner: float
    outer: float


def _broken_rim(mouth: Mouth, rng: np.random.Generator) -> Mouth:
    """A chip out of the rim, small or large: fracture faces, most dark and a few glaring, instead of the rings."""
    is_large = rng.random() < 0.45
    half_rad = rng.uniform(0.35, 0.95) if is_large else rng.uniform(0.08, 0.28)
    depth = rng.uniform(0.16, 0.30) if is_large else rng.uniform(0.07, 0.17)
    inner = BORE - 0.01 if rng.random() < 0.7 else rng.uniform(RIM[0], RIM[1] - min(depth, 0.25))
    gap = _Gap(float(rng.uniform(-np.pi, np.pi)), float(half_rad), float(inner), float(inner + depth))
    chip = _jagged(rng, mouth, gap)
    faces, edges = _fracture(rng, mouth, gap, 16 if is_large else 6)
    light = paint(mouth.light, faces, chip) + (edges * chip)[..., None] * linear(226, 212, 186)
    outline = np.abs(cv2.Sobel(cv2.GaussianBlur(chip, (0, 0), 0.7), cv2.CV_32F, 1, 1, ksize=3))
    glint = np.clip(0.25 * value_noise(rng, _SHAPE_PX, 9, 2) - 0.05, 0, 0.5)
    return replace(mouth, light=light + (np.minimum(outline, 1) * glint)[..., None] * linear(240, 226, 200))


def _place(mouth: Mouth, angle_rad: Field, radius: Field) -> Field:
    """Points (n, 2) as x, y at angles and radii around the rim's centre."""
    x = mouth.centre_px[0] + np.cos(angle_rad) * radius * mouth.radius_px
    y = mouth.centre_px[1] + np.sin(angle_rad) * radius * mouth.radius_px
    return np.stack([x, y], axis=1).astype(np.float32)


def _jagged(rng: np.random.Generator, mouth: Mouth, gap: _Gap) -> Field:
    """Coverage (h, w) of the gap: an uneven polygon."""
    corners = max(6, int(gap.half_rad * 16))
    along = np.linspace(-1, 1, corners) + rng.uniform(-0.5, 0.5, corners) / corners
    reach = np.sqrt(np.clip(1.02 - along * along, 0, 1)) * rng.uniform(0.5, 1.0, corners)
    outside = _place(mouth, gap.middle_rad + along * gap.half_rad, gap.inner + (gap.outer - gap.inner) * reach)
    back = gap.middle_rad + along[::-1] * gap.half_rad * 0.95
    inside = _place(mouth, back, gap.inner - rng.uniform(0, 0.012, corners))
    canvas = np.zeros(_SHAPE_PX, np.uint8)
    outline = np.round(np.concatenate([outside, inside]) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [outline.reshape(-1, 1, 2)], 255, cv2.LINE_AA, 4)
    return np.asarray(canvas.astype(np.float32) / np.float32(255))


def _fracture(rng: np.random.Generator, mouth: Mouth, gap: _Gap, count: int) -> tuple[Field, Field]:
    """Light (h, w, 3) of `count` fracture faces and the brightness (h, w) of the ridges between them.

    The faces are the cells of points strewn over the gap, stretched at random; each has one tilt, so its light rises
    across it, and the shell-shaped ripples of broken glass.
    """
    radii = rng.uniform(gap.inner, gap.outer, count)
    seeds = _place(mouth, gap.middle_rad + rng.uniform(-1, 1, count) * gap.half_rad, radii)
    y, x = np.mgrid[:SPRITE_PX, :SPRITE_PX].astype(np.float32)
    turn = rng.uniform(0, np.pi, count).astype(np.float32)
    dx, dy = x - seeds[:, 0, None, None], y - seeds[:, 1, None, None]
    u = dx * np.cos(turn)[:, None, None] + dy * np.sin(turn)[:, None, None]
    v = dy * np.cos(turn)[:, None, None] - dx * np.sin(turn)[:, None, None]
    apart = np.hypot(u, v * rng.uniform(1, 2.2, count).astype(np.float32)[:, None, None])
    face = apart.argmin(axis=0)
    nearest = np.partition(apart, 1, axis=0)[:2]
    ridge = np.exp(-np.square((nearest[1] - nearest[0]) / np.float32(0.8)))
    edges = ridge * np.clip(rng.normal(0.02, 0.16, count), 0, 0.6).astype(np.float32)[face]
    rise = np.take_along_axis(u, face[None], axis=0)[0] * rng.normal(0, 0.06, count).astype(np.float32)[face]
    ripple = np.float32(0.18) * np.sin(nearest[0] * np.float32(rng.uniform(0.8, 1.5)))
    mottle = np.float32(0.30) * value_noise(rng, _SHAPE_PX, 5, 2)
    light = _glow(rng, count)[face] * np.clip(1 + rise + ripple + mottle, 0.2, 2.5)[..., None]
    return light, edges


def _glow(rng: np.random.Generator, count: int) -> Field:
    """Linear light (count, 3) of fracture faces: one or two mirror a lamp, some are amber, the rest dark glass."""
    glow = np.stack([tone(rng, (40, 42, 52), (92, 92, 104)) for _ in range(count)])
    for face in range(count):
        if face == 0 or rng.random() < 0.12:
            glow[face] = tone(rng, (150, 146, 140), (250, 244, 226))
        elif rng.random() < 0.2:
            glow[face] = tone(rng, (104, 70, 50), (190, 132, 78))
    return glow


def _contamination(mouth: Mouth, rng: np.random.Generator) -> Mouth:
    """Foreign matter: a flake in the bore, a fibre, or dust on glass and in the bore."""
    kind = rng.choice(3, p=[0.45, 0.3, 0.25])
    return (_flake, _fibre, _dust)[int(kind)](mouth, rng)


# Paper, brown film, plastic grey, rust, moss.
_SOILS = (
    ((214, 206, 190), (150, 142, 128)),
    ((140, 98, 62), (92, 66, 46)),
    ((120, 122, 126), (74, 74, 78)),
    ((150, 84, 48), (104, 62, 42)),
    ((112, 118, 78), (76, 84, 58)),
)


def _flake(mouth: Mouth, rng: np.random.Generator) -> Mouth:
    """A scrap of paper, film or soil lying in the bore, lit from one side."""
    size_px = float(rng.uniform(6, 26))
    ((x, y),) = _place(mouth, rng.uniform(-np.pi, np.pi, 1), rng.uniform(0, 0.44, 1))
    rows, columns = np.mgrid[:SPRITE_PX, :SPRITE_PX].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    u = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    v = ((rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)) * rng.uniform(1.0, 1.8)
    apart = np.hypot(u, v) / size_px * np.exp(0.13 * value_noise(rng, _SHAPE_PX, size_px * 0.8, 3))
    shape = smoothstep(1.06, 0.94, apart) * smoothstep(BORE + 0.05, BORE + 0.02, mouth.radius)
    crumple = value_noise(rng, _SHAPE_PX, 4 + size_px * 0.5, 3)
    slope = cv2.Sobel(crumple, cv2.CV_32F, 1, 0, scale=1 / 8) + cv2.Sobel(crumple, cv2.CV_32F, 0, 1, scale=1 / 8)
    lit = np.clip(1 + 1.4 * slope + 0.15 * crumple, 0.3, 2.2)
    colour = tone(rng, *_SOILS[int(rng.integers(len(_SOILS)))])
    return replace(mouth, light=paint(mouth.light, colour * lit[..., None], shape * rng.uniform(0.75, 1)))


def _fibre(mouth: Mouth, rng: np.random.Generator) -> Mouth:
    """A hair or thread, pale or coloured, anywhere within the rim."""
    (start,) = _place(mouth, rng.uniform(-np.pi, np.pi, 1), rng.uniform(0.1, 0.7, 1))
    inwards = np.arctan2(mouth.centre_px[1] - start[1], mouth.centre_px[0] - start[0])
    curve = wander(rng, (start[0], start[1]), inwards + rng.normal(0, 0.7), float(rng.uniform(26, 80)), 1.6)
    line = stroke(_SHAPE_PX, curve, float(rng.uniform(0.8, 2.0)))
    colour = linear(*((222, 216, 204), (168, 120, 72), (90, 118, 168))[int(rng.integers(3))])
    return replace(mouth, light=paint(mouth.light, colour, line * np.float32(rng.uniform(0.55, 0.95))))


def _dust(mouth: Mouth, rng: np.random.Generator) -> Mouth:
    """A loose cluster of grains."""
    count = int(rng.integers(5, 28))
    (centre,) = _place(mouth, rng.uniform(-np.pi, np.pi, 1), rng.uniform(0.1, 0.75, 1))
    places = centre + rng.normal(0, rng.uniform(4, 13), (count, 2))
    grains = dots(_SHAPE_PX, places, rng.gamma(2.2, 0.55, count).clip(0.5, 3.5), rng.uniform(0.5, 1, count))
    grains = grains * smoothstep(0.86, 0.82, mouth.radius)
    colour = tone(rng, (128, 104, 74), (226, 214, 190)) * (1 + 0.2 * value_noise(rng, _SHAPE_PX, 3))[..., None]
    return replace(mouth, light=paint(mouth.light, colour, grains))


DEFECTS: dict[str, Callable[[Mouth, np.random.Generator], Mouth]] = {
    "broken_rim": _broken_rim,
    "contamination": _contamination,
}
