"""Pictures to learn from and to measure with: MVTec's layout, folders of good and bad, or one folder of good ones.

bottle/train/good/*.png  test/<kind>/*.png  ground_truth/<kind>/*_mask.png      MVTec: test/ only measures
oranges/fresh/*.jpg  oranges/rotten/*.jpg                                        71 % of the good ones train
oranges/*.jpg                                                                    all train, nothing measures
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

GOOD_FOLDERS = ("good", "ok", "fresh", "normal")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
TRAIN_SHARE = 0.71  # of the good pictures, where no folder says which ones train
FEWEST_GOOD = 16  # below this neither the network nor the threshold has seen what good looks like

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class TestPicture:
    path: Path
    kind: str  # "" for a good part, else the folder's name
    mask_path: Path | None  # white where defective; None if good or not known


@dataclass(frozen=True)
class Pictures:
    """Good pictures that train, held-out good ones that set the threshold, and labelled ones that only measure."""

    train: tuple[Path, ...]
    held_out: tuple[Path, ...]
    test: tuple[TestPicture, ...]


def list_pictures(folder: Path, held_out_share: float) -> Pictures:
    """Sort a folder's pictures by their use; which good ones are held out depends on their names alone.

    Raises: InputError if there is no such folder or it has too few good pictures.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give --data a folder of pictures, or 'rendered'")
    good, test = _list_layout(folder)
    if len(good) < FEWEST_GOOD:
        raise InputError(f"{folder} has {len(good)} good pictures to train on: at least {FEWEST_GOOD} are needed")
    good = sorted(good, key=_name_digest)
    held_out_count = max(4, round(len(good) * held_out_share))
    return Pictures(tuple(good[:-held_out_count]), tuple(good[-held_out_count:]), tuple(test))


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


def read_picture(path: Path) -> Images:
    """uint8 (h, w, 3) RGB. Raises: InputError if it cannot be read."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise InputError(f"{path} cannot be read as a picture: replace or remove it")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


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


def load_masks(test: Sequence[TestPicture], how: Preprocess) -> NDArray[np.bool_]:
    """True where defective, (n, h, w) at the network's size; all False for a picture without a mask."""
    masks = [_load_mask(picture, how) for picture in test]
    return np.stack(masks) if masks else np.zeros((0, *how.input_px), np.bool_)


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the pictures' bytes, in order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _load_mask(picture: TestPicture, how: Preprocess) -> NDArray[np.bool_]:
    if picture.mask_path is None:
        return np.zeros(how.input_px, np.bool_)
    return preprocess(load_frame(picture.mask_path, how), how)[..., 0] >= 128


def _list_layout(folder: Path) -> tuple[list[Path], list[TestPicture]]:
    if (folder / "train").is_dir():
        good = [path for kind in _subfolders(folder / "train") if _is_good(kind) for path in _files(kind)]
        return good, _list_test(folder / "test", folder / "ground_truth") if (folder / "test").is_dir() else []
    if not _subfolders(folder):
        return _files(folder), []
    pictures = _list_test(folder, folder / "ground_truth")
    good = sorted((picture.path for picture in pictures if not picture.kind), key=_name_digest)
    good = good[: int(len(good) * TRAIN_SHARE)]
    training = set(good)
    return good, [picture for picture in pictures if picture.path not in training]


def _list_test(folder: Path, truth: Path) -> list[TestPicture]:
    pictures = []
    for kind in _subfolders(folder):
        if kind == truth:
            continue
        for path in _files(kind):
            mask_path = truth / kind.name / f"{path.stem}_mask.png"
            label = "" if _is_good(kind) else kind.name
            pictures.append(TestPicture(path, label, mask_path if label and mask_path.is_file() else None))
    return pictures


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _is_good(folder: Path) -> bool:
    return folder.name.lower() in GOOD_FOLDERS


def _name_digest(path: Path) -> str:
    return hashlib.sha1(path.name.encode(), usedforsecurity=False).hexdigest()
