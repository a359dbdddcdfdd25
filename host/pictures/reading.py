"""Pictures to learn from and to measure with: MVTec's layout, folders of good and bad, or one folder of good ones.

bottle/train/good/*.png  test/<kind>/*.png  ground_truth/<kind>/*_mask.png      MVTec: test/ only measures
oranges/fresh/*.jpg  oranges/rotten/*.jpg                                        71 % of the good ones train
oranges/*.jpg                                                                    all train, nothing measures
…/validation/good/*.png  validation/<kind>/*.png                                 optional in any of them

Good pictures of `validation` are the held-out ones, where there are some; its defective ones may set the threshold
(method "best-f1"), and measure nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from board.preprocess import preprocess
from protocol.errors import InputError
from protocol.manifest import Preprocess
from protocol.pictures.reader import read_picture

GOOD_FOLDERS = ("good", "ok", "fresh", "normal")
UNCHECKED_SUFFIXES = (".tif", ".tiff", ".webp")  # which the board never sees
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", *UNCHECKED_SUFFIXES)
TRAIN_SHARE = 0.71  # of the good pictures, where no folder says which ones train
FEWEST_GOOD = 16  # below this neither the network nor the threshold has seen what good looks like
FEWEST_HELD_OUT = 4
VALIDATION, TRUTH = "validation", "ground_truth"

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class TestPicture:
    path: Path
    kind: str  # "" for a good part, else the folder's name
    mask_path: Path | None  # white where defective; None if good or not known


@dataclass(frozen=True)
class Pictures:
    """Good pictures that train, held-out good ones that set the threshold, and labelled ones that only measure.

    `validation` holds defective pictures that may set the threshold too.
    """

    train: tuple[Path, ...]
    held_out: tuple[Path, ...]
    validation: tuple[Path, ...]
    test: tuple[TestPicture, ...]


def list_pictures(folder: Path, held_out_share: float) -> Pictures:
    """Sort a folder's pictures by their use; which good ones are held out depends on their names alone.

    Raises: InputError if there is no such folder or it has too few good pictures.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give --data a folder of pictures, or 'rendered'")
    good, test = _list_layout(folder)
    validation = _list_kinds(folder / VALIDATION)
    held_out = [path for kind in validation if _is_good(kind) for path in _files(kind)]
    _check_enough(len(good), FEWEST_GOOD, folder, "good pictures to train on")
    good = sorted(good, key=_name_digest)
    if held_out:
        _check_enough(len(held_out), FEWEST_HELD_OUT, folder / VALIDATION, "good pictures for the threshold")
    else:
        held_out_count = max(FEWEST_HELD_OUT, round(len(good) * held_out_share))
        good, held_out = good[:-held_out_count], good[-held_out_count:]
    bad = [path for kind in validation if not _is_good(kind) for path in _files(kind)]
    return Pictures(tuple(good), tuple(held_out), tuple(bad), tuple(test))


def choose_preprocess(picture: Path, input_px: int) -> Preprocess:
    """The largest centred square of pictures like this one.

    Raises: InputError if it is smaller than the network's image.
    """
    height, width = read_picture(picture).shape[:2]
    side = min(height, width)
    if side < input_px:
        raise InputError(f"{picture} is {width}x{height} pixels: at least {input_px}x{input_px} are needed")
    crop = ((height - side) // 2, (width - side) // 2, side, side)
    return Preprocess((height, width), crop, (input_px, input_px))


def encode_png(rgb: Images) -> bytes:
    """Of uint8 (h, w, 3) RGB."""
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def load_frame(path: Path, how: Preprocess) -> Images:
    """uint8 (H, W, 3) RGB. Raises: InputError if the picture is of another size than the others."""
    frame = read_picture(path)
    if frame.shape[:2] != how.frame_px:
        expected = f"{how.frame_px[1]}x{how.frame_px[0]}"
        raise InputError(f"{path} is {frame.shape[1]}x{frame.shape[0]} pixels, others are {expected}: use one size")
    return frame


def load_images(paths: Sequence[Path], how: Preprocess) -> Images:
    """The network's images, uint8 (n, h, w, 3)."""
    images = [preprocess(load_frame(path, how), how) for path in paths]
    return np.stack(images) if images else np.zeros((0, *how.input_px, 3), np.uint8)


def load_masks(test: Sequence[TestPicture], how: Preprocess) -> list[NDArray[np.bool_]]:
    """True where defective, (h, w) of the crop at the pictures' own resolution; all False without a mask."""
    return [_load_mask(picture, how) for picture in test]


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the pictures' bytes, in order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _load_mask(picture: TestPicture, how: Preprocess) -> NDArray[np.bool_]:
    top, left, height, width = how.crop_px
    if picture.mask_path is None:
        return np.zeros((height, width), np.bool_)
    return load_frame(picture.mask_path, how)[top : top + height, left : left + width, 0] >= 128


def _list_layout(folder: Path) -> tuple[list[Path], list[TestPicture]]:
    """Good pictures that are not for testing, and the test pictures."""
    if (folder / "train").is_dir():
        good = [path for kind in _good_kinds(folder / "train") for path in _files(kind)]
        return good, _list_test(folder / "test", folder / TRUTH)
    if not _list_kinds(folder):
        return _files(folder), []
    _good_kinds(folder)
    pictures = _list_test(folder, folder / TRUTH)
    good = sorted((picture.path for picture in pictures if not picture.kind), key=_name_digest)
    good = good[: int(len(good) * TRAIN_SHARE)]
    training = set(good)
    return good, [picture for picture in pictures if picture.path not in training]


def _good_kinds(folder: Path) -> list[Path]:
    """Raises: InputError if no folder's name says that its pictures are good."""
    good = [kind for kind in _list_kinds(folder) if _is_good(kind)]
    if not good:
        names = ", ".join(GOOD_FOLDERS[:-1])
        raise InputError(f"{folder} has no folder of good pictures: name it {names} or {GOOD_FOLDERS[-1]}")
    return good


def _list_test(folder: Path, truth: Path) -> list[TestPicture]:
    pictures = []
    for kind in _list_kinds(folder):
        for path in _files(kind):
            mask_path = truth / kind.name / f"{path.stem}_mask.png"
            label = "" if _is_good(kind) else kind.name
            pictures.append(TestPicture(path, label, mask_path if label and mask_path.is_file() else None))
    return pictures


def _list_kinds(folder: Path) -> list[Path]:
    """Folders of pictures of one kind; none if the folder is missing."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_special(path.name))


def _is_special(name: str) -> bool:
    return name.startswith(".") or name in (TRUTH, VALIDATION)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _is_good(folder: Path) -> bool:
    return folder.name.lower() in GOOD_FOLDERS


def _check_enough(count: int, fewest: int, folder: Path, what: str) -> None:
    if count < fewest:
        raise InputError(f"{folder} has {count} {what}: at least {fewest} are needed")


def _name_digest(path: Path) -> str:
    return hashlib.sha1(path.name.encode(), usedforsecurity=False).hexdigest()
