"""Whether pictures can teach at all: white ones cannot, and copies of one scene vouch for each other."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError

FEWEST = 5
WHITE = 250  # of 255, in all colours: a sensor at its end
MOST_WHITE = 0.6  # of a picture: a light background is no fault
COPY_PX = 24  # side of the small copies by which pictures are compared: noise and compression go out in the mean
# Mean difference of two such copies, of 255: of one still scene up to 0.9 (noise, compression, a light that changes by
# 3 %), of two bottles under one camera 1.1 and more.
ALIKE_LEVELS = 1.0

Images = NDArray[np.uint8]


def check_exposure(names: Sequence[object], images: Images) -> None:
    """Of images uint8 (n, h, w, 3). Raises: InputError that names an over-exposed one."""
    for name, image in zip(names, images, strict=True):
        if (image.min(axis=2) >= WHITE).mean() > MOST_WHITE:
            raise InputError(f"{name} is over-exposed: shorten the exposure or dim the light, and take all again")


def choose_different(of_what: str, images: Images) -> list[int]:
    """Numbers of the pictures without those that show a scene again: a copy would vouch for its original.

    Raises: InputError if too few are left.
    """
    copies = np.stack([_shrink(image) for image in images])
    chosen: list[int] = []
    for number, copy in enumerate(copies):
        if not chosen or np.abs(copies[chosen] - copy).mean(axis=1).min() >= ALIKE_LEVELS:
            chosen.append(number)
    if len(chosen) < FEWEST:
        raise InputError(
            f"the {len(images)} pictures of {of_what} are alike: they show {len(chosen)} different parts; take "
            f"{FEWEST} or more, each of another part, as the belt brings them"
        )
    return chosen


def _shrink(image: Images) -> NDArray[np.float32]:
    """float32 (n,): a small copy, without the picture's own brightness."""
    small = cv2.resize(image, (COPY_PX, COPY_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(small - small.mean(axis=(0, 1)), np.float32).reshape(-1)
