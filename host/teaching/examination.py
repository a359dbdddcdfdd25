"""What a taught package is judged by: defects painted on its own good pictures, each as if it had not taught."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from board.preprocess import preprocess
from board.teaching.certainty import Scores
from board.teaching.lesson import Lesson
from host.export.challenge import KnownBad, choose_goods, draw_known_bad
from host.export.examination import measure_shrinking
from host.integers.arithmetic import Int8
from host.judging.evaluation import image_auroc
from host.judging.fitness import Figures, Share
from host.judging.thresholds import score_maps
from host.learning.probes import draw_probes
from host.learning.synthetic import Sources
from host.learning.textures import make_bank
from host.pictures.reading import Images, load_images
from protocol.manifest import AnomalyMap, Challenge, Preprocess, Threshold

PROBES_PER_KIND = 32  # a kind of which half is found is known within 17 %
MOST_GOODS = 16  # that probes are painted on

Describe = Callable[[Images], Int8]
"""Features int8 (n, channels, h, w) of images uint8 (n, h', w', 3)."""


@dataclass(frozen=True)
class Pupil:
    """What was taught, and by which images uint8 (n, h, w, 3)."""

    lesson: Lesson
    images: Images
    how: Preprocess
    meaning: AnomalyMap
    threshold: Threshold
    describe: Describe

    @property
    def scores(self) -> Scores:
        """(n,): of each image when it had not taught."""
        return score_maps(self.lesson.maps, self.meaning)

    def score_unseen(self, images: Images, picture: int) -> Scores:
        """(m,) of images that were made of this picture, by a bank without it."""
        return score_maps(self.lesson.judge_unseen(self.describe(images), picture), self.meaning)

    def score(self, images: Images) -> Scores:
        """(m,) as the package scores them."""
        return score_maps(self.lesson.detector.judge(self.describe(images)), self.meaning)

    def count_rejected(self, scores: Scores) -> Share:
        return Share(int((scores >= self.threshold.value).sum()), len(scores))


@dataclass(frozen=True)
class Labelled:
    """Scores (n,) of pictures that somebody labelled: they are counted, and set nothing."""

    good: Scores
    defective: Scores

    def measure(self) -> dict[str, float]:
        """For the manifest; empty where one kind is missing."""
        if not len(self.good) or not len(self.defective):
            return {}
        defective = np.repeat([False, True], [len(self.good), len(self.defective)])
        return {"image_auroc": image_auroc(np.concatenate([self.good, self.defective]), defective)}


def score_labelled(pupil: Pupil, good: Sequence[Path], defective: Sequence[Path]) -> Labelled:
    """As the package scores them. Raises: InputError for pictures that cannot be read."""
    scores = [
        pupil.score(load_images(paths, pupil.how)) if paths else np.zeros(0, np.float64) for paths in (good, defective)
    ]
    return Labelled(*scores)


def examine(pupil: Pupil, known_bad: KnownBad, made_of: list[int], labelled: Labelled, seed: int) -> Figures:
    """`known_bad.goods` are the frames of the pictures `made_of`."""
    return Figures(
        defects=pupil.count_rejected(labelled.defective) if len(labelled.defective) else None,
        goods=pupil.count_rejected(labelled.good) if len(labelled.good) else None,
        probes=_find_probes(pupil, seed),
        known_bad=_find_known_bad(pupil, known_bad, made_of),
        held_out=pupil.count_rejected(pupil.scores),
        train_pictures=len(pupil.images),
        shrunk=measure_shrinking(pupil.how),
    )


def choose_known_bad(pupil: Pupil, seed: int) -> list[int]:
    """Numbers of the good pictures that known-bad parts are painted on."""
    return choose_goods(pupil.scores, pupil.how, pupil.threshold.value, seed)


def draw_challenge(pupil: Pupil, goods: list[Images], seed: int) -> tuple[KnownBad, Challenge]:
    """Of good frames uint8 (H, W, 3); found are those that the package itself finds, as the station will count."""
    known_bad = draw_known_bad(goods, Sources(make_bank(seed), pupil.images), pupil.how, seed)
    found = pupil.count_rejected(pupil.score(np.stack([preprocess(frame, pupil.how) for frame in known_bad.bad])))
    kinds = {kind: known_bad.kinds.count(kind) for kind in dict.fromkeys(known_bad.kinds)}
    return known_bad, Challenge(found.of, len(goods), kinds, found.part, found.rate)


def _find_probes(pupil: Pupil, seed: int) -> Mapping[str, Share]:
    chosen = spread(pupil.images, MOST_GOODS)
    each = -(-PROBES_PER_KIND // len(chosen))
    scores: dict[str, list[Scores]] = {}
    for picture in chosen:
        for kind, probes in draw_probes(pupil.images[[picture]], each, seed + picture).items():
            scores.setdefault(kind, []).append(pupil.score_unseen(probes, picture))
    return {kind: pupil.count_rejected(np.concatenate(found)) for kind, found in scores.items()}


def _find_known_bad(pupil: Pupil, known_bad: KnownBad, made_of: list[int]) -> Share:
    scores = []
    for number, picture in enumerate(made_of):
        frames = known_bad.bad[number :: len(made_of)]
        scores.append(pupil.score_unseen(np.stack([preprocess(frame, pupil.how) for frame in frames]), picture))
    return pupil.count_rejected(np.concatenate(scores))


def spread(images: Images, most: int) -> list[int]:
    """Numbers of so many of them at most, evenly."""
    return [int(number) for number in np.linspace(0, len(images) - 1, min(len(images), most)).astype(int)]
