"""Harmless variation: what a good part may look like on another day. Pictures are float32 (h, w, 3) in 0..1."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from host.learning.textures import Floats, Mask, Rng
from protocol.strict import require


@dataclass(frozen=True)
class Variation:
    """Ranges of the harmless changes, each way; `shift` is a share of the side, `zoom` and the rest are factors."""

    flips: bool = True
    rotation_deg: float = 15.0
    shift: float = 0.04
    zoom: float = 0.08
    illumination: float = 0.12
    tint: float = 0.04
    saturation: float = 0.12
    hue_deg: float = 0.0

    def __post_init__(self) -> None:
        for key in ("rotation_deg", "shift", "zoom", "illumination", "tint", "saturation", "hue_deg"):
            require(getattr(self, key) >= 0, key, "must not be negative")


def vary(picture: Floats, part: Mask, variation: Variation, rng: Rng) -> tuple[Floats, Mask]:
    """Another view of the same part: the picture and its part mask, moved alike."""
    picture, part = _move(picture, part, variation, rng)
    return _light(picture, variation, rng), part


def _move(picture: Floats, part: Mask, variation: Variation, rng: Rng) -> tuple[Floats, Mask]:
    height, width = picture.shape[:2]
    middle = ((width - 1) / 2, (height - 1) / 2)
    # a long picture is turned less, so that its ends stay inside
    turn_most_deg = variation.rotation_deg * (min(height, width) / max(height, width))
    turn_deg, zoom = rng.uniform(-1, 1, 2) * (turn_most_deg, variation.zoom)
    matrix = cv2.getRotationMatrix2D(middle, float(turn_deg), float(np.exp(zoom)))
    matrix[:, 2] += rng.uniform(-1, 1, 2) * variation.shift * np.array((width, height))
    if variation.flips:
        step_y, step_x = rng.choice((-1, 1), 2)
        picture, part = picture[::step_y, ::step_x], part[::step_y, ::step_x]
    border, size = cv2.BORDER_REFLECT_101, (width, height)
    moved = cv2.warpAffine(np.ascontiguousarray(picture), matrix, size, borderMode=border)
    moved_part = cv2.warpAffine(np.ascontiguousarray(part), matrix, size, flags=cv2.INTER_NEAREST, borderMode=border)
    return np.asarray(moved, np.float32), np.asarray(moved_part, np.uint8)


def _light(picture: Floats, variation: Variation, rng: Rng) -> Floats:
    """Brightness, its slope across the picture, tint, saturation, sensor noise and focus."""
    ramp_y, ramp_x = (np.linspace(-0.5, 0.5, side, dtype=np.float32) for side in picture.shape[:2])
    slope_x, slope_y = rng.normal(0, 0.5 * variation.illumination, 2).astype(np.float32)
    field = 1 + slope_x * ramp_x[np.newaxis, :, np.newaxis] + slope_y * ramp_y[:, np.newaxis, np.newaxis]
    gain = np.exp(rng.uniform(-1, 1) * variation.illumination + rng.uniform(-1, 1, 3) * variation.tint)
    grey = picture.mean(2, keepdims=True)
    saturation = np.float32(1 + rng.uniform(-1, 1) * variation.saturation)
    lit = (grey + saturation * (picture - grey)) * gain.astype(np.float32) * field
    lit = lit + np.float32(rng.uniform(-0.25, 0.25) * variation.illumination)
    if variation.hue_deg:  # drawn only where asked for, so that recipes without it keep their pictures
        lit = lit @ turn_hue(rng.uniform(-1, 1) * variation.hue_deg)
    if rng.random() < 0.3:
        lit = lit + np.float32(rng.uniform(0, 0.015)) * rng.standard_normal(lit.shape, np.float32)
    if rng.random() < 0.2:
        lit = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.3, 0.8))
    return np.asarray(np.clip(lit, 0, 1), np.float32)


def turn_hue(angle_deg: float) -> Floats:
    """float32 (3, 3) that pixels are multiplied by from the left: a rotation around the grey axis (Rodrigues)."""
    angle = np.deg2rad(angle_deg)
    axis = np.ones(3) / np.sqrt(3)
    cross = np.cross(np.eye(3), axis)
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)
    return np.asarray(turn, np.float32)
