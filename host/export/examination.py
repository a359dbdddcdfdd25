"""Measure what the verdict on a model's fitness is judged by: on the exported integers, within a minute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from host.export.challenge import Judge
from host.judging.evaluation import image_auroc
from host.judging.fitness import Figures, Share, Stranger
from host.learning.probes import draw_probes
from host.pictures.alike import count_copies
from host.pictures.dataset import Dataset
from host.pictures.inspected import mask_ignored
from host.pictures.reading import Images
from protocol.manifest import Challenge, Preprocess

PER_KIND = 32  # probes: a kind of which half is found is known within 17 %
MOST_GOODS = 100  # that are compared, trained and held out: enough to tell them apart, and soon done

Scores = NDArray[np.float64]


def examine(
    dataset: Dataset, judge: Judge, threshold: float, challenge: Challenge, *, seed: int, is_set_by_defects: bool
) -> Figures:
    """`threshold` is the package's own; `is_set_by_defects`: from the validation pictures, which then prove nothing.

    Labelled pictures are counted, and set nothing. Without pictures that are trained on, nothing is compared with them.
    """
    held_out = _spread(dataset.held_out)
    held_out_scores = judge(held_out)
    ignored = mask_ignored(dataset.how)
    probes = draw_probes(held_out, PER_KIND, seed, ignored)
    defects = dataset.test[dataset.defective]
    if not len(defects) and not is_set_by_defects:
        defects = dataset.validation
    return Figures(
        probes={kind: _rejected(judge(images), threshold) for kind, images in probes.items()},
        known_bad=Share(challenge.found, challenge.frames),
        held_out=_rejected(held_out_scores, threshold),
        copies=_count_copies(dataset),
        stranger=_compare(judge(_spread(dataset.train)), held_out_scores) if len(dataset.train) else None,
        defects=_count(defects, judge, threshold),
        goods=_count(dataset.test[~dataset.defective], judge, threshold),
        train_pictures=len(dataset.train),
        shrunk=measure_shrinking(dataset.how),
        has_mask=ignored is not None,
    )


def measure_shrinking(how: Preprocess) -> float:
    """Frame pixels to one of the network's image, along the side that loses more."""
    return max(crop_px / side_px for crop_px, side_px in zip(how.crop_px[2:], how.input_px, strict=True))


def _spread(images: Images) -> Images:
    """Some of them, evenly."""
    chosen: Images = images[np.linspace(0, len(images) - 1, min(len(images), MOST_GOODS)).astype(int)]
    return chosen


def _count(images: Images, judge: Judge, threshold: float) -> Share | None:
    return _rejected(judge(images), threshold) if len(images) else None


def _count_copies(dataset: Dataset) -> Share | None:
    if not len(dataset.train):
        return None
    return Share(count_copies(dataset.train, dataset.held_out), len(dataset.held_out))


def _rejected(scores: Scores, threshold: float) -> Share:
    return Share(int((scores >= threshold).sum()), len(scores))


def _compare(trained: Scores, held_out: Scores) -> Stranger:
    is_held_out = np.repeat([False, True], [len(trained), len(held_out)])
    rate = image_auroc(np.concatenate([trained, held_out]), is_held_out)
    return Stranger(rate, len(trained), len(held_out))
