"""A model that the station teaches itself: from pictures of good parts to a package without a network.

Nothing here is measured on defects, so the package says "not judged"; `beltsight teach` on a host judges what it makes.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from board.score import score_map
from board.seams import Engine, Files
from board.teaching.backbone import BackboneFolder
from board.teaching.bank import MAP_EXPONENT
from board.teaching.certainty import Tail, describe_certainty
from board.teaching.inspection import check_exposure, choose_different
from board.teaching.lesson import Lesson, learn
from board.teaching.store import BANK_NPZ, encode_bank
from board.teaching.whitening import FEATURE_EXPONENT, Int8
from protocol.errors import EngineError, InputError
from protocol.manifest import (
    FORMAT,
    GOLDEN_NPZ,
    MANIFEST,
    AnomalyMap,
    Manifest,
    Preprocess,
    Threshold,
    encode_manifest,
)

TOP_SHARE = 0.035  # of the map's pixels, whose mean is the score
REJECTED = 0.02  # of good parts, that the threshold is set for
SEED = 0

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Subject:
    """What is taught: frames of (height, width) of a product."""

    model: str
    product: str
    frame_px: tuple[int, int]
    input_px: int

    @property
    def how(self) -> Preprocess:
        """All of the frame."""
        height, width = self.frame_px
        return Preprocess(self.frame_px, (0, 0, height, width), (self.input_px, self.input_px))


def teach(
    subject: Subject,
    frame: Images,
    images: Images,
    backbone: BackboneFolder,
    open_features: Callable[[Files], Engine],
) -> dict[str, bytes]:
    """The package's files, from images uint8 (n, h, w, 3) of good parts; `frame` uint8 (H, W, 3) is the first one's.

    Raises: InputError for pictures that cannot teach; EngineError.
    """
    check_exposure([f"part {number}" for number in range(1, len(images) + 1)], images)
    chosen = choose_different("good parts", images)
    engine = open_features(backbone)
    try:
        _prove(engine, backbone)
        features = np.stack([engine.infer(image) for image in images[chosen]])
    finally:
        engine.close()
    lesson = learn(features, FEATURE_EXPONENT, np.random.default_rng(SEED))
    golden = io.BytesIO()
    maps = lesson.detector.judge(features[:1])  # of the first image: it is a copy of none before it
    np.savez_compressed(golden, frames=frame[np.newaxis], images=images[:1], maps=maps)
    files = {BANK_NPZ: encode_bank(lesson.detector, backbone.sha256), GOLDEN_NPZ: golden.getvalue()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = replace(_describe(subject, lesson, backbone), files=digests)
    return files | {MANIFEST: encode_manifest(manifest)}


def _prove(engine: Engine, backbone: BackboneFolder) -> None:
    """Raises: EngineError if the engine does not give the backbone's golden features."""
    with np.load(backbone.path(GOLDEN_NPZ), allow_pickle=False) as golden:
        for image, features in zip(golden["images"], golden["features"], strict=True):
            if not np.array_equal(engine.infer(image), features):
                raise EngineError(f"{engine.name} does not give the backbone's golden features")


def _describe(subject: Subject, lesson: Lesson, backbone: BackboneFolder) -> Manifest:
    height, width = lesson.maps.shape[1:]
    meaning = AnomalyMap((height, width), 2.0**MAP_EXPONENT, max(1, round(TOP_SHARE * height * width)))
    return Manifest(
        format=FORMAT,
        id=subject.model,
        product=subject.product,
        preprocess=subject.how,
        map=meaning,
        threshold=set_threshold(lesson.maps, meaning),
        files={},
        provenance={"taught": "on the station", "backbone": backbone.manifest.name},
    )


def set_threshold(maps: Int8, meaning: AnomalyMap) -> Threshold:
    """From maps (n, h, w) of good parts, each judged by the others alone."""
    scores = np.array([score_map(anomaly, meaning) for anomaly in maps])
    step = meaning.scale / meaning.top_pixels  # the smallest difference of two scores
    value = min(Tail.of(scores).find_level(REJECTED) + step, meaning.highest)
    rejected = int((scores >= value).sum())
    return Threshold(value, f"set for {REJECTED:.0%} of good parts; {describe_certainty(rejected, len(scores))}")


def write_taught(folder: Path, files: dict[str, bytes]) -> None:
    """The package appears whole or not at all. Raises: InputError if it cannot be written, or is there already."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for name, content in files.items():
            (unfinished / name).write_bytes(content)
        os.replace(unfinished, folder)
    except OSError as error:
        advice = "free some space, or give another name"
        raise InputError(f"{folder} cannot be written ({error.strerror}): {advice}") from None
