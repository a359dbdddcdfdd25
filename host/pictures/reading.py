"""Pictures to learn from and to measure with, each with its use; `protocol/pictures/` knows layouts and files.

train/  good pictures train, the held-out ones among them set the threshold
test/   only measures
validation/  its good pictures are the held-out ones, where there are some; its defective ones may set the threshold
             (method "best-f1"), and measure nothing
Where no folder says which good pictures train, 71 % of them do, by the digests of their names.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from board.preprocess import fit_frame, preprocess
from host.pictures.inspected import fit_truth, raise_faults
from protocol.errors import InputError
from protocol.manifest import Preprocess
from protocol.pictures.files import shown
from protocol.pictures.layout import Picture, PictureSet, list_set
from protocol.pictures.reader import read_picture, survey

TRAIN_SHARE = 0.71  # of the good pictures, where no folder says which ones train
FEWEST_GOOD = 16  # below this neither the network nor the threshold has seen what good looks like
FEWEST_HELD_OUT = 4

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """Good pictures that train, held-out good ones that set the threshold, and labelled ones that only measure.

    `validation` holds defective pictures that may set the threshold too.
    """

    train: tuple[Path, ...]
    held_out: tuple[Path, ...]
    validation: tuple[Picture, ...]
    test: tuple[Picture, ...]
    report: tuple[str, ...] = ()  # what was taken for what
    doubts: tuple[str, ...] = ()  # what a person should look at
    ignore: Path | None = None

    @property
    def good(self) -> tuple[Path, ...]:
        return (*self.train, *self.held_out)

    @property
    def labelled(self) -> tuple[Path, ...]:
        return tuple(picture.path for picture in (*self.validation, *self.test))


def list_pictures(folder: Path, held_out_share: float) -> Pictures:
    """Sort a folder's pictures by their use; which good ones are held out depends on their names alone.

    Raises: InputError if there is no such folder or it has too few good pictures.
    """
    found = list_set(folder)
    good, test = _share_out(found)
    validation = [picture for picture in found.pictures if picture.use == "validation"]
    held_out = [picture.path for picture in validation if not picture.kind]
    _check_enough(len(good), FEWEST_GOOD, folder, "good pictures to train on")
    good = sorted(good, key=_name_digest)
    if held_out:
        _check_enough(len(held_out), FEWEST_HELD_OUT, folder, "good pictures for the threshold in validation/")
    else:
        held_out_count = max(FEWEST_HELD_OUT, round(len(good) * held_out_share))
        good, held_out = good[:-held_out_count], good[-held_out_count:]
    bad = tuple(picture for picture in validation if picture.kind)
    report = [*found.report(), *_tell_uses(found, len(good), len(held_out), bad, test)]
    return Pictures(tuple(good), tuple(held_out), bad, tuple(test), tuple(report), found.doubts, found.ignore)


def encode_png(rgb: Images) -> bytes:
    """Of uint8 (h, w, 3) RGB."""
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def load_frame(path: Path, how: Preprocess) -> Images:
    """uint8 (H, W, 3) RGB of the size that the crop refers to. Raises: InputError."""
    frame = read_picture(path, how.depth_bits)
    if not how.takes(frame.shape[:2]):
        expected = f"{how.frame_px[1]}x{how.frame_px[0]}"
        raise InputError(
            f"{shown(path)} is {frame.shape[1]}x{frame.shape[0]} pixels, others are {expected}: use one size"
        )
    return fit_frame(frame, how)


def load_images(paths: Sequence[Path], how: Preprocess) -> Images:
    """The network's images, uint8 (n, h, w, 3). Raises: InputError that names pictures that cannot be used."""
    images, faults = [], []
    for path in paths:
        try:
            images.append(preprocess(load_frame(path, how), how))
        except InputError as error:
            faults.append(str(error))
    raise_faults(faults, len(paths))
    return np.stack(images) if images else np.zeros((0, *how.input_px, 3), np.uint8)


def load_masks(test: Sequence[Picture], how: Preprocess) -> list[NDArray[np.bool_]]:
    """True where defective, (H, W) of the whole frame; all False without a mask."""
    return [_load_mask(picture, how) for picture in test]


def _load_mask(picture: Picture, how: Preprocess) -> NDArray[np.bool_]:
    if not picture.truth:
        return np.zeros(how.frame_px, np.bool_)
    return fit_truth(picture.truth, survey(picture.path).upright_px, how)


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the pictures' bytes, in order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _share_out(found: PictureSet) -> tuple[list[Path], list[Picture]]:
    """Good pictures that are not for testing, and the test pictures."""
    good = [picture.path for picture in found.pictures if picture.use == "train" and not picture.kind]
    test = [picture for picture in found.pictures if picture.use == "test"]
    if any(picture.use == "train" for picture in found.pictures):
        return good, test
    rest = [picture for picture in found.pictures if not picture.use]
    good = sorted((picture.path for picture in rest if not picture.kind), key=_name_digest)
    if not found.is_flat and all(picture.kind for picture in test):
        good = good[: int(len(good) * TRAIN_SHARE)]
    training = set(good)
    return good, sorted([*test, *(picture for picture in rest if picture.path not in training)], key=_place)


def _tell_uses(
    found: PictureSet, good: int, held_out: int, validation: Sequence[Picture], test: Sequence[Picture]
) -> list[str]:
    bad = sum(bool(picture.kind) for picture in test)
    lines = [
        f"{good} good train, {held_out} good set the threshold, {len(test) - bad} good and {bad} defective measure"
    ]
    if validation:
        lines.append(f"{len(validation)} defective ones may set the threshold")
    unused = Counter(picture.kind for picture in found.pictures if picture.use == "train" and picture.kind)
    if unused:
        what = ", ".join(f"{count} {kind}" for kind, count in sorted(unused.items()))
        lines.append(f"not used: defective pictures among those to train on ({what})")
    return lines


def _place(picture: Picture) -> tuple[str, str]:
    return os.fspath(picture.path.parent), picture.path.name


def _check_enough(count: int, fewest: int, folder: Path, what: str) -> None:
    if count < fewest:
        raise InputError(f"{shown(folder)} has {count} {what}: at least {fewest} are needed")


def _name_digest(path: Path) -> str:
    return hashlib.sha1(os.fsencode(path.name), usedforsecurity=False).hexdigest()
