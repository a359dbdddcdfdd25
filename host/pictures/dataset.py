"""An export's pictures at the network's size, each with its use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from host.pictures.reading import Images, Pictures, choose_preprocess, list_pictures, load_images, load_masks
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
    masks: list[NDArray[np.bool_]]  # of the test pictures, crop's size; True on defective pixels as far as known

    @property
    def kinds(self) -> NDArray[np.str_]:
        """(n,) of the test pictures: "" for good ones."""
        return np.array([picture.kind for picture in self.pictures.test], np.str_)

    @property
    def defective(self) -> NDArray[np.bool_]:
        """(n,) of the test pictures."""
        return np.asarray(self.kinds != "", np.bool_)

    @property
    def has_test(self) -> bool:
        """Whether there are both good and defective test pictures to measure with."""
        return bool(self.defective.any() and not self.defective.all())

    @property
    def pixels_known(self) -> NDArray[np.bool_]:
        """(n,) of the test pictures: good, or defective with a mask that says where."""
        return ~self.defective | np.array([mask.any() for mask in self.masks], np.bool_)


def load_dataset(folder: Path, held_out_share: float, input_px: int) -> Dataset:
    """Raises: InputError for a folder or pictures that cannot be used."""
    pictures = list_pictures(folder, held_out_share)
    how = choose_preprocess(pictures.train[0], input_px)
    return Dataset(
        pictures=pictures,
        how=how,
        train=load_images(pictures.train, how),
        held_out=load_images(pictures.held_out, how),
        validation=load_images([picture.path for picture in pictures.validation], how),
        test=load_images([picture.path for picture in pictures.test], how),
        masks=load_masks(pictures.test, how),
    )
