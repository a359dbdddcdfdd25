"""What lies on the belt: parts drawn for the purpose (`RenderedParts`) or real pictures again (`ReplayedParts`).

For example:

    parts = open_parts("orange", "rendered", seed=1, defect_share=0.2)
    part = parts.part(0)          # the same bytes in any order and any process
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.errors import InputError
from protocol.pictures.files import shown
from protocol.pictures.layout import Picture, list_set
from protocol.pictures.reader import ALL_BITS, read_picture
from protocol.pictures.truth import draw_truth
from sim import bottle, orange

RENDER_PX_PER_MM = 2.5  # the scale of rendered sprites
DEFAULT_DEFECT_SHARE = 0.2

DEFECTS: dict[str, tuple[str, ...]] = {"orange": tuple(orange.DEFECTS), "bottle": tuple(bottle.DEFECTS)}


# What a random generator is for: part `number` draws each from np.random.default_rng([seed, number, purpose]).
_LOT, _LOOK, _HARM = range(3)


@dataclass(frozen=True)
class Part:
    """One part on the belt."""

    number: int  # 0, 1, 2, … along the belt
    defect: str  # '' for a good part, else the defect's name; in a replay the folder's
    rgb: NDArray[np.uint8]  # (h, w, 3) RGB: the part's sprite, or a whole replayed picture
    alpha: NDArray[np.uint8]  # (h, w) coverage of the part, 0..255; all 255 for a replayed picture
    mask: NDArray[np.bool_]  # (h, w) True on defective pixels; all False if good or unknown


class Parts(Protocol):
    """What a camera or a scene takes its parts from."""

    def part(self, number: int) -> Part:
        """Part `number`; equal for equal numbers."""
        ...


class RenderedParts:
    """Endless oranges or bottles. Number n has the same body whatever the defect share, only its defect differs."""

    def __init__(self, product: str, seed: int, defect_share: float) -> None:
        check_product(product)
        self._product = product
        self._seed = seed
        self._defect_share = _checked_share(defect_share)

    def part(self, number: int) -> Part:
        """Part `number`: a sprite of 216×216 px at RENDER_PX_PER_MM. About 15 ms."""
        lot = np.random.default_rng([self._seed, number, _LOT])
        is_bad = lot.random() < self._defect_share
        kind = str(lot.choice(DEFECTS[self._product]))
        defect = kind if is_bad else ""
        look = np.random.default_rng([self._seed, number, _LOOK])
        harm = np.random.default_rng([self._seed, number, _HARM])
        render = orange.render if self._product == "orange" else bottle.render
        rgb, alpha, mask = render(look, defect, harm)
        return Part(number, defect, rgb, alpha, mask)


class ReplayedParts:
    """Real pictures from a folder, shuffled by the seed.

    In any layout that protocol/pictures/layout.py knows: what is for testing is replayed, and all of a folder that
    tells no uses. With a `defect_share`, each part is drawn at
    random, good or bad with that share; without (None), each picture comes once before any comes again.

    Raises:
        InputError: no such folder, no pictures in it, or none of a kind that the share asks for.
    """

    def __init__(self, folder: Path, seed: int, defect_share: float | None, depth_bits: int = ALL_BITS) -> None:
        self._seed, self._depth_bits = seed, depth_bits
        self._defect_share = None if defect_share is None else _checked_share(defect_share)
        stored = _list_pictures(folder)
        self._good = [picture for picture in stored if not picture.kind]
        self._bad = [picture for picture in stored if picture.kind]
        if self._defect_share and not self._bad:
            raise InputError(f"{folder} has no pictures of defects: add a folder of them or set the defect share to 0")
        if self._defect_share is not None and self._defect_share < 1 and not self._good:
            raise InputError(f"{folder} has no good pictures: add a folder of them or set the defect share to 1")

    def part(self, number: int) -> Part:
        """Part `number`: a whole picture.

        Raises:
            InputError: the picture or its mask cannot be read.
        """
        stored = self._pick(number)
        rgb = read_picture(stored.path, self._depth_bits)
        height, width = rgb.shape[:2]
        mask = draw_truth(stored.truth, (height, width))
        return Part(number, stored.kind, rgb, np.full((height, width), 255, np.uint8), mask)

    def _pick(self, number: int) -> Picture:
        if self._defect_share is None:
            pictures = self._good + self._bad
            cycle, place = divmod(number, len(pictures))
            order = np.random.default_rng([self._seed, cycle, _LOT]).permutation(len(pictures))
            return pictures[int(order[place])]
        lot = np.random.default_rng([self._seed, number, _LOT])
        pictures = self._bad if lot.random() < self._defect_share else self._good
        return pictures[int(lot.integers(len(pictures)))]


def open_parts(
    product: str, source: str, seed: int, defect_share: float | None, depth_bits: int = ALL_BITS
) -> RenderedParts | ReplayedParts:
    """Parts of `source`: 'rendered', or a folder of pictures. A share of None is 0.2 if rendered, else as stored.

    Raises:
        InputError: unknown product, impossible share, or a folder that cannot be replayed.
    """
    check_product(product)
    if source == "rendered":
        return RenderedParts(product, seed, DEFAULT_DEFECT_SHARE if defect_share is None else defect_share)
    return ReplayedParts(Path(source), seed, defect_share, depth_bits)


def check_product(product: str) -> None:
    """Raises InputError unless `product` can be drawn."""
    if product not in DEFECTS:
        raise InputError(f"unknown product {product!r}: choose one of {', '.join(DEFECTS)}")


def _checked_share(defect_share: float) -> float:
    if not 0 <= defect_share <= 1:
        raise InputError(f"a defect share of {defect_share} is impossible: give a number from 0 to 1")
    return defect_share


def _list_pictures(folder: Path) -> list[Picture]:
    """Every picture to replay, in the order of the file names."""
    if not folder.is_dir():
        raise InputError(f"no folder {shown(folder)}: give 'rendered' or a folder of pictures")
    found = list_set(folder)
    if not found.pictures:
        raise InputError(f"no pictures in the folders of {shown(folder)}: it needs folders such as good/ and bad/")
    tests = [picture for picture in found.pictures if picture.use == "test"]
    return tests or list(found.pictures)
