"""Free-running mode: the camera films a belt that scrolls in +x, with as many parts in view as fit.

For example:

    scene = Scene(parts, CameraSettings(), belt_speed_mm_s=200, spacing_mm=110, count=50, seed=1)
    for index in range(scene.n_frames):
        image, truth = scene.frame(index), scene.visible(index)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError
from sim.camera import Belt, CameraSettings, Placed, Sensor, jitter, lay, place, resized
from sim.defects import Picture
from sim.motion import BeltMotion, Stop, lay_parts
from sim.parts import RENDER_PX_PER_MM, Part, Parts

_LAYOUT, _TURN, _EXPOSURE, _NOISE = range(20, 24)  # purposes beside those of sim/parts.py and sim/camera.py

# The largest part with its shadow: 80 mm of orange, out of round by 5 %, and some air.
PART_MM = 88.0
CARD_MM = 62.0  # a replayed picture lies on the belt as a card; its diagonal stays below PART_MM


class Scene:
    """A finite run of `count` parts past the camera.

    Raises:
        InputError: a belt, spacing or view on which parts would overlap or never be seen whole.
    """

    def __init__(
        self,
        parts: Parts,
        settings: CameraSettings,
        *,
        belt_speed_mm_s: float,
        spacing_mm: float,
        farthest_mm: float | None = None,
        stops: Sequence[Stop] = (),
        count: int,
        seed: int,
        view_px: tuple[int, int] = (480, 640),
        fps: float = 30.0,
    ) -> None:
        """From room to room of the parts it is `spacing_mm`, or a random way from that to `farthest_mm`."""
        pitch_mm = (spacing_mm, farthest_mm or spacing_mm)
        self._parts = parts
        self._seed = seed
        self._view_px = view_px
        self._px_per_mm = settings.px_per_mm
        self._turn_spread_deg = settings.rotation_jitter_deg
        self._part_px = PART_MM * settings.px_per_mm
        self._spacing_px = sum(pitch_mm) / 2 * settings.px_per_mm
        step_px = belt_speed_mm_s / fps * settings.px_per_mm if fps > 0 else 0.0
        _check(view_px, self._part_px, step_px, spacing_mm, count)
        self.motion, self._fps = BeltMotion(belt_speed_mm_s, stops), fps
        self._centres_px = self._lay_out(pitch_mm, count)
        self._belt = Belt(seed)
        self._sensor = Sensor(replace(settings, frame_px=view_px, belt_speed_mm_s=belt_speed_mm_s), seed)
        self._windows: dict[int, Placed] = {}
        last_px = self._view_px[1] + self._part_px / 2 - self._centres_px[-1, 0]
        self.n_frames = int(np.ceil(round(self.motion.time_s(last_px / self._px_per_mm) * fps, 6))) + 1

    def frame(self, index: int) -> Picture:
        """The camera's view (h, w, 3) at frame `index`; the same bytes in any order."""
        height_px, width_px = self._view_px
        scroll_px = self._scroll_px(index)
        view = self._belt.window(-scroll_px, 0, height_px, width_px)
        numbers = self._numbers(index, self._side_px / 2)  # a shadow comes before its part
        self._windows = {number: self._windows.get(number) or self._prepare(number) for number in numbers}
        for number in numbers:
            self._lay(view, self._windows[number], number, scroll_px)
        look = np.random.default_rng([self._seed, 0, _EXPOSURE])  # one exposure for the run: no flicker
        noise = np.random.default_rng([self._seed, index, _NOISE])
        return self._sensor.expose(view, look, noise, parts=scroll_px / self._spacing_px)

    def visible(self, index: int) -> list[tuple[int, float, float]]:
        """(part number, x_px, y_px) of every part that reaches into frame `index`; a centre may lie outside."""
        scroll_px = self._scroll_px(index)
        return [
            (number, float(self._centres_px[number, 0] + scroll_px), float(self._centres_px[number, 1]))
            for number in self._numbers(index, self._part_px / 2)
        ]

    def middles_mm(self) -> list[float]:
        """Way of the belt at which each part's centre is in the middle of the view."""
        return [float(way) for way in ((self._view_px[1] - 1) / 2 - self._centres_px[:, 0]) / self._px_per_mm]

    def _scroll_px(self, index: int) -> int:
        """Way of the belt since frame 0, in whole pixels: the belt and all that lies on it move as one."""
        return round(self.motion.way_mm(index / self._fps) * self._px_per_mm)

    def _numbers(self, index: int, reach_px: float) -> list[int]:
        x_px = self._centres_px[:, 0] + self._scroll_px(index)
        inside = (x_px > -reach_px) & (x_px < self._view_px[1] + reach_px)
        return [int(number) for number in np.flatnonzero(inside)]

    def _lay_out(self, pitch_mm: tuple[float, float], count: int) -> NDArray[np.float64]:
        """(count, 2) centres x, y in frame 0, all left of the view. Neighbours stay PART_MM apart."""
        rooms_px = np.array(lay_parts(count, pitch_mm, self._seed)) * self._px_per_mm
        spacing_px = pitch_mm[0] * self._px_per_mm
        centres_px = np.empty((count, 2))
        for number in range(count):
            along, across = jitter(np.random.default_rng([self._seed, number, _LAYOUT]), 2) / 2.5
            centres_px[number, 0] = -self._part_px / 2 - rooms_px[number] + along * (spacing_px - self._part_px) / 2
            centres_px[number, 1] = self._view_px[0] / 2 + across * (self._view_px[0] - self._part_px) / 2
        centres_px[:, 0] -= max(0.0, float(centres_px[0, 0]) + self._part_px / 2)
        return centres_px

    def _prepare(self, number: int) -> Placed:
        """The part turned and scaled, at its place within a pixel, in a window that holds it and its shadow."""
        part = self._parts.part(number)
        scale = self._px_per_mm / RENDER_PX_PER_MM
        if part.alpha.all():
            part, scale = _card(part, round(CARD_MM * self._px_per_mm)), 1.0
        turn = jitter(np.random.default_rng([self._seed, number, _TURN]), 1)[0]
        side_px = self._side_px
        within = self._centres_px[number] - np.floor(self._centres_px[number]) + side_px // 2
        return place(part, (side_px, side_px), within, float(turn * self._turn_spread_deg), scale)

    @property
    def _side_px(self) -> int:
        return int(self._part_px * 1.25) + 2

    def _lay(self, view: Picture, window: Placed, number: int, scroll_px: int) -> None:
        """Draw the part's window into the view, as far as it reaches in."""
        left_px = int(np.floor(self._centres_px[number, 0])) + scroll_px - self._side_px // 2
        top_px = int(np.floor(self._centres_px[number, 1])) - self._side_px // 2
        first_x, last_x = max(left_px, 0), min(left_px + self._side_px, view.shape[1])
        first_y, last_y = max(top_px, 0), min(top_px + self._side_px, view.shape[0])
        if first_x >= last_x or first_y >= last_y:
            return
        into = (slice(first_y, last_y), slice(first_x, last_x))
        out_of = (slice(first_y - top_px, last_y - top_px), slice(first_x - left_px, last_x - left_px))
        seen = Placed(window.rgb[out_of], window.alpha[out_of], window.defect[out_of], window.shade[out_of])
        view[into] = lay(view[into], seen)


def _check(view_px: tuple[int, int], part_px: float, step_px: float, spacing_mm: float, count: int) -> None:
    """Raises InputError with what to change."""
    if count < 1:
        raise InputError(f"a run of {count} parts is empty: give at least 1")
    if not step_px > 0:
        raise InputError("the belt stands still: give a belt speed and a frame rate above 0")
    if spacing_mm < PART_MM:
        raise InputError(f"a spacing of {spacing_mm:g} mm lets parts overlap: give at least {PART_MM:g} mm")
    if min(view_px) < part_px:
        view = f"{view_px[1]}×{view_px[0]} px"
        raise InputError(f"a view of {view} cannot hold a part of {part_px:.0f} px: lower px_per_mm")
    if step_px > view_px[1] - part_px:
        raise InputError("the belt is too fast to see every part whole: lower its speed or raise the frame rate")


def _card(part: Part, side_px: int) -> Part:
    """A whole picture shrunk to fit a square of `side_px`."""
    scale = side_px / max(part.alpha.shape)
    size = (max(1, round(part.alpha.shape[1] * scale)), max(1, round(part.alpha.shape[0] * scale)))
    return resized(part, size)
