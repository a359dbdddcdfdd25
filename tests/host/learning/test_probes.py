"""Probes are small, colourless, seen by a person, and only where somebody looks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from host.learning.probes import PROBES, draw_probes

PX = 96
Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def discs() -> Images:
    """Grey discs with a ring on a dark, even ground."""
    pictures = np.full((3, PX, PX, 3), 20, np.uint8)
    for number, picture in enumerate(pictures):
        cv2.circle(picture, (48, 48), 34, (120 + number,) * 3, -1, cv2.LINE_AA)
        cv2.circle(picture, (48, 48), 20, (200,) * 3, 2, cv2.LINE_AA)
    return pictures


def find_changes(goods: Images, drawn: Images) -> NDArray[np.int16]:
    """(n, h, w, 3), to the good picture that each was made of: the one that is most alike."""
    changes = drawn[:, np.newaxis].astype(np.int16) - goods
    nearest = (changes != 0).any(axis=4).sum(axis=(2, 3)).argmin(axis=1)
    return np.asarray(changes[np.arange(len(drawn)), nearest], np.int16)


def test_every_kind_is_small_colourless_and_visible(discs: Images) -> None:
    drawn = draw_probes(discs, 12, seed=1)
    assert list(drawn) == list(PROBES)
    for kind, pictures in drawn.items():
        changes = find_changes(discs, pictures)
        assert (np.ptp(changes, axis=3) <= 1).all(), kind  # all colours alike, but for rounding
        sizes = (np.abs(changes).max(axis=3) > 8).sum(axis=(1, 2))
        assert sizes.min() >= 8, kind
        assert np.median(sizes) <= 16 * 8 * 1.5, kind  # 8 cells of 4 × 4 pixels, and a soft rim
        assert np.abs(changes).max(axis=(1, 2, 3)).min() >= 16, kind


def test_the_same_seed_draws_the_same(discs: Images) -> None:
    first, again, other = (draw_probes(discs, 4, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[kind], again[kind]) for kind in PROBES)
    assert not np.array_equal(first["spot"], other["spot"])


def test_what_nobody_could_see_is_left_out() -> None:
    even = np.full((2, PX, PX, 3), 128, np.uint8)
    drawn = draw_probes(even, 4, seed=1)
    assert "bent edge" not in drawn  # of an even surface, no edge moves
    assert len(drawn["spot"]) == 4


def test_one_pore_in_place_of_another_is_no_bent_edge() -> None:
    noise = np.random.default_rng(0).normal(0, 60, (2, PX, PX)).astype(np.float32)
    grain = np.stack([cv2.GaussianBlur(one, (0, 0), 2.0) for one in noise])
    orange = np.repeat(np.clip(128 + grain, 0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=3)
    assert "bent edge" not in draw_probes(orange, 4, seed=1)


def test_nothing_is_painted_where_nobody_looks(discs: Images) -> None:
    ignored = np.zeros((PX, PX), np.bool_)
    ignored[:, :60] = True
    blank = discs.copy()
    blank[:, ignored] = 0
    for pictures in draw_probes(blank, 6, seed=1, ignored=ignored).values():
        assert (pictures[:, ignored] == pictures[0, ignored]).all()
    assert draw_probes(discs, 2, seed=1, ignored=np.ones((PX, PX), np.bool_)) == {}


def test_frames_need_not_be_square() -> None:
    wide = np.full((2, 64, 128, 3), 90, np.uint8)
    assert draw_probes(wide, 3, seed=0)["scratch"].shape == (3, 64, 128, 3)
