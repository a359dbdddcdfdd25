"""The line's figures over its last parts: how fast, how many rejected, how long from trigger to decision."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from host.dashboard.history import Row

KEPT = 500  # parts
RATE_OVER_S = 10.0


class Figures:
    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._started_s = clock_s()
        self._lock = threading.Lock()
        self._parts: deque[Row] = deque(maxlen=KEPT)
        self._arrivals: deque[tuple[float, int]] = deque()  # when, how many

    def recall(self, parts: Sequence[Row]) -> None:
        """Parts that went by before this program started, oldest first."""
        self._parts.extend(parts)

    def note(self, parts: Sequence[Row]) -> None:
        with self._lock:
            self._note(parts)

    def _note(self, parts: Sequence[Row]) -> None:
        self._parts.extend(parts)
        self._arrivals.append((self._clock_s(), len([part for part in parts if not part["late"]])))

    def summary(self) -> dict[str, Any]:
        with self._lock:
            return self._summary()

    def _summary(self) -> dict[str, Any]:
        newest = self._parts[-1] if self._parts else None
        latencies = [part["latency_ms"] for part in self._parts]
        p50, p99 = np.percentile(latencies, (50, 99)) if latencies else (None, None)
        rejected = sum(part["decision"] != "OK" for part in self._parts)
        return {
            "parts_per_s": round(self._rate(), 2),
            "reject_rate": rejected / len(self._parts) if self._parts else None,
            "over_parts": len(self._parts),
            "latency_p50_ms": None if p50 is None else round(float(p50), 2),
            "latency_p99_ms": None if p99 is None else round(float(p99), 2),
            "engine": newest["engine"] if newest else "",
            "model_id": newest["model_id"] if newest else "",
            "threshold": newest["threshold"] if newest else None,
        }

    def _rate(self) -> float:
        now_s = self._clock_s()
        while self._arrivals and self._arrivals[0][0] < now_s - RATE_OVER_S:
            self._arrivals.popleft()
        span_s = min(RATE_OVER_S, max(1.0, now_s - self._started_s))
        return sum(count for _, count in self._arrivals) / span_s
