"""Whether pictures can teach at all: what is wrong with them is said in one line, before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from host.integers.arithmetic import Int8
from host.pictures.reading import Images
from protocol.errors import InputError
from protocol.pictures.layout import list_set

FEWEST = 5
WHITE = 250  # of 255, in all colours: a sensor at its end
MOST_WHITE = 0.6  # of a picture: a light background is no fault
ALIKE_LEVELS = 0.5  # mean difference of two pictures of one still scene: less than a sensor's noise
# Times farther apart than pictures of one product: oranges from anywhere reach 2.3, oranges and bottles 2.6 and more.
APART = 2.4

Floats = NDArray[np.float64]


def list_good(folder: Path) -> list[Path]:
    """Of a folder in any layout: the good pictures that are not for testing. Raises: InputError for too few."""
    found = [picture.path for picture in list_set(folder).pictures if not picture.kind and picture.use != "test"]
    if len(found) < FEWEST:
        raise InputError(
            f"{folder} has {len(found)} pictures of good parts: take {FEWEST} or more, better ten, of different parts"
        )
    return found


def check_pictures(paths: Sequence[Path], images: Images) -> None:
    """Raises: InputError if one is over-exposed, or all show the same scene."""
    for path, image in zip(paths, images, strict=True):
        if (image.min(axis=2) >= WHITE).mean() > MOST_WHITE:
            raise InputError(f"{path} is over-exposed: shorten the exposure or dim the light, and take all again")
    first = images[0].astype(np.int16)
    if max(float(np.abs(image - first).mean()) for image in images[1:]) < ALIKE_LEVELS:
        raise InputError(f"all {len(images)} pictures are alike: take each of another part, as the belt brings them")


def check_products(paths: Sequence[Path], features: Int8) -> None:
    """Of features int8 (n, channels, h, w). Raises: InputError if they fall into two heaps that lie far apart."""
    means = features.mean(axis=(2, 3))
    second = _second_heap(means)
    if _apartness(means, second) > APART:
        few = second if second.sum() <= len(second) / 2 else ~second
        names = ", ".join(path.name for path, chosen in zip(paths, few, strict=True) if chosen)
        raise InputError(f"the pictures show two products: {names:.200} differ from the others; teach each by itself")


def _second_heap(means: Floats) -> NDArray[np.bool_]:
    """(n,): on which side of the widest gap along the direction in which they differ most."""
    _, _, directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    along = means @ directions[0]
    order = np.argsort(along)
    gap = int(np.diff(along[order]).argmax())
    second = np.zeros(len(means), np.bool_)
    second[order[gap + 1 :]] = True
    return second


def _apartness(means: Floats, second: NDArray[np.bool_]) -> float:
    """How many times farther apart the heaps are than pictures of one heap."""
    distances = np.sqrt(((means[:, np.newaxis] - means[np.newaxis]) ** 2).sum(axis=2))
    between = second[:, np.newaxis] != second[np.newaxis]
    within = ~between & ~np.eye(len(means), dtype=np.bool_)
    if not within.any():
        return 0.0
    return float(distances[between].mean() / max(distances[within].mean(), 1e-6))
