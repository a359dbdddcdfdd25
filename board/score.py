"""From an anomaly map to a score and a decision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.manifest import AnomalyMap


def score_map(anomaly: NDArray[np.int8], how: AnomalyMap) -> float:
    """Mean of the `top_pixels` highest pixels of an int8 map, times its scale. Exact: a sum of small integers."""
    flat = anomaly.reshape(-1)
    top = np.partition(flat, flat.size - how.top_pixels)[flat.size - how.top_pixels :]
    return int(top.sum(dtype=np.int64)) * how.scale / how.top_pixels
