"""Whether pictures can teach at all: what is wrong with them is said in one line, before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from board.teaching.inspection import FEWEST
from host.integers.arithmetic import Int8
from protocol.errors import InputError
from protocol.manifest import Preprocess
from protocol.pictures.layout import list_set

# Times farther apart than pictures of one product: oranges from anywhere reach 2.3, oranges and bottles 2.6 and more.
APART = 2.4

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pictures:
    """Of a folder in any layout: those that teach, and labelled ones, which are counted and set nothing."""

    good: list[Path]
    test_good: list[Path]
    defective: list[Path]


def list_pictures(folder: Path) -> Pictures:
    """Raises: InputError for too few good ones that are not for testing."""
    found, listed = list_good(folder), list_set(folder).pictures
    test_good = [picture.path for picture in listed if not picture.kind and picture.use == "test"]
    return Pictures(found, test_good, [picture.path for picture in listed if picture.kind])


def draw_parts(paths: list[Path], parts: int | None, seed: int) -> list[Path]:
    """So many of them by chance; all for None. Raises: InputError for more than there are, or too few."""
    if parts is None:
        return paths
    if not FEWEST <= parts <= len(paths):
        raise InputError(f"--parts {parts} of {len(paths)} pictures cannot be taken: give {FEWEST} to {len(paths)}")
    chosen = np.random.default_rng(seed).choice(len(paths), parts, replace=False)
    return [paths[number] for number in np.sort(chosen)]


def list_good(folder: Path) -> list[Path]:
    """Of a folder in any layout: the good pictures that are not for testing. Raises: InputError for too few."""
    found = [picture.path for picture in list_set(folder).pictures if not picture.kind and picture.use != "test"]
    if len(found) < FEWEST:
        raise InputError(
            f"{folder} has {len(found)} pictures of good parts: take {FEWEST} or more, better ten, of different parts"
        )
    return found


def check_size(folder: Path, how: Preprocess, camera_px: tuple[int, int] | None) -> None:
    """`camera_px`: (height, width) of the line's frames, where they are known. Raises: InputError for another size."""
    if how.fit != "exact":
        raise InputError(f"the pictures of {folder} are of several sizes: take all with the line's camera")
    if camera_px is not None and how.frame_px != camera_px:
        sizes = [f"{width}x{height}" for height, width in (how.frame_px, camera_px)]
        raise InputError(
            f"the pictures of {folder} have {sizes[0]} pixels, the line's camera gives {sizes[1]}: take them with that "
            "camera, or correct --camera"
        )


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
