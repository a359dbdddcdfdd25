"""An export's pictures at the network's size, each with its use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from host.pictures.inspected import choose_inspected, mask_inspected
from host.pictures.reading import Images, Pictures, list_pictures, load_images, load_masks
from protocol.manifest import Preprocess


@dataclass(frozen=True)
class Dataset:
    """Images uint8 (n, h, w, 3); `test` has no pictures where none are labelled."""

    pictures: Pictures
    how: Preprocess
    train: Images
    held_out: Images
    validation: Images  # defective pictures that may set the threshold
    test: Images
    masks: list[NDArray[np.bool_]]  # of the test pictures, the frame's size; True on defective pixels as far as known
    report: tuple[str, ...] = ()  # what was taken for what, and what is inspected

    @property
    def kinds(self) -> NDArray[np.str_]:
        """(n,) of the test pictures: "" for good ones."""
        return np.array([picture.kind for picture in self.pictures.test], np.str_)

    @property
    def defective(self) -> NDArray[np.bool_]:
        """(n,) of the test pictures."""
        return np.asarray(self.kinds != "", np.bool_)

    @property
    def inspected_masks(self) -> list[NDArray[np.bool_]]:
        """Of the test pictures, the crop's size."""
        top, left, height, width = self.how.crop_px
        return [mask[top : top + height, left : left + width] for mask in self.masks]

    def split(self) -> list[tuple[str, Sequence[Path], Images]]:
        """Parts of the set, by name; what is trained on first."""
        pictures = self.pictures
        return [
            ("pictures that are trained on", pictures.train, self.train),
            ("pictures that set the threshold", pictures.held_out, self.held_out),
            (
                "defective pictures for the threshold",
                [one.path for one in pictures.validation],
                self.validation,
            ),
            ("test pictures", [one.path for one in pictures.test], self.test),
        ]

    @property
    def has_test(self) -> bool:
        """Whether there are both good and defective test pictures to measure with."""
        return bool(self.defective.any() and not self.defective.all())

    @property
    def pixels_known(self) -> NDArray[np.bool_]:
        """(n,) of the test pictures: good, or defective with a mask that says where."""
        return ~self.defective | np.array([mask.any() for mask in self.masks], np.bool_)


def tell_missed(dataset: Dataset) -> list[str]:
    """Defects that lie outside of what is inspected."""
    masked, inspected = [mask for mask in dataset.masks if mask.any()], mask_inspected(dataset.how)
    inside = [part for part in (mask & inspected for mask in masked) if part.any()]
    whole, seen = sum(int(mask.sum()) for mask in masked), sum(int(mask.sum()) for mask in inside)
    if seen == whole:
        return []
    return [
        f"{1 - seen / whole:.1%} of the defective pixels lie outside of what is inspected, {len(masked) - len(inside)} "
        f"of {len(masked)} masks wholly: they count as missed"
    ]


def load_dataset(folder: Path, held_out_share: float, input_px: int, *, is_square: bool = False) -> Dataset:
    """`is_square`: the network takes no other shape.

    Raises: InputError for a folder or pictures that cannot be used.
    """
    pictures = list_pictures(folder, held_out_share)
    chosen = choose_inspected(pictures.good, pictures.labelled, input_px, pictures.ignore, is_square=is_square)
    return fill_dataset(pictures, chosen.how, (*pictures.report, *chosen.lines))


def fill_dataset(pictures: Pictures, how: Preprocess, report: tuple[str, ...] = ()) -> Dataset:
    """As `how` says. Raises: InputError that names pictures that cannot be used."""
    return Dataset(
        pictures=pictures,
        how=how,
        train=load_images(pictures.train, how),
        held_out=load_images(pictures.held_out, how),
        validation=load_images([picture.path for picture in pictures.validation], how),
        test=load_images([picture.path for picture in pictures.test], how),
        masks=load_masks(pictures.test, how),
        report=report,
    )
