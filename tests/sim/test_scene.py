"""The free-running view: parts where the truth says, whole at least once, never over one another."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from protocol.errors import InputError
from sim.camera import CameraSettings
from sim.parts import RenderedParts, ReplayedParts
from sim.scene import PART_MM, Scene

QUIET = replace(CameraSettings(), exposure_spread=0, tint_spread=0, read_noise_levels=0, electrons_per_level=np.inf)
VIEW_PX = (480, 640)


def make_scene(count: int = 8, seed: int = 1, spacing_mm: float = 100.0, settings: CameraSettings = QUIET) -> Scene:
    parts = RenderedParts("orange", seed, 0.3)
    return Scene(parts, settings, belt_speed_mm_s=300, spacing_mm=spacing_mm, count=count, seed=seed)


def test_a_frame_is_the_same_in_any_order() -> None:
    one, other = make_scene(settings=CameraSettings()), make_scene(settings=CameraSettings())
    indices = [5, 40, 12, 41]
    first = {index: one.frame(index) for index in indices}
    for index in indices[::-1]:
        assert np.array_equal(other.frame(index), first[index])
    assert first[5].shape == (*VIEW_PX, 3)
    assert first[5].dtype == np.uint8
    assert first[5].flags.c_contiguous
    assert not np.array_equal(make_scene(seed=2).frame(40), make_scene().frame(40))


@pytest.mark.parametrize("spacing_mm", [PART_MM, 100.0, 180.0])
def test_parts_never_overlap_and_keep_their_order(spacing_mm: float) -> None:
    scene = make_scene(60, spacing_mm=spacing_mm)
    places: dict[int, tuple[float, float]] = {}
    for index in range(scene.n_frames):
        visible = scene.visible(index)
        for (number, x, _), (after, x_after, _) in pairwise(visible):
            assert after == number + 1
            assert x - x_after >= PART_MM * QUIET.px_per_mm - 1e-6
        places |= {number: (x, y) for number, x, y in visible}
    assert sorted(places) == list(range(60))


def test_every_part_is_seen_whole() -> None:
    scene = make_scene(30)
    half_px = PART_MM * QUIET.px_per_mm / 2
    whole = set()
    for index in range(scene.n_frames):
        for number, x, y in scene.visible(index):
            assert half_px <= y <= VIEW_PX[0] - half_px
            if half_px <= x <= VIEW_PX[1] - half_px:
                whole.add(number)
    assert whole == set(range(30))


def test_the_belt_is_empty_at_both_ends() -> None:
    scene = make_scene(3)
    assert scene.visible(0) == []
    assert scene.visible(scene.n_frames - 1) == []
    assert scene.visible(scene.n_frames - 2) != []


def test_centres_are_where_the_fruit_is() -> None:
    scene = make_scene()
    checked = 0
    for index in range(0, scene.n_frames, 7):
        frame = scene.frame(index)
        fruit = (frame[..., 0].astype(int) - frame[..., 2] > 45).astype(np.uint8)
        closed = cv2.morphologyEx(fruit, cv2.MORPH_CLOSE, np.ones((25, 25), np.uint8))
        _, labels, stats, centroids = cv2.connectedComponentsWithStats(closed)
        for _, x, y in scene.visible(index):
            if not 110 < x < VIEW_PX[1] - 110:
                continue
            label = labels[round(y), round(x)]
            assert label > 0
            assert stats[label, cv2.CC_STAT_AREA] > 15000
            assert np.hypot(*(centroids[label] - (x, y))) < 4
            checked += 1
    assert checked > 10


def test_the_belt_and_its_parts_move_as_one() -> None:
    """300 mm/s at 2.5 px/mm and 30 fps: 25 px a frame."""
    scene = make_scene(settings=replace(QUIET, vignetting=0, exposure_us=0))
    before, after = scene.frame(40), scene.frame(41)
    assert np.array_equal(before[:, :-25], after[:, 25:])
    places = {number: x for number, x, _ in scene.visible(40)}
    assert all(x - places[number] == pytest.approx(25) for number, x, _ in scene.visible(41) if number in places)


def test_lamp_and_lens_age_with_the_parts_that_have_gone_by() -> None:
    """100 mm of belt are one part: a third of 300 mm/s at 30 frames/s are 10 frames."""
    fresh, ageing = make_scene(), make_scene(settings=replace(QUIET, lamp_dims=50.0))
    for index, light in ((0, 1.0), (40, 0.8), (80, 0.6)):
        assert ageing.frame(index).mean() == pytest.approx(light * fresh.frame(index).mean(), rel=0.03)


def test_parts_lie_at_uneven_places() -> None:
    scene = make_scene(40, spacing_mm=130)
    seen = {number: (index, x, y) for index in range(scene.n_frames) for number, x, y in scene.visible(index)}
    across = [y for _, _, y in seen.values()]
    assert np.std(across) > 20


def test_a_replay_lies_on_the_belt_as_cards(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    assert cv2.imwrite(str(tmp_path / "good/0.png"), np.full((300, 200, 3), 230, np.uint8))
    parts = ReplayedParts(tmp_path, 0, None)
    scene = Scene(parts, QUIET, belt_speed_mm_s=300, spacing_mm=100, count=2, seed=0)
    index = next(index for index in range(scene.n_frames) if any(x > 200 for _, x, _ in scene.visible(index)))
    _, x, y = scene.visible(index)[0]
    frame = scene.frame(index)
    assert frame[round(y), round(x)].min() > 180
    assert frame[round(y) + 95, round(x)].max() < 110  # 300 px high when read, 155 px on the belt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "give at least 1"),
        ({"belt_speed_mm_s": 0}, "stands still"),
        ({"fps": 0}, "stands still"),
        ({"spacing_mm": 50}, "a spacing of 50 mm lets parts overlap: give at least 88 mm"),
        ({"view_px": (100, 640)}, "a view of 640×100 px cannot hold a part of 220 px"),
        ({"belt_speed_mm_s": 9000}, "too fast to see every part whole"),
    ],
)
def test_impossible_runs_are_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"belt_speed_mm_s": 300, "spacing_mm": 100, "count": 2, "seed": 0} | change
    with pytest.raises(InputError, match=message):
        Scene(RenderedParts("orange", 0, 0), QUIET, **arguments)  # type: ignore[arg-type]
