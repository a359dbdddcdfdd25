"""Folders of pictures: which train, which hold out, which only measure, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from host.pictures.inspected import choose_inspected
from host.pictures.reading import digest, list_pictures, load_images, load_masks
from protocol.errors import InputError
from protocol.manifest import Preprocess
from protocol.pictures.reader import read_picture


def test_mvtec_layout(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train" / "good", 20)
    write_pictures(tmp_path / "test" / "good", 3)
    write_pictures(tmp_path / "test" / "crack", 2)
    mask = np.zeros((160, 200), np.uint8)
    mask[:, :100] = 255
    (tmp_path / "ground_truth" / "crack").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "ground_truth" / "crack" / "000_mask.png"), mask)
    pictures = list_pictures(tmp_path, 0.25)
    assert (len(pictures.train), len(pictures.held_out)) == (15, 5)
    assert not set(pictures.train) & set(pictures.held_out)
    assert [picture.kind for picture in pictures.test] == ["crack", "crack", "", "", ""]
    how = choose_inspected(pictures.good, pictures.labelled, 128).how
    assert how == Preprocess((160, 200), (0, 0, 160, 200), (128, 128))  # all of it
    masks = load_masks(pictures.test, how)
    assert [mask.shape for mask in masks] == [(160, 200)] * 5  # the pictures' own resolution
    assert masks[0][:, :100].all()
    assert not masks[0][:, 100:].any()
    assert not any(mask.any() for mask in masks[1:])


def test_validation_pictures_are_held_out(tmp_path: Path) -> None:
    write_pictures(tmp_path / "fresh", 30, side=16)
    write_pictures(tmp_path / "rotten", 3, side=16)
    write_pictures(tmp_path / "validation" / "good", 5, side=16)
    write_pictures(tmp_path / "validation" / "mould", 2, side=16)
    pictures = list_pictures(tmp_path, 0.2)
    assert len(pictures.train) == 21  # 71 % of 30: nothing of them is held out any more
    assert {path.parent.name for path in pictures.held_out} == {"good"}
    assert [picture.kind for picture in pictures.validation] == ["mould", "mould"]
    assert {picture.kind for picture in pictures.test} == {"", "rotten"}


def test_defective_validation_pictures_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train" / "good", 20, side=16)
    write_pictures(tmp_path / "validation" / "crack", 2, side=16)
    pictures = list_pictures(tmp_path, 0.25)
    assert (len(pictures.train), len(pictures.held_out), len(pictures.validation)) == (15, 5, 2)
    assert pictures.test == ()


def test_good_and_bad_folders_split_by_the_digest_of_the_name(tmp_path: Path) -> None:
    write_pictures(tmp_path / "fresh", 206, side=16)
    write_pictures(tmp_path / "rotten", 3, side=16)
    pictures = list_pictures(tmp_path, 0.2)
    names = sorted((tmp_path / "fresh").iterdir(), key=lambda path: hashlib.sha1(path.name.encode()).hexdigest())
    assert [*pictures.train, *pictures.held_out] == names[:146]
    assert {picture.path for picture in pictures.test if not picture.kind} == set(names[146:])
    assert sum(picture.kind == "rotten" for picture in pictures.test) == 3


def test_flat_folder_has_no_test_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path, 20)
    (tmp_path / "notes.txt").write_text("not a picture")
    pictures = list_pictures(tmp_path, 0.2)
    assert len(pictures.train) + len(pictures.held_out) == 20
    assert pictures.test == ()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*: give --data a folder of pictures, or 'rendered'"):
        list_pictures(tmp_path / "none", 0.2)


def test_too_few_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "good", 9)
    with pytest.raises(InputError, match="has 6 good pictures to train on: at least 16 are needed"):
        list_pictures(tmp_path, 0.2)


def test_too_few_validation_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "good", 40, side=16)
    write_pictures(tmp_path / "validation" / "good", 3, side=16)
    with pytest.raises(InputError, match="has 3 good pictures for the threshold in validation/: at least 4 are needed"):
        list_pictures(tmp_path, 0.2)


@pytest.mark.parametrize("where", ["train/bottles", "bottles"])
def test_no_folder_says_that_its_pictures_are_good(tmp_path: Path, where: str) -> None:
    write_pictures(tmp_path / where, 20, side=16)
    with pytest.raises(InputError, match="has no folder of good pictures: name it good, ok, fresh or normal"):
        list_pictures(tmp_path, 0.2)


def test_mask_of_another_size(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train" / "good", 16)
    write_pictures(tmp_path / "test" / "crack", 1)
    (tmp_path / "ground_truth" / "crack").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "ground_truth" / "crack" / "000_mask.png"), np.zeros((90, 100), np.uint8))
    pictures = list_pictures(tmp_path, 0.25)
    with pytest.raises(InputError, match=r"000_mask\.png is 100x90 pixels, its picture 200x160"):
        load_masks(pictures.test, choose_inspected(pictures.good, (), 128).how)


def test_a_size_that_the_set_did_not_have(tmp_path: Path) -> None:
    write_pictures(tmp_path, 16)
    how = choose_inspected(sorted(tmp_path.iterdir()), (), 128).how
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((160, 320, 3), np.uint8))
    with pytest.raises(InputError, match=r"wide\.png is 320x160 pixels, others are 200x160: use one size"):
        load_images(sorted(tmp_path.iterdir()), how)


def test_all_pictures_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    write_pictures(tmp_path, 20)
    for number in range(5):
        (tmp_path / f"{number:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError, match=r"5 of 20 pictures cannot be used: .*000\.png is not .*; and 2 more"):
        choose_inspected(sorted(tmp_path.iterdir()), (), 128)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.4, 0.5, 0.9])
def test_a_cut_picture_teaches_nothing(tmp_path: Path, suffix: str, share: float) -> None:
    """A decoder fills with grey what is missing, and a model learns that grey is good; also under another name."""
    random = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode(".jpg" if suffix == ".webp" else suffix, random)[1].tobytes()
    ended = b"\xff\xd9" if data[:2] == b"\xff\xd8" else b""
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(share * len(data))] + ended)
    with pytest.raises(InputError, match=r"cut\.\w+ cannot be used"):
        read_picture(tmp_path / f"cut{suffix}")


def test_digest_sees_one_changed_byte(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    before = digest([tmp_path / "a"])
    (tmp_path / "a").write_bytes(b"124")
    assert digest([tmp_path / "a"]) != before


def write_pictures(folder: Path, count: int, side: int = 0) -> None:
    """PNGs of 200×160 pixels, or square."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = np.full((side or 160, side or 200, 3), 90, np.uint8)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:03d}.png"), picture)
