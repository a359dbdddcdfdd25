"""Classical detectors on features of a pretrained network: PyOD's LOF, CBLOF and XGBOD, XGBoost and CatBoost.

A picture is the mean and the deviation of each channel over the picture. LOF (Breunig et al. 2000) and CBLOF (He et al.
2003) learn from good pictures; XGBOD (Zhao and Hryniewicki 2018), XGBoost (Chen and Guestrin 2016) and CatBoost
(Prokhorenkova et al. 2018) also from labelled ones. They score whole pictures; ONNX has no word for them here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from host.bench.detector import Advance, Detector, Given, Images, Labelled, Maps, MissingError, Pool
from host.bench.features import NetworkName, load_features
from host.bench.net import as_batch

SEEN_AT_ONCE = 16
EXTRA = "install the extra: pip install '.[baselines]' in the clone"


@dataclass(frozen=True)
class Settings:
    method: Literal["lof", "cblof", "xgbod", "xgboost", "catboost"] = "lof"
    network: NetworkName = "squeezenet1_1"
    neighbours: int = 10
    clusters: int = 16  # above 10, the smallest one is small enough for CBLOF to call it so
    trees: int = 100


class OnFeatures:
    """What all of them share; `model` learns vectors (n, d)."""

    pools: Pool = "maximum"  # one pixel: the score

    def __init__(self, settings: Settings, given: Given) -> None:
        self.features = load_features(settings.network, given.weights, levels=3)

    @torch.no_grad()
    def describe(self, images: Images) -> NDArray[np.float64]:
        """(n, 2 · channels)."""
        parts = []
        for start in range(0, len(images), SEEN_AT_ONCE):
            levels = [level.flatten(2) for level in self.features(as_batch(images[start : start + SEEN_AT_ONCE]))]
            parts.append(torch.cat([*(level.mean(2) for level in levels), *(level.std(2) for level in levels)], 1))
        return np.asarray(torch.cat(parts).numpy(), np.float64)

    def export(self) -> None:
        return None


class Unsupervised(OnFeatures):
    def __init__(self, settings: Settings, given: Given) -> None:
        super().__init__(settings, given)
        if settings.method == "lof":
            self.model = _find("pyod.models.lof", "LOF")(n_neighbors=settings.neighbours, novelty=True)
        else:
            self.model = _find("pyod.models.cblof", "CBLOF")(n_clusters=settings.clusters, random_state=given.seed)

    def fit(self, goods: Images, advance: Advance) -> None:
        vectors = self.describe(goods)
        advance(0.5)
        self.model.fit(vectors)

    def score_map(self, images: Images) -> Maps:
        return as_maps(self.model.decision_function(self.describe(images)))


class Supervised(OnFeatures):
    def __init__(self, settings: Settings, given: Given) -> None:
        super().__init__(settings, given)
        self.method = settings.method
        self.model = _make_trees(settings, given.seed)

    def teach(self, labelled: Labelled) -> None:
        self.vectors, self.labels = self.describe(labelled.images), labelled.defective

    def fit(self, goods: Images, advance: Advance) -> None:
        vectors = np.concatenate([self.describe(goods), self.vectors])
        labels = np.concatenate([np.zeros(len(goods), np.int64), self.labels.astype(np.int64)])
        advance(0.5)
        self.model.fit(vectors, labels)

    def score_map(self, images: Images) -> Maps:
        vectors = self.describe(images)
        if self.method == "xgbod":
            return as_maps(self.model.decision_function(vectors))
        return as_maps(self.model.predict_proba(vectors)[:, 1])


def build(settings: Settings, given: Given) -> Detector:
    """Raises: MissingError without the package or the weights."""
    return (Unsupervised if settings.method in ("lof", "cblof") else Supervised)(settings, given)


def as_maps(scores: NDArray[Any]) -> Maps:
    return np.asarray(scores, np.float32).reshape(-1, 1, 1)


def _make_trees(settings: Settings, seed: int) -> Any:
    if settings.method == "xgbod":
        return _find("pyod.models.xgbod", "XGBOD")(n_estimators=settings.trees, random_state=seed, n_jobs=1)
    if settings.method == "xgboost":
        return _find("xgboost", "XGBClassifier")(n_estimators=settings.trees, random_state=seed, n_jobs=1)
    quiet = {"verbose": False, "allow_writing_files": False, "thread_count": 1}
    return _find("catboost", "CatBoostClassifier")(iterations=settings.trees, random_seed=seed, **quiet)


def _find(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise MissingError(f"{module.partition('.')[0]} is not here ({error!s:.60}): {EXTRA}") from None
