"""What detectors are compared on: a folder of pictures, drawn parts, or a labelled set, one class against the rest.

One-class protocol: a class of MNIST or CIFAR-10 is normal, all others are anomalous (or, as in GANomaly's paper, it
alone is the anomaly); a share of the training set may be replaced by anomalous pictures (contamination).
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from host.bench.detector import Images, Labelled
from host.export.order import hash_values
from host.learning.recipe import Rendered
from host.learning.rendered import draw_pictures
from host.pictures.dataset import load_dataset
from host.pictures.reading import digest, list_pictures
from protocol.errors import InputError

RENDERED = "rendered"
DRAWN = Rendered(belts=4, train_parts=160, test_parts=120)
HELD_OUT_SHARE = 0.25  # of the good training pictures of a folder: they set the thresholds
HELD_OUT_OF_CLASS = 0.1  # of a class's training pictures, of which there are hundreds
LABELLED_SHARE = 0.3  # of the test pictures, where a protocol takes labels
DIGEST_SEED = 0  # which pictures are labelled, or left out, is the same for all detectors and seeds
Side = Literal["normal", "anomalous"]


@dataclass(frozen=True)
class Problem:
    name: str
    digest: str
    channels: Literal[1, 3]
    goods: Images
    held_out: Images
    test: Images
    defective: NDArray[np.bool_]  # (n,) of the test pictures
    masks: Sequence[
        NDArray[np.bool_]
    ]  # of the test pictures; none at all where nothing says which pixels are defective
    pixels_known: NDArray[np.bool_]  # (n,)


@dataclass(frozen=True)
class Task:
    """A problem that is loaded when its turn has come, at the detector's size."""

    name: str
    load: Callable[[int], Problem]
    is_small: bool  # pictures of 28 or 32 pixels, which detectors take at their small size


@dataclass(frozen=True)
class OneClass:
    """How a labelled set is made into problems."""

    classes: tuple[int, ...] = tuple(range(10))
    side: Side = "normal"
    contamination: tuple[float, ...] = (0.0,)  # shares of the training set, 0..1


@dataclass(frozen=True)
class Part:
    """How one problem is cut out of a labelled set; `digest` is the set's."""

    name: str
    digest: str
    side: Side
    contamination: float
    most: int | None


def list_tasks(data: str, one_class: OneClass, most: int | None, cache: Path) -> Iterator[Task]:
    """`most`: pictures of each use at most. Raises: InputError for data that cannot be used."""
    if data.partition(":")[0] == RENDERED:
        folder = _draw(data, most, cache)
        name = data.replace(":", "-")  # the colon is for classes
        yield Task(name, partial(_load_folder, folder, name, most), is_small=False)
        return
    path = Path(data)
    if path.suffix != ".npz":
        list_pictures(path, HELD_OUT_SHARE)  # a folder that cannot be used is told at once
        yield Task(path.resolve().name, partial(_load_folder, path, path.resolve().name, most), is_small=False)
        return
    arrays, known = _read_arrays(path), hashlib.sha256(path.read_bytes()).hexdigest()
    for share in one_class.contamination:
        for label in one_class.classes:
            name = f"{path.stem}:{'' if one_class.side == 'normal' else 'not-'}{label}"
            name += f"+{share:.0%}" if share else ""
            load = partial(_load_class, arrays, label, Part(name, known, one_class.side, share, most))
            yield Task(name, load, is_small=True)


def split_labelled(problem: Problem) -> tuple[Labelled, Problem]:
    """Labelled pictures, the same share of good and of defective ones, and the problem with the others to test."""
    chosen = choose_labelled(problem.defective)
    masks = [problem.masks[int(index)] for index in chosen if problem.masks]
    labelled = Labelled(problem.test[chosen], problem.defective[chosen], masks)
    return labelled, _keep_test(problem, np.setdiff1d(np.arange(len(problem.test)), chosen))


