"""The camera above the belt: where a part lands in the frame, and what optics and sensor make of it.

For example:

    shot = Camera(CameraSettings(), seed=1).shoot(part)     # triggered: one frame a part
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError
from sim.defects import Field, Mask, Picture, dots, grain, value_noise
from sim.parts import RENDER_PX_PER_MM, Part

# np.random.default_rng([seed, number, purpose]): other purposes than those of sim/parts.py, which may share the seed.
_PLACE, _EXPOSURE, _BELT, _NOISE = range(10, 14)

_BELT_TILE_PX = (512, 2048)
_NOISE_SLIDE_PX = 128
_SHADOW_PX = (5, 7)  # x, y: the main lamp stands upper left
# A frame pixel counts as defective when a quarter of its light comes from defective pixels of the part.
_MASK_SHARE = 0.25


@dataclass(frozen=True)
class CameraSettings:
    """How the camera looks at the belt. The defaults suit rendered parts; `CameraSettings.off()` suits a replay.

    A replayed picture fills its frame (scaled if `frame_px` says another size); there is no belt around it.
    """

    frame_px: tuple[int, int] | None = (256, 256)  # height, width; None: the picture's own
    px_per_mm: float = RENDER_PX_PER_MM
    position_jitter_mm: float = 2.0  # standard deviation on each axis, cut at 2.5 deviations
    rotation_jitter_deg: float = 6.0  # the same, for the turn in the picture plane
    belt_speed_mm_s: float = 600.0  # the belt runs to +x
    exposure_us: float = 330.0  # at this speed the picture smears by half a pixel
    exposure_spread: float = 0.04  # standard deviation of the brightness factor
    tint_spread: float = 0.012  # the same for each colour
    vignetting: float = 0.16  # loss of light in the corners
    read_noise_levels: float = 1.1
    electrons_per_level: float = 70.0  # shot noise: sqrt(level / electrons_per_level) levels; inf for none
    lamp_dims: float = 0.0  # share of its light that the lamp loses over 1,000 parts
    lens_slips_px: float = 0.0  # blur that a lens out of focus gains over 1,000 parts: deviation of a Gaussian
    ages_from: int = 0  # part with which both begin

    def __post_init__(self) -> None:
        if self.frame_px is not None and min(self.frame_px) < 16:
            raise InputError(f"a frame of {self.frame_px} px is too small: give at least 16 px a side")
        for name in ("px_per_mm", "electrons_per_level"):
            if not getattr(self, name) > 0:
                raise InputError(f"camera setting {name} is {getattr(self, name)}: give a number above 0")
        for name in (
            "position_jitter_mm", "rotation_jitter_deg", "exposure_us", "exposure_spread", "tint_spread",
            "vignetting", "read_noise_levels", "lamp_dims", "lens_slips_px", "ages_from",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise InputError(f"camera setting {name} is {getattr(self, name)}: give 0 or more")

    @classmethod
    def off(cls) -> CameraSettings:
        """A camera that adds nothing: a replayed picture comes out byte for byte."""
        return cls(
            frame_px=None,
            position_jitter_mm=0,
            rotation_jitter_deg=0,
            belt_speed_mm_s=0,
            exposure_us=0,
            exposure_spread=0,
            tint_spread=0,
            vignetting=0,
            read_noise_levels=0,
            electrons_per_level=float("inf"),
        )

    @property
    def blur_px(self) -> float:
        """How far the belt moves during the exposure."""
        return abs(self.belt_speed_mm_s) * self.exposure_us * 1e-6 * self.px_per_mm

    def age(self, parts: float) -> tuple[float, float]:
        """Share of the lamp's light that is left, and the lens's blur in pixels, after so many parts."""
        thousands = max(0.0, parts - self.ages_from) / 1000
        return max(0.0, 1 - self.lamp_dims * thousands), self.lens_slips_px * thousands


@dataclass(frozen=True)
class Shot:
    """One frame and its truth."""

    image: Picture  # (h, w, 3) RGB, C-contiguous
    mask: Mask  # (h, w), the defect as it lies in the image


class Camera:
    """Triggered mode: one frame a part, the part in the middle of it but for the jitter."""

    def __init__(self, settings: CameraSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._belt = Belt(seed)
        self._sensor = Sensor(settings, seed)

    def shoot(self, part: Part) -> Shot:
        """The frame of `part`; depends on the seed and the part alone."""
        height_px, width_px = self._settings.frame_px or (part.alpha.shape[0], part.alpha.shape[1])
        rng = np.random.default_rng([self._seed, part.number, _PLACE])
        centre_px = np.array([width_px - 1, height_px - 1]) / 2 + jitter(rng, 2) * self._shift_px
        turn_deg = float(jitter(rng, 1)[0]) * self._settings.rotation_jitter_deg
        if part.alpha.all():
            placed = place_picture(part, (height_px, width_px), centre_px, turn_deg)
            image = placed.rgb
        else:
            scale = self._settings.px_per_mm / RENDER_PX_PER_MM
            placed = place(part, (height_px, width_px), centre_px, turn_deg, scale)
            belt = self._belt.window(int(rng.integers(_BELT_TILE_PX[1])), 0, height_px, width_px)
            image = lay(belt, placed)
        look = np.random.default_rng([self._seed, part.number, _EXPOSURE])
        mask = blur_along_belt(placed.defect, self._settings.blur_px) >= round(255 * _MASK_SHARE)
        return Shot(self._sensor.expose(image, look, noise=look, parts=part.number), mask)

    @property
    def _shift_px(self) -> float:
        return self._settings.position_jitter_mm * self._settings.px_per_mm


def jitter(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Normal deviates, cut at ±2.5 so that no part leaves the frame."""
    return np.clip(rng.standard_normal(count), -2.5, 2.5)


