"""The same picture on both sides of a split: a threshold from pictures that were trained on says too little.

Pictures are compared by a small grey copy, evened in brightness and contrast, in all eight ways to turn and mirror it.
Parts under a fixed camera look nearly alike anyhow: two pictures count as one if they are far more alike than pictures
of this set usually are to the one that is most like them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.pictures.files import shown

SIDE_PX = 16  # of the grey copy
SAME = 0.002  # root mean square, of the contrast: rounding and compression; also between pictures that are all alike
NEARLY = 0.12  # the most that two copies of one picture may differ
FAR_LESS = 0.25  # of the usual distance to the nearest other one
BLOCK = 512  # pictures that are compared at once
LISTED = 3

Copies = NDArray[np.float32]


def tell_alike(split: Sequence[tuple[str, Sequence[Path], NDArray[np.uint8]]]) -> list[str]:
    """Lines for a person, from parts of a set: name, paths, images uint8 (n, h, w, 3); the first is trained on."""
    name, paths, images = split[0]
    known = describe(images)
    if not len(known):
        return []
    usual = _usual_distance(known)
    lines = []
    for other_name, other_paths, other_images in split[1:]:
        found = [
            f"{_short(other_paths[index])} = {_short(paths[match])}"
            for index, match in find_alike(describe(other_images), known, usual)
        ]
        if found:
            listed = ", ".join(found[:LISTED]) + (f" and {len(found) - LISTED} more" if len(found) > LISTED else "")
            lines.append(
                f"{len(found)} of {len(other_paths)} {other_name} are the same, or nearly, as {name} ({listed}): "
                "figures and threshold look better than they are; keep one of each"
            )
    return lines


def count_copies(trained: NDArray[np.uint8], others: NDArray[np.uint8]) -> int:
    """How many of the others are the same, or nearly, as a trained one; images uint8 (n, h, w, 3)."""
    known = describe(trained)
    return len(find_alike(describe(others), known, _usual_distance(known))) if len(known) else 0


def _usual_distance(known: Copies) -> float:
    return float(np.median(nearest(known, known, apart=True)[0])) if len(known) > 2 else 0.0


def find_alike(copies: Copies, known: Copies, usual: float) -> list[tuple[int, int]]:
    """Numbers of copies and of the known ones that each is the same as."""
    if not len(copies):
        return []
    turned = np.concatenate(_turn(copies))
    distances, matches = nearest(turned, known)
    distances, matches = distances.reshape(8, -1), matches.reshape(8, -1)
    way = distances.argmin(axis=0)
    least = distances[way, np.arange(len(copies))]
    is_same = (least < SAME) | (least < min(NEARLY, FAR_LESS * usual))
    return [(int(index), int(matches[way[index], index])) for index in np.flatnonzero(is_same)]


def describe(images: NDArray[np.uint8]) -> Copies:
    """float32 (n, 256): grey, of mean 0 and root mean square 1; a picture of one grey is all zeros."""
    copies = np.zeros((len(images), SIDE_PX * SIDE_PX), np.float32)
    for copy, image in zip(copies, images, strict=True):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        grey = np.asarray(cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA), np.float32)
        grey = grey - grey.mean()
        copy[:] = (grey / max(1.0, float(np.sqrt((grey**2).mean())))).reshape(-1)
    return copies


def nearest(copies: Copies, known: Copies, *, apart: bool = False) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Of each copy: the distance to the most alike known one, and its number; `apart`: not to itself."""
    distances, matches = np.empty(len(copies), np.float32), np.empty(len(copies), np.intp)
    squares = (known**2).sum(axis=1)
    for start in range(0, len(copies), BLOCK):
        block = copies[start : start + BLOCK]
        apart_by = (block**2).sum(axis=1)[:, np.newaxis] + squares - 2 * block @ known.T
        if apart:
            rows = np.arange(len(block))
            apart_by[rows, start + rows] = np.inf
        matches[start : start + BLOCK] = apart_by.argmin(axis=1)
        difference = block - known[matches[start : start + BLOCK]]  # subtle: sums of squares lose what is small
        distances[start : start + BLOCK] = np.sqrt((difference**2).mean(axis=1))
    return distances, matches


def _turn(copies: Copies) -> list[Copies]:
    squares = copies.reshape(-1, SIDE_PX, SIDE_PX)
    turned = [np.rot90(squares, quarter, (1, 2)) for quarter in range(4)]
    return [np.ascontiguousarray(one).reshape(copies.shape) for one in (*turned, *(one[..., ::-1] for one in turned))]


def _short(path: Path) -> str:
    return shown("/".join(path.parts[-2:]))
