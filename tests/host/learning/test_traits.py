"""What is taken for an object or a texture, on sets drawn as such."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from host.learning.traits import doubt_traits, find_traits, tell_traits

Images = NDArray[np.uint8]
PX = 64
COUNT = 20
TINT = np.array([1.0, 0.8, 0.5])


def draw_rod(rng: np.random.Generator) -> Images:
    """Thin and grey, at any angle on a light ground."""
    picture = np.full((PX, PX, 3), 200, np.uint8)
    turn = rng.uniform(0, np.pi)
    reach = 24 * np.array([np.cos(turn), np.sin(turn)])
    ends = [tuple(np.round(32 + sign * reach).astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(picture, ends[0], ends[1], (90, 90, 90), 7)
    return picture


def draw_fabric(rng: np.random.Generator) -> Images:
    """Even, with specks of noise that stand out here and there."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, (PX, PX)).astype(np.float32), (0, 0), 1.5)
    level = 128 + 14 * noise / noise.std()
    return np.asarray(np.clip(level[..., np.newaxis] * TINT, 0, 255), np.uint8)


def draw_set(draw: Callable[[np.random.Generator], Images], seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    return np.stack([draw(rng) for _ in range(COUNT)])


def test_object_has_parts() -> None:
    traits = find_traits(draw_set(draw_rod))
    assert (traits.surface, traits.turns) == ("object", True)
    assert 0.05 < traits.parts.mean() < 0.15
    assert "one part on a background, about 12% of the picture: " in tell_traits(traits)


def test_texture_is_a_part_everywhere_even_where_specks_stand_out() -> None:
    traits = find_traits(draw_set(draw_fabric))
    assert traits.surface == "texture"
    assert traits.parts.all()


@pytest.mark.parametrize(("rods", "surface"), [(19, "object"), (14, "unsure"), (6, "texture")])
def test_the_whole_set_decides(rods: int, surface: str) -> None:
    """Pictures without a background count whole, those with one by their part unless all is one texture."""
    goods = np.concatenate([draw_set(draw_rod)[:rods], draw_set(draw_fabric)[rods:]])
    traits = find_traits(goods)
    assert traits.surface == surface
    assert traits.parts[rods:].all()
    assert bool(traits.parts[:rods].all()) == (surface == "texture")


def draw_rods(turns_deg: NDArray[np.float64]) -> Images:
    """One rod, turned by these angles."""
    upright = np.full((PX, PX, 3), 200, np.uint8)
    cv2.line(upright, (32, 8), (32, 56), (90, 90, 90), 7)
    matrices = [cv2.getRotationMatrix2D((31.5, 31.5), float(turn), 1) for turn in turns_deg]
    return np.stack([cv2.warpAffine(upright, one, (PX, PX), borderValue=(200, 200, 200)) for one in matrices])


@pytest.mark.parametrize(("spread_deg", "turns"), [(0, False), (15, False), (90, True), (180, True)])
def test_parts_that_lie_at_any_angle(spread_deg: float, turns: bool) -> None:
    traits = find_traits(draw_rods(np.linspace(-spread_deg, spread_deg, COUNT)))
    assert traits.turns is turns
    assert bool(doubt_traits(traits)) is turns


def test_round_parts_have_no_heading() -> None:
    picture = np.full((PX, PX, 3), 200, np.uint8)
    cv2.circle(picture, (32, 32), 20, (90, 90, 90), -1)
    assert not find_traits(np.stack([picture] * COUNT)).turns


def test_unsure_surface_is_doubted() -> None:
    traits = find_traits(np.concatenate([draw_set(draw_rod)[:14], draw_set(draw_fabric)[14:]]))
    problem = "only some good pictures show one part on a background: take all of them in the same way"
    assert doubt_traits(traits) == [problem]