@dataclass(frozen=True)
class Placed:
    """A part turned and scaled into a window of the frame's pixels."""

    rgb: Picture  # (h, w, 3)
    alpha: Picture  # (h, w)
    defect: Picture  # (h, w), 0..255: share of the pixel that is defective
    shade: Picture  # (h, w), 0..255: light that the part leaves on the belt around it


def place(
    part: Part, shape_px: tuple[int, int], centre_px: NDArray[np.float64], turn_deg: float, scale: float
) -> Placed:
    """The part's sprite in an otherwise empty window; the sprite's middle comes to `centre_px` (x, y)."""
    matrix = _turn_matrix(part.alpha.shape, centre_px, turn_deg, scale)
    size = (shape_px[1], shape_px[0])
    rgb = cv2.warpAffine(part.rgb, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = np.asarray(cv2.warpAffine(part.alpha, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)
    defect = np.asarray(
        cv2.warpAffine(part.mask.astype(np.uint8) * 255, matrix, size, flags=cv2.INTER_LINEAR), np.uint8
    )
    return Placed(np.asarray(rgb, np.uint8), alpha, defect, _cast_shade(alpha))


def place_picture(part: Part, shape_px: tuple[int, int], centre_px: NDArray[np.float64], turn_deg: float) -> Placed:
    """A whole picture fitted to the frame; what the jitter lays bare at the border repeats the border."""
    size = (shape_px[1], shape_px[0])
    if part.alpha.shape != shape_px:
        part = resized(part, size)
    matrix = _turn_matrix(shape_px, centre_px, turn_deg, 1.0)
    defect = part.mask.astype(np.uint8) * 255
    if np.array_equal(matrix, np.eye(2, 3)):
        return Placed(part.rgb, part.alpha, defect, part.alpha)
    rgb = cv2.warpAffine(part.rgb, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    defect = np.asarray(cv2.warpAffine(defect, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)
    return Placed(np.asarray(rgb, np.uint8), part.alpha, defect, part.alpha)


def resized(part: Part, size_px: tuple[int, int]) -> Part:
    """A whole picture at another size (width, height)."""
    rgb = np.asarray(cv2.resize(part.rgb, size_px, interpolation=cv2.INTER_AREA), np.uint8)
    mask = np.asarray(cv2.resize(part.mask.astype(np.uint8), size_px, interpolation=cv2.INTER_NEAREST) > 0)
    return replace(part, rgb=rgb, alpha=np.full(rgb.shape[:2], 255, np.uint8), mask=mask)


def _turn_matrix(
    shape_px: tuple[int, ...], centre_px: NDArray[np.float64], turn_deg: float, scale: float
) -> NDArray[np.float64]:
    """(2, 3): turns and scales around the middle of a picture of `shape_px` and brings the middle to `centre_px`."""
    middle = np.array([shape_px[1] - 1, shape_px[0] - 1]) / 2
    cos, sin = scale * np.cos(np.radians(turn_deg)), scale * np.sin(np.radians(turn_deg))
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, centre_px - turn @ middle])


def _cast_shade(alpha: Picture) -> Picture:
    """(h, w), 0..255: what light is left on the belt around a part: dark close to it, fading away from the lamp."""
    small = cv2.resize(alpha, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    moved = np.array([[1, 0, _SHADOW_PX[0] / 4], [0, 1, _SHADOW_PX[1] / 4]], np.float64)
    cast = cv2.GaussianBlur(cv2.warpAffine(small, moved, small.shape[::-1]), (0, 0), 2.2)
    wide = cv2.GaussianBlur(small, (0, 0), 6)
    left = 255 - 0.5 * cast.astype(np.float32) - 0.3 * wide.astype(np.float32)
    return np.asarray(cv2.resize(left.astype(np.uint8), alpha.shape[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def lay(belt: Picture, placed: Placed) -> Picture:
    """The part over a window of belt (h, w, 3), with its shadow."""
    shaded = cv2.multiply(belt, cv2.cvtColor(placed.shade, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    cover = cv2.cvtColor(placed.alpha, cv2.COLOR_GRAY2RGB)
    top = cv2.multiply(placed.rgb, cover, scale=1 / 255)
    under = cv2.multiply(shaded, cv2.bitwise_not(cover), scale=1 / 255)
    return np.asarray(cv2.add(top, under), np.uint8)


def blur_kernel(length_px: float) -> Field:
    """(n,) weights, sum 1: a point that moves `length_px` during the exposure, on pixels; n is odd."""
    reach = int(np.ceil(max(length_px, 1) / 2 - 0.5))
    edges = np.clip(np.arange(-reach - 0.5, reach + 1), -max(length_px, 1) / 2, max(length_px, 1) / 2)
    return np.asarray(np.diff(edges) / max(length_px, 1), np.float32)


def blur_along_belt(image: Picture, length_px: float) -> Picture:
    """Motion blur in x; a way of at most 1 px stays within the pixel."""
    if length_px <= 1:
        return image
    one = np.ones(1, np.float32)
    blurred = cv2.sepFilter2D(image, -1, blur_kernel(length_px), one, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.uint8)


class Belt:
    """An endless dark rubber belt: fabric grain, cloudy wear, scuffs along the way it runs, and a seam now and then."""

    def __init__(self, seed: int) -> None:
        self._tile = _draw_belt(np.random.default_rng([seed, 0, _BELT]))

    def window(self, x_px: int, y_px: int, height_px: int, width_px: int) -> Picture:
        """(height_px, width_px, 3) of the belt whose left upper corner is (x_px, y_px); the tile repeats."""
        rows = (np.arange(height_px) + y_px) % self._tile.shape[0]
        columns = (np.arange(width_px) + x_px) % self._tile.shape[1]
        return np.asarray(self._tile.take(rows, axis=0).take(columns, axis=1), np.uint8)


def _draw_belt(rng: np.random.Generator) -> Picture:
    """(h, w, 3), made to repeat in both directions."""
    height_px, width_px = _BELT_TILE_PX
    level = np.full(_BELT_TILE_PX, 47, np.float32)
    level += 2.6 * _closed(grain(rng, (height_px + 64, width_px + 64), 0.8, 2.4))
    level += 2.2 * _closed(value_noise(rng, (height_px + 64, width_px + 64), 48, 3))
    along = cv2.resize(rng.standard_normal((height_px + 64, 9), np.float32), (width_px + 64, height_px + 64))
    level += 1.5 * _closed(np.asarray(along, np.float32))
    weave = np.sin(np.arange(height_px) * (2 * np.pi / 4))[:, None] * np.sin(np.arange(width_px) * (2 * np.pi / 4))
    level += 1.2 * weave.astype(np.float32)
    level += _scuffs(rng)
    seam_px = int(rng.integers(width_px))
    level[:, seam_px : seam_px + 3] -= 14
    level[:, seam_px + 3 : seam_px + 5] += 9
    tint = np.array([0.98, 1.0, 1.04], np.float32)
    return np.clip(np.round(level[..., None] * tint), 0, 255).astype(np.uint8)


def _closed(field: Field) -> Field:
    """A field 64 px too large in both directions, its overhang faded into the start so that it repeats."""
    fade = np.linspace(0, 1, 64, dtype=np.float32)
    rows = field[:-64].copy()
    rows[:64] = rows[:64] * fade[:, None] + field[-64:] * (1 - fade[:, None])
    closed = rows[:, :-64].copy()
    closed[:, :64] = closed[:, :64] * fade + rows[:, -64:] * (1 - fade)
    return np.asarray(closed)


def _scuffs(rng: np.random.Generator) -> Field:
    """Pale rubbed lines, most of them along the belt, and small crumbs of dust."""
    canvas = np.zeros(_BELT_TILE_PX, np.uint8)
    height_px, width_px = _BELT_TILE_PX
    for _ in range(70):
        x, y = rng.uniform(0, (width_px, height_px))
        length_px, slope = rng.uniform(20, 240), rng.normal(0, 0.05)
        end = (round(min(x + length_px, width_px - 1)), round(y + slope * length_px))
        cv2.line(canvas, (round(x), round(y)), end, int(rng.uniform(3, 11)), 1, cv2.LINE_AA)
    places = rng.uniform(0, (width_px, height_px), (240, 2))
    crumbs = dots(_BELT_TILE_PX, places, rng.uniform(0.3, 1.1, 240), rng.uniform(0.04, 0.14, 240))
    return cv2.GaussianBlur(canvas, (0, 0), 0.7) + crumbs * 255


class Sensor:
    """Exposure, motion blur, vignetting and noise of a frame."""

    def __init__(self, settings: CameraSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        variance = settings.read_noise_levels**2 + np.arange(256) / settings.electrons_per_level
        self._noise_of_level = np.sqrt(variance).astype(np.float32)
        self._shape_px = (0, 0)
        self._vignette: Field = np.empty((0, 0, 3), np.float32)
        self._noise: Field = np.empty((0, 0, 3), np.float32)

    def expose(
        self, image: Picture, look: np.random.Generator, noise: np.random.Generator, parts: float = 0
    ) -> Picture:
        """The frame (h, w, 3) as the sensor delivers it; `look` draws its brightness and tint.

        `parts` have gone by: so old are lamp and lens.
        """
        settings = self._settings
        light, defocus_px = settings.age(parts)
        self._prepare((image.shape[0], image.shape[1]))
        frame = blur_along_belt(image, settings.blur_px)
        if settings.vignetting:
            frame = np.asarray(cv2.multiply(frame, self._vignette, dtype=cv2.CV_8U), np.uint8)
        if defocus_px:
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), defocus_px), np.uint8)
        gain = light * max(0.1, 1 + settings.exposure_spread * look.standard_normal())
        tint = 1 + settings.tint_spread * look.standard_normal(3)
        table = np.clip(np.arange(256)[:, None] * (gain * tint) + 0.5, 0, 255).astype(np.uint8)
        frame = np.asarray(cv2.LUT(frame, table.reshape(1, 256, 3)), np.uint8)
        return self._with_noise(frame, noise)

    def _prepare(self, shape_px: tuple[int, int]) -> None:
        """Draw what every frame of one size shares. Drawing all noise anew would cost a frame 10 ms."""
        if shape_px == self._shape_px or not (self._settings.vignetting or self._noise_of_level.any()):
            return
        self._shape_px = shape_px
        height_px, width_px = shape_px
        y, x = np.mgrid[-1 : 1 : height_px * 1j, -1 : 1 : width_px * 1j]
        corner = 1 - self._settings.vignetting * np.square(x * x + y * y) / 4
        self._vignette = np.repeat(corner[..., None], 3, axis=2).astype(np.float32)
        rng = np.random.default_rng([self._seed, 0, _NOISE])
        self._noise = rng.standard_normal((height_px + _NOISE_SLIDE_PX, width_px + _NOISE_SLIDE_PX, 3), np.float32)

    def _with_noise(self, frame: Picture, rng: np.random.Generator) -> Picture:
        """Shot and read noise: a window of the stored noise at a random place, scaled by each pixel's level."""
        if not self._noise_of_level.any():
            return np.ascontiguousarray(frame)
        y, x = rng.integers(0, _NOISE_SLIDE_PX, 2)
        unit = self._noise[y : y + frame.shape[0], x : x + frame.shape[1]]
        noise = cv2.multiply(cv2.LUT(frame, self._noise_of_level), unit)
        return np.asarray(cv2.add(frame, noise, dtype=cv2.CV_8U), np.uint8)
