"""Parts in one view of the belt, found without labels: whatever is neither the belt nor a shadow on it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

REDUCED_PART_PX = 44  # a part's length in the reduced picture: its centre is then good to a tenth of a pixel
DEEPEST_SHADOW = 0.4  # of the belt's own light
SAME_LEVELS, SAME_SHARE = 8.0, 0.08  # a pixel this near to the belt's colour, in levels and of its light, is belt
STRIKING = 2.0  # times as far from the belt's colour: clouds and rubbed places of a belt are not
STRIKING_SHARE = 0.05  # of the rectangle around a part, at least
FOLLOW = 0.02  # weight of a new view in the belt's picture: exposure drifts over seconds
FORGET_BELOW = 0.3  # when less of a view looks like the belt, the light has changed: learn it anew
CHALLENGE_VIEWS = 32  # and every so often anyway, because the first view may have been crowded
BETTER_BY = 0.05  # of a view, that a newly learnt belt must explain more than the remembered one
FREE_COLUMNS = 0.08  # of a view's columns are free of parts even on a dense belt
EDGE_STRIDE_PX = REDUCED_PART_PX // 6
AS_FEW_EDGES = 1.3  # times those of the columns that are surely free
AS_ROUGH, SMOOTH = 1.5, 0.05  # times the remembered belt's edges, and edges that any belt may have, for its light
SMALLEST = 0.35  # of a part's length; what is smaller is dirt
THINNEST = 0.05  # of the square of a part's length; what covers less is a scratch
LARGEST = 1.25  # of a part's length; what is larger may be several parts
CORE = 0.7  # of the greatest distance to the outline: necks between touching parts are thinner

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Light = NDArray[np.float32]


@dataclass(frozen=True)
class Blob:
    """A part as one view shows it; its centre is in pixels of the view, (0, 0) the middle of the first pixel."""

    x_px: float
    y_px: float
    length_px: float  # along the belt
    cut_ends: bool  # it reaches beyond the view along the belt: there, its centre is that of the rest
    cut_sides: bool  # it reaches beyond the view across the belt
    touching: bool  # its outline is one with another part's


@dataclass(frozen=True)
class Masks:
    """Of the reduced picture, (h, w), 0 or 255. A shadow on the belt is none of these."""

    strange: Mask  # a part, or a stain of the belt
    striking: Mask  # surely no stain
    bare: Mask  # belt


class Finder:
    """Remembers the belt's look from view to view; the views must all have one size."""

    def __init__(self, part_px: float) -> None:
        self._factor = max(1, round(part_px / REDUCED_PART_PX))
        self._part_px = part_px / self._factor
        self._belt: Light | None = None
        self._views_until_challenge = 0

    def find(self, view: Image) -> list[Blob]:
        """The parts in a view (h, w, 3), in no particular order."""
        size = (view.shape[1] // self._factor, view.shape[0] // self._factor)
        # subtle: the remainder is cut off, so that reduced pixels are whole squares of the view's
        whole = view[: size[1] * self._factor, : size[0] * self._factor]
        light = cv2.resize(whole, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        belt, masks = self._compare(light)
        filled, outlines = _outlines(masks.strange)
        # subtle: not inside parts, where much is as dark as the belt
        cv2.accumulateWeighted(light, belt, FOLLOW, mask=cv2.bitwise_and(masks.bare, cv2.bitwise_not(filled)))
        self._belt = belt
        return [blob for outline in outlines for blob in self._blobs(filled, masks.striking, outline)]

    def _compare(self, light: Light) -> tuple[Light, Masks]:
        """The view against the belt as it is remembered, or as it is learnt from this very view if that fits better."""
        belt = _learn(light) if self._belt is None else self._belt
        masks = _compare(light, belt)
        self._views_until_challenge -= 1
        if masks.bare.mean() >= FORGET_BELOW * 255 and self._views_until_challenge >= 0:
            return belt, masks
        self._views_until_challenge = CHALLENGE_VIEWS
        fresh = _learn(light)
        fresh_masks = _compare(light, fresh)
        # subtle: a long part can explain more of a view than the belt does, but it brings edges with it
        is_belt = _roughness(fresh) <= AS_ROUGH * _roughness(belt) + SMOOTH
        is_better = is_belt and fresh_masks.bare.mean() > masks.bare.mean() + BETTER_BY * 255
        return (fresh, fresh_masks) if is_better else (belt, masks)

    def _blobs(self, filled: Mask, striking: Mask, outline: cv2.typing.MatLike) -> list[Blob]:
        left, top, width, height = cv2.boundingRect(outline)
        inside = striking[top : top + height, left : left + width]
        is_small = max(width, height) < SMALLEST * self._part_px
        is_thin = cv2.contourArea(outline) < THINNEST * self._part_px**2
        if is_small or is_thin or inside.mean() < STRIKING_SHARE * 255:
            return []
        if max(width, height) > LARGEST * self._part_px:
            cores = _cores(filled[top : top + height, left : left + width])
            if len(cores) > 1:
                return [self._touching(left + x, top + y, filled.shape) for x, y in cores]
        moments = cv2.moments(cv2.convexHull(outline))  # of the hull: a broken rim does not move the centre
        if not moments["m00"]:
            return []
        x, y = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
        cut_ends = left == 0 or left + width == filled.shape[1]
        cut_sides = top == 0 or top + height == filled.shape[0]
        length_px = float(width * self._factor)
        return [Blob(self._full(x), self._full(y), length_px, cut_ends, cut_sides, touching=False)]

    def _touching(self, x: float, y: float, shape: tuple[int, ...]) -> Blob:
        reach = self._part_px / 2 * 0.9
        cut_ends = x < reach or x > shape[1] - reach
        cut_sides = y < reach or y > shape[0] - reach
        length_px = self._part_px * self._factor
        return Blob(self._full(x), self._full(y), length_px, cut_ends, cut_sides, touching=True)

    def _full(self, reduced_px: float) -> float:
        return (reduced_px + 0.5) * self._factor - 0.5


def _learn(light: Light) -> Light:
    """The belt's look in a view that parts cover in part: the median of the columns with the fewest edges.

    A part adds edges to each column that it covers, whatever the belt and its surroundings look like.
    """
    edges = _edges(light)
    free = edges <= AS_FEW_EDGES * np.quantile(edges, FREE_COLUMNS)
    belt = np.median(light[:, free], axis=1)
    return np.ascontiguousarray(np.broadcast_to(belt[:, None], light.shape), dtype=np.float32)


def _edges(light: Light) -> Light:
    """(w,): how much each column changes from top to bottom; by far strides, so that noise counts little."""
    return np.asarray(np.abs(light[EDGE_STRIDE_PX:] - light[:-EDGE_STRIDE_PX]).sum(axis=(0, 2)))


def _roughness(belt: Light) -> float:
    return float(_edges(belt).sum() / (belt.sum() + 1))


def _compare(light: Light, belt: Light) -> Masks:
    """A shadow takes the same share of light from each colour: what no shadow of the belt explains is strange."""
    shade = _colour_sum(light * belt) / (_colour_sum(belt * belt) + 1)
    shadow = belt * np.clip(shade, DEEPEST_SHADOW, 1)[..., None]
    strangeness = _colour_max(np.abs(light - shadow)) / (SAME_LEVELS + SAME_SHARE * _colour_max(belt))
    bare = (strangeness < 1) & (np.abs(shade - 1) < 2 * SAME_SHARE)
    return Masks(*(mask.astype(np.uint8) * 255 for mask in (strangeness > 1, strangeness > STRIKING, bare)))


def _colour_sum(light: Light) -> Light:
    return np.asarray(light[..., 0] + light[..., 1] + light[..., 2])


def _colour_max(light: Light) -> Light:
    return np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])


def _outlines(parts: Mask) -> tuple[Mask, list[cv2.typing.MatLike]]:
    """The parts without specks and with their holes filled (a bottle's bore is as dark as the belt), and outlines."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    outlines, _ = cv2.findContours(cv2.dilate(parts, disc), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(parts)
    cv2.drawContours(filled, outlines, -1, 255, cv2.FILLED)
    # subtle: specks go only now, when a thin bright rim is no longer one; one erosion takes the dilation back
    filled = np.asarray(cv2.dilate(cv2.erode(filled, disc, iterations=3), disc, iterations=2), np.uint8)
    outlines, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return filled, list(outlines)


def _cores(filled: Mask) -> list[tuple[float, float]]:
    """Centres (x, y) of the thick places of a blob: one in a long part, one in each of parts that touch."""
    depth = cv2.distanceTransform(filled, cv2.DIST_L2, 3)
    thick = (depth > CORE * depth.max()).astype(np.uint8)
    _, _, _, centres = cv2.connectedComponentsWithStats(thick)
    return [(float(x), float(y)) for x, y in centres[1:]]
