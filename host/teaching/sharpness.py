"""Over how many pixels of the map a score is the mean: chosen for the product, by defects painted on its good pictures.

A scratch on a bottle covers a few pixels of the map, and a mean over many drowns it; where good parts differ much, as
fruit does, few pixels are nearly chance. Test pictures take no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from board.teaching.lesson import Lesson
from host.integers.arithmetic import Int8
from host.judging.evaluation import image_auroc
from host.judging.thresholds import IntegerMaps, score_maps
from host.learning.heldout import DEFECTS, draw_defect
from host.learning.probes import draw_probes
from host.pictures.reading import Images
from host.teaching.examination import Describe, spread
from protocol.manifest import AnomalyMap

SHARES = (0.01, 0.02, 0.035, 0.07, 0.14)  # of the map's pixels
MOST_GOODS = 10


@dataclass(frozen=True)
class Painted:
    """Maps int8 (n, h, w) of good pictures with defects, each as if it had not taught."""

    small: IntegerMaps
    large: IntegerMaps


def paint_defects(lesson: Lesson, images: Images, describe: Describe, seed: int) -> Painted:
    """On good images uint8 (n, h, w, 3)."""
    pairs = [_draw_defects(lesson, images, describe, picture, seed) for picture in spread(images, MOST_GOODS)]
    small, large = (np.concatenate(maps) for maps in zip(*pairs, strict=True))
    return Painted(small, large)


def choose_top_pixels(lesson: Lesson, painted: Painted, scale: float) -> int:
    """What tells small and large painted defects from good pictures best."""
    shape: tuple[int, int] = lesson.maps.shape[1:]
    sets = (painted.small, painted.large)

    def measure(top_pixels: int) -> float:
        meaning = AnomalyMap(shape, scale, top_pixels)
        return sum((_tell_apart(lesson.maps, maps, meaning) for maps in sets if len(maps)), 0.0)

    choices = sorted({max(1, round(share * shape[0] * shape[1])) for share in SHARES})
    return max(choices, key=measure)


def _draw_defects(lesson: Lesson, images: Images, describe: Describe, picture: int, seed: int) -> tuple[Int8, Int8]:
    """Maps of the picture with small and with large defects, as if it had not taught."""
    probes = [one for kind in draw_probes(images[[picture]], 1, seed + picture).values() for one in kind]
    rng = np.random.default_rng([seed, picture])
    large = [draw_defect(kind, images[picture], rng) for kind in DEFECTS]
    maps = lesson.judge_unseen(describe(np.stack([*probes, *large])), picture)
    return maps[: len(probes)], maps[len(probes) :]


def _tell_apart(goods: IntegerMaps, bad: IntegerMaps, meaning: AnomalyMap) -> float:
    scores = np.concatenate([score_maps(goods, meaning), score_maps(bad, meaning)])
    return image_auroc(scores, np.repeat([False, True], [len(goods), len(bad)]))
