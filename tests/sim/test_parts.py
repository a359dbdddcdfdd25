"""Parts: the same bytes whenever asked, exact masks, and replays that say what is wrong with a folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from protocol.errors import InputError
from sim.defects import CRUMB_PX, VISIBLE_LEVELS, outline_change
from sim.parts import DEFECTS, Part, RenderedParts, ReplayedParts, open_parts

PRODUCTS = tuple(DEFECTS)


def same(one: Part, other: Part) -> bool:
    arrays = ("rgb", "alpha", "mask")
    equal = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    return equal and (one.number, one.defect) == (other.number, other.defect)


def write_picture(path: Path, colour: tuple[int, int, int], shape_px: tuple[int, int] = (40, 48)) -> None:
    """A flat picture; `colour` is RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*shape_px, 3), colour[::-1], np.uint8))


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    for index in range(6):
        write_picture(tmp_path / f"test/good/{index:03}.png", (0, 100, index))
    for index in range(3):
        write_picture(tmp_path / f"test/broken/{index:03}.png", (200, 0, index))
        mask = np.zeros((40, 48), np.uint8)
        mask[5:9, 10 : 20 + index] = 255
        (tmp_path / "ground_truth/broken").mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / f"ground_truth/broken/{index:03}_mask.png"), mask)
    write_picture(tmp_path / "train/good/000.png", (7, 7, 7))
    return tmp_path


@pytest.fixture
def fresh_rotten(tmp_path: Path) -> Path:
    for index in range(5):
        write_picture(tmp_path / f"fresh/{index}.jpg", (10, 200, 10))
    for index in range(4):
        write_picture(tmp_path / f"rotten/{index}.jpg", (90, 60, 10))
    return tmp_path


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_part_depends_on_seed_and_number_only(product: str) -> None:
    forwards = RenderedParts(product, 3, 0.5)
    first = [forwards.part(number) for number in range(4)]
    np.random.seed(0)  # the global state must not matter
    backwards = RenderedParts(product, 3, 0.5)
    again = [backwards.part(number) for number in (3, 2, 1, 0)][::-1]
    assert all(same(one, other) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first[0].rgb, first[1].rgb)
    assert not np.array_equal(first[0].rgb, RenderedParts(product, 4, 0.5).part(0).rgb)


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_good_part_has_no_defect_and_an_empty_mask(product: str) -> None:
    for number in range(5):
        part = RenderedParts(product, 1, 0.0).part(number)
        assert part.defect == ""
        assert not part.mask.any()


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_mask_is_where_the_defect_changes_the_picture_visibly(product: str) -> None:
    for number in range(25):
        good = RenderedParts(product, 2, 0.0).part(number)
        bad = RenderedParts(product, 2, 1.0).part(number)
        change = np.abs(bad.rgb.astype(int) - good.rgb).max(axis=2)
        seen = (change > VISIBLE_LEVELS) & (bad.alpha > 0)
        assert np.array_equal(bad.mask, outline_change(good.rgb, bad.rgb) & (bad.alpha > 0))
        assert (bad.mask & seen).sum() > max(0.95 * seen.sum(), 0.8 * bad.mask.sum())
        assert np.array_equal(bad.alpha, good.alpha)
        _, _, regions, _ = cv2.connectedComponentsWithStats(bad.mask.astype(np.uint8))
        assert len(regions) == 2 or regions[1:, cv2.CC_STAT_AREA].min() >= CRUMB_PX


def test_an_outline_spans_narrow_gaps_and_leaves_out_crumbs() -> None:
    before, after = np.zeros((2, 40, 40, 3), np.uint8)
    after[10:20, 10:20, 1] = VISIBLE_LEVELS + 1
    after[10:20, 14:16] = 0  # a gap of two pixels
    after[30, 30:33] = 255
    mask = outline_change(before, after)
    assert mask[11:19, 11:19].all()
    assert mask.sum() <= 100
    after[10:20, 10:20] = 0
    assert outline_change(before, after).sum() == 3  # all there is
    assert not outline_change(before, before).any()


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_defect_can_be_seen(product: str) -> None:
    good, bad = RenderedParts(product, 8, 0.0), RenderedParts(product, 8, 1.0)
    kinds = set()
    for number in range(80):
        part = bad.part(number)
        kinds.add(part.defect)
        change = np.abs(part.rgb.astype(int) - good.part(number).rgb).max(axis=2)
        strong = int((change > 2.5 * VISIBLE_LEVELS).sum())
        assert strong >= 8, f"part {number}: {part.defect} shows on {strong} pixels only"
        assert part.mask.mean() < 0.45
    assert kinds == set(DEFECTS[product])


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_part_lies_whole_in_its_sprite(product: str) -> None:
    for number in range(20):
        part = RenderedParts(product, 5, 0.2).part(number)
        assert part.rgb.shape == (*part.alpha.shape, 3)
        border = np.concatenate([part.alpha[0], part.alpha[-1], part.alpha[:, 0], part.alpha[:, -1]])
        assert not border.any()
        diameter_px = np.sqrt((part.alpha > 127).sum() * 4 / np.pi)
        assert 168 <= diameter_px <= 204


