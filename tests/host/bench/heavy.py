"""A detector that needs 96 MiB and 20 ms for a picture, and does nothing with either."""

from __future__ import annotations

import time

import numpy as np

from host.bench.detector import Advance, Images, Maps, Pool


class Heavy:
    pools: Pool = "maximum"

    def fit(self, goods: Images, advance: Advance) -> None: ...

    def score_map(self, images: Images) -> Maps:
        block = np.ones(12 << 20, np.float64)
        time.sleep(0.02)
        return np.full((len(images), 1, 1), block[0], np.float32)

    def export(self) -> None:
        return None
