"""A model that was taught on a backbone: any engine gives the features, NumPy compares them with the bank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from board.seams import Engine, Files
from board.teaching.backbone import find_folder
from board.teaching.bank import Detector
from board.teaching.store import load_bank
from protocol.errors import EngineError


class TaughtEngine:
    def __init__(self, features: Engine, detector: Detector) -> None:
        """Takes the engine over, whose answers are features int8 (channels, h', w')."""
        self.name = features.name
        self._features, self._detector = features, detector

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        features = self._features.infer(image)
        channels = self._detector.bank.white.weights.shape[1]
        if features.ndim != 3 or len(features) != channels:
            raise EngineError(f"{self.name} gives no {channels} features: copy the backbone again")
        anomaly: NDArray[np.int8] = self._detector.judge(features[np.newaxis])[0]
        return anomaly

    def close(self) -> None:
        self._features.close()


def open_taught(bank: Path, backbones: Path | None, open_features: Callable[[Files], Engine]) -> TaughtEngine:
    """Raises: EngineError without a folder of backbones; InputError without the right one; ManifestError."""
    detector, sha256 = load_bank(bank)
    if backbones is None:
        raise EngineError("this model was taught on a backbone: say in [engines] backbones where backbones lie")
    return TaughtEngine(open_features(find_folder(backbones, sha256)), detector)