def test_good_parts_differ_from_each_other() -> None:
    """A detector must have something to learn: means of colour and size spread between fruits."""
    parts = [RenderedParts("orange", 6, 0.0).part(number) for number in range(20)]
    means = np.array([part.rgb[part.alpha == 255].mean(axis=0) for part in parts])
    assert means.std(axis=0)[1] > 8
    assert np.std([(part.alpha > 127).sum() for part in parts]) > 500


def test_the_defect_share_is_kept() -> None:
    bad = sum(bool(RenderedParts("bottle", 1, 0.3).part(number).defect) for number in range(150))
    assert 30 <= bad <= 60  # 45 expected, deviation 5.6


def test_a_replay_brings_each_picture_once_a_cycle(mvtec: Path) -> None:
    parts = ReplayedParts(mvtec, 1, None)
    for cycle in range(2):
        seen = [parts.part(number).rgb[0, 0].tolist() for number in range(9 * cycle, 9 * cycle + 9)]
        assert sorted(seen) == sorted([[0, 100, index] for index in range(6)] + [[200, 0, index] for index in range(3)])
    orders = [[ReplayedParts(mvtec, seed, None).part(number).defect for number in range(9)] for seed in range(4)]
    assert len({tuple(order) for order in orders}) > 1


def test_a_replayed_part_carries_its_mask(mvtec: Path) -> None:
    parts = [ReplayedParts(mvtec, 1, None).part(number) for number in range(9)]
    for part in parts:
        assert (part.alpha == 255).all()
        if not part.defect:
            assert not part.mask.any()
            continue
        expected = np.zeros((40, 48), np.bool_)
        expected[5:9, 10 : 20 + part.rgb[0, 0, 2]] = True
        assert part.defect == "broken"
        assert np.array_equal(part.mask, expected)


def test_a_replay_of_two_folders(fresh_rotten: Path) -> None:
    parts = open_parts("orange", str(fresh_rotten), 2, None)
    assert sorted(parts.part(number).defect for number in range(9)) == [""] * 5 + ["rotten"] * 4
    share = open_parts("orange", str(fresh_rotten), 2, 0.25)
    drawn = [share.part(number) for number in range(200)]
    assert 30 <= sum(part.defect == "rotten" for part in drawn) <= 70  # 50 expected, deviation 6.1
    assert same(share.part(7), open_parts("orange", str(fresh_rotten), 2, 0.25).part(7))


def expect_refusal(match: str, product: str, source: Path | str, share: float | None = None) -> None:
    with pytest.raises(InputError, match=match) as caught:
        open_parts(product, str(source), 0, share).part(0)
    assert "\n" not in str(caught.value)


def test_bad_input_is_refused_with_what_to_do(tmp_path: Path) -> None:
    expect_refusal("unknown product 'pear': choose one of orange, bottle", "pear", "rendered")
    expect_refusal("defect share of 1.5 is impossible: give a number from 0 to 1", "orange", "rendered", 1.5)
    expect_refusal("defect share of nan is impossible", "orange", "rendered", float("nan"))
    expect_refusal("no folder .*missing: give 'rendered' or a folder", "orange", tmp_path / "missing")
    expect_refusal("no pictures in the folders of", "orange", tmp_path)
    write_picture(tmp_path / "rotten/0.png", (1, 2, 3))
    expect_refusal("has no folder of good pictures: name it", "orange", tmp_path)


def test_a_share_that_the_folder_cannot_give_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "ok/0.png", (1, 2, 3))
    expect_refusal("has no pictures of defects", "orange", tmp_path, 0.5)
    assert open_parts("orange", str(tmp_path), 0, 0.0).part(0).defect == ""


def test_an_unreadable_picture_is_named(fresh_rotten: Path) -> None:
    for path in fresh_rotten.glob("*/*.jpg"):
        path.write_bytes(b"\xff\xd8 no picture")
    expect_refusal(r"\.jpg .*: replace or remove it", "orange", fresh_rotten)


def test_a_mask_of_another_size_is_named(mvtec: Path) -> None:
    wrong: NDArray[np.uint8] = np.zeros((10, 10), np.uint8)
    for path in mvtec.glob("ground_truth/broken/*"):
        assert cv2.imwrite(str(path), wrong)
    expect_refusal(r"_mask\.png is 10x10 pixels, its picture 48x40", "bottle", mvtec, 1.0)