def choose_labelled(defective: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices of the test pictures whose labels a protocol may use: the same for every detector and seed."""
    order = np.random.default_rng(DIGEST_SEED).permutation(len(defective))
    sides = (order[defective[order] == is_bad] for is_bad in (False, True))
    return np.sort(np.concatenate([side[: max(1, round(len(side) * LABELLED_SHARE))] for side in sides]))


def _keep_test(problem: Problem, kept: NDArray[np.intp]) -> Problem:
    return replace(
        problem,
        test=problem.test[kept],
        defective=problem.defective[kept],
        masks=[problem.masks[int(index)] for index in kept if problem.masks],
        pixels_known=problem.pixels_known[kept],
    )


def _draw(data: str, most: int | None, cache: Path) -> Path:
    """Raises: InputError if the belt cannot draw the product."""
    product = data.partition(":")[2] or "bottle"
    how = DRAWN if most is None else replace(DRAWN, belts=2, train_parts=max(32, most), test_parts=max(24, most))
    folder = cache / f"{product}-{how.train_parts}-{how.test_parts}"
    cache.mkdir(parents=True, exist_ok=True)
    draw_pictures(product, how, 0, folder, lambda _drawn: None)
    return folder


@lru_cache(maxsize=2)  # detectors of one size follow one another
def _load_folder(folder: Path, name: str, most: int | None, input_px: int) -> Problem:
    dataset = load_dataset(folder, HELD_OUT_SHARE, input_px, is_square=True)
    if not dataset.has_test:
        raise InputError(f"{folder} has no labelled test pictures, good and defective: a comparison needs both")
    pictures = dataset.pictures
    known = digest([*pictures.train, *pictures.held_out, *(picture.path for picture in pictures.test)])
    has_masks = bool(dataset.pixels_known[dataset.defective].any())
    problem = Problem(
        name=name,
        digest=hash_values(known, most),
        channels=3,
        goods=dataset.train[:most],
        held_out=dataset.held_out[:most],
        test=dataset.test,
        defective=dataset.defective,
        masks=dataset.masks if has_masks else [],
        pixels_known=dataset.pixels_known,
    )
    return problem if most is None else _keep_test(problem, _choose(dataset.defective, most))


def _choose(defective: NDArray[np.bool_], most: int) -> NDArray[np.intp]:
    """At most as many, half of them defective where there are enough."""
    order = np.random.default_rng(DIGEST_SEED).permutation(len(defective))
    sides = [order[defective[order] == is_bad][: most // 2] for is_bad in (False, True)]
    return np.sort(np.concatenate(sides))


def _read_arrays(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Raises: InputError for a file that holds no labelled set."""
    try:
        with np.load(path) as stored:
            return {key: np.asarray(stored[key]) for key in ("x_train", "y_train", "x_test", "y_test")}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        raise InputError(f"{path} is no set of x_train, y_train, x_test, y_test: give NumPy's .npz of them") from None


def _load_class(arrays: dict[str, NDArray[np.uint8]], label: int, part: Part, input_px: int) -> Problem:
    rng = np.random.default_rng([DIGEST_SEED, label])
    is_good = (arrays["y_train"] == label) == (part.side == "normal")
    defective = (arrays["y_test"] == label) != (part.side == "normal")
    if not 0 < is_good.sum() < len(is_good):
        raise InputError(f"class {label} is not among the labels, or the only one: correct --classes")
    good = rng.permutation(np.flatnonzero(is_good))
    held_out_count = max(2, round(len(good) * HELD_OUT_OF_CLASS))
    held_out, goods = good[:held_out_count][: part.most], good[held_out_count:][: part.most]
    goods = _contaminate(goods, rng.permutation(np.flatnonzero(~is_good)), part.contamination)
    chosen = np.arange(len(defective)) if part.most is None else _choose(defective, part.most)
    x_train, x_test = arrays["x_train"], arrays["x_test"]
    return Problem(
        name=part.name,
        digest=hash_values(part.digest, label, part.side, part.contamination, part.most),
        channels=1 if x_train.ndim == 3 else 3,
        goods=_resize(x_train[goods], input_px),
        held_out=_resize(x_train[held_out], input_px),
        test=_resize(x_test[chosen], input_px),
        defective=defective[chosen],
        masks=[],
        pixels_known=np.zeros(len(chosen), np.bool_),
    )


def _contaminate(goods: NDArray[np.intp], bad: NDArray[np.intp], share: float) -> NDArray[np.intp]:
    """The training set stays as large: a share of it gives way to anomalous pictures."""
    replaced = round(len(goods) * share)
    kept = goods[replaced:]
    return np.concatenate([kept, bad[:replaced]])


def _resize(pictures: NDArray[np.uint8], side_px: int) -> Images:
    if not len(pictures):
        return np.zeros((0, side_px, side_px, 3), np.uint8)
    resized = [cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_LINEAR) for picture in pictures]
    stacked = np.asarray(np.stack(resized), np.uint8)
    return np.repeat(stacked[..., np.newaxis], 3, axis=3) if stacked.ndim == 3 else stacked
