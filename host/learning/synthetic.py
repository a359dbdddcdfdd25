"""Synthetic defects painted on good pictures, with the mask of what they changed.

In the line of CutPaste (Li et al. 2021), DRAEM (Zavrtanik et al. 2021) and NSA (Schlüter et al. 2022), with changes of
material and light added: bleaching, browning, mould, dents, misprint. Pictures are float32 (h, w, 3) in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from host.learning.regions import draw_region
from host.learning.textures import Bank, Floats, Mask, Rng

VISIBLE_CHANGE = 0.025  # of full scale, averaged over 5 × 5 pixels; a smaller change is nobody's defect
REGION_PX = 11  # a pixel belongs to a defect if, in a window of this size around it,
REGION_SHARE = 0.35  # at least this share is visibly changed


@dataclass(frozen=True)
class Sources:
    """What defects are made from; `goods` are the good pictures, uint8 (n, h, w, 3)."""

    bank: Bank
    goods: NDArray[np.uint8]


def add_defects(picture: Floats, part: Mask, sources: Sources, rng: Rng) -> tuple[Floats, Floats]:
    """One to three defects: the changed picture, and float32 (h, w) with 1 defect, 0 good, NaN too faint to say."""
    changed = picture
    touched = np.zeros(part.shape, np.float32)
    for _ in range(int(rng.choice((1, 2, 3), p=(0.7, 0.2, 0.1)))):
        region = draw_region(part, sources.bank, rng)
        material = MATERIALS[int(rng.choice(len(MATERIALS), p=MATERIAL_SHARES))](changed, sources, rng)
        opacity = region * np.float32(1 if rng.random() < 0.4 else rng.uniform(0.25, 1))
        changed = changed + opacity[..., np.newaxis] * (material - changed)
        touched = np.maximum(touched, opacity)
    changed = np.clip(changed, 0, 1).astype(np.float32)
    return changed, _label(picture, changed, touched)


def measure_change(before: Floats, after: Floats) -> Floats:
    """(h, w): of the colour that changed most, the mean over 5 × 5 pixels."""
    largest = np.maximum.reduce(cv2.split(np.abs(after - before)))  # as .max(axis=2), 20 times as fast
    return np.asarray(cv2.blur(largest, (5, 5)), np.float32)


def _label(before: Floats, after: Floats, touched: Floats) -> Floats:
    """Whole regions, as a person would outline them: gaps between visible changes belong to the defect."""
    difference = measure_change(before, after)
    visible = (difference > VISIBLE_CHANGE) & (touched > 0.15)
    nearby = np.asarray(cv2.blur(visible.astype(np.float32), (REGION_PX, REGION_PX)), np.float32)
    defect = visible | (nearby > REGION_SHARE)
    doubtful = (touched > 0.02) | (difference > VISIBLE_CHANGE / 2)
    return np.where(defect, 1, np.where(doubtful, np.nan, 0)).astype(np.float32)


def _foreign_texture(picture: Floats, sources: Sources, rng: Rng) -> Floats:
    texture = sources.bank.texture(rng, _size(picture))
    if rng.random() < 0.5:  # towards the part's own brightness, so that contrast alone does not give it away
        texture = texture + np.float32(rng.uniform(0.3, 1)) * (picture.mean((0, 1)) - texture.mean((0, 1)))
    return texture


def _own_piece(picture: Floats, sources: Sources, rng: Rng) -> Floats:
    """A good picture turned, shifted and zoomed, sometimes recoloured."""
    height, width = _size(picture)
    donor = sources.goods[int(rng.integers(len(sources.goods)))].astype(np.float32) / 255
    if donor.shape != picture.shape:  # a defect on a frame, from pieces of the network's images
        donor = np.asarray(cv2.resize(donor, (width, height)), np.float32)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), float(np.exp(rng.uniform(-0.7, 1.2))))
    move = np.asarray(turn, np.float64)
    move[:, 2] += rng.uniform(-0.4, 0.4, 2) * np.array((width, height))
    piece = _warp(donor, move)
    return _recoloured(piece, sources, rng) if rng.random() < 0.4 else piece


def _shifted_self(picture: Floats, _sources: Sources, rng: Rng) -> Floats:
    """CutPaste: the same picture, a few pixels to a third of it away."""
    dx, dy = rng.uniform(-0.35, 0.35, 2) * np.array(picture.shape[1::-1])
    return _warp(picture, np.array([[1, 0, dx], [0, 1, dy]]))


def _flat_colour(picture: Floats, _sources: Sources, rng: Rng) -> Floats:
    """Any colour, nearly a grey, or one met in the picture."""
    height, width = _size(picture)
    y, x = rng.integers(0, max(height, width), 2) % (height, width)
    choices = (rng.random(3), rng.random() + rng.normal(0, 0.03, 3), picture[y, x])
    return np.broadcast_to(choices[int(rng.choice(3, p=(0.35, 0.35, 0.3)))].astype(np.float32), picture.shape)


def _recoloured(picture: Floats, _sources: Sources, rng: Rng) -> Floats:
    """Bleached, browned, darkened, stained: the picture itself with other saturation, gain, tint and gamma."""
    grey = picture.mean(2, keepdims=True)
    gain = np.exp(rng.normal(0, 0.45) + rng.normal(0, 0.22, 3)).astype(np.float32)
    changed = (grey + np.float32(rng.uniform(0, 1.7)) * (picture - grey)) * gain + np.float32(rng.normal(0, 0.1))
    if rng.random() < 0.3:
        changed = np.clip(changed, 1e-4, 1) ** np.float32(np.exp(rng.normal(0, 0.5)))
    return np.asarray(changed, np.float32)


def _fuzz(picture: Floats, sources: Sources, rng: Rng) -> Floats:
    """Mould, dust, rust, frost: fine speckle of one or two muted colours that partly covers the surface."""
    cover, grain = sources.bank.noise(rng, _size(picture)), _draw_grain(_size(picture), rng)
    first, second = rng.uniform(0.05, 0.95) + rng.normal(0, 0.09, (2, 3))
    colour = first + (second + rng.normal(0, 0.2) - first) * cover[..., np.newaxis]
    colour = colour + rng.uniform(0.05, 0.5) * (grain - 0.5)[..., np.newaxis]
    opacity = np.clip(rng.uniform(0.3, 1.2) * (0.3 + 0.7 * cover + 0.4 * (grain - 0.5)), 0, 1)[..., np.newaxis]
    return np.asarray(picture + opacity * (colour - picture), np.float32)


def _draw_grain(size_px: tuple[int, int], rng: Rng) -> Floats:
    """Noise of one pixel or a few, mean 0.5, deviation about 0.25."""
    grain = rng.random(size_px, np.float32)
    if rng.random() < 0.3:
        return grain
    grain = np.asarray(cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.5, 1.2)), np.float32)
    return np.asarray((grain - grain.mean()) / (grain.std() + 1e-6) * 0.25 + 0.5, np.float32)


def _blurred(picture: Floats, _sources: Sources, rng: Rng) -> Floats:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(1.5, 6)), np.float32)


def _roughened(picture: Floats, sources: Sources, rng: Rng) -> Floats:
    """Dents, wrinkles, pits: shading by the slope of a noise relief."""
    relief = sources.bank.noise(rng, _size(picture))
    slope_x, slope_y = (np.asarray(cv2.Sobel(relief, cv2.CV_32F, dx, 1 - dx), np.float32) for dx in (1, 0))
    slope = rng.normal() * slope_x + rng.normal() * slope_y
    slope = (slope / (slope.std() + 1e-6))[..., np.newaxis]
    shade = np.exp(rng.uniform(0.08, 0.45) * slope)
    return np.asarray(picture * shade + rng.uniform(0, 0.06) * slope, np.float32)


def _crumpled(picture: Floats, sources: Sources, rng: Rng) -> Floats:
    """Displaced by noise: torn edges, shrivelling, misprint."""
    height, width = size = _size(picture)
    strength_px = np.float32(min(size) * rng.uniform(0.05, 0.35))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x = x + strength_px * (sources.bank.noise(rng, size) - np.float32(0.5))
    y = y + strength_px * (sources.bank.noise(rng, size) - np.float32(0.5))
    return np.asarray(cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)


def _missing(picture: Floats, _sources: Sources, rng: Rng) -> Floats:
    """A missing piece: what the picture's rim shows."""
    y, x = rng.choice((1, picture.shape[0] - 2)), int(rng.integers(picture.shape[1]))
    return np.asarray(picture[y, x] + 0.01 * rng.standard_normal(picture.shape), np.float32)


def _size(picture: Floats) -> tuple[int, int]:
    return picture.shape[0], picture.shape[1]


def _warp(picture: Floats, move: NDArray[np.float64]) -> Floats:
    size = picture.shape[1::-1]
    return np.asarray(cv2.warpAffine(picture, move, size, borderMode=cv2.BORDER_REFLECT), np.float32)


Material = Callable[[Floats, Sources, Rng], Floats]
MATERIALS: tuple[Material, ...] = (
    _foreign_texture,
    _own_piece,
    _shifted_self,
    _flat_colour,
    _recoloured,
    _fuzz,
    _blurred,
    _roughened,
    _crumpled,
    _missing,
)
MATERIAL_SHARES = (0.26, 0.12, 0.08, 0.09, 0.17, 0.10, 0.03, 0.06, 0.06, 0.03)
