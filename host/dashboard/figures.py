"""The line's figures over its last parts: how fast, how many rejected, how long from trigger to decision."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from host.dashboard.history import Row
from host.dashboard.incoming import parse_time

KEPT = 500  # parts
RATE_OVER_S = 10.0
KEPT_TIMES = 5000  # of parts: of a line faster than 500 a second the rate is shown too low


class Figures:
    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._started_s = clock_s()
        self._lock = threading.Lock()
        self._parts: deque[Row] = deque(maxlen=KEPT)
        self._times_s: deque[float] = deque(maxlen=KEPT_TIMES)  # by the station's clock
        self._clocks_s = (0.0, 0.0)  # the station's and ours, when its newest part came

    def recall(self, parts: Sequence[Row]) -> None:
        """Parts that went by before this program started, oldest first."""
        self._parts.extend(parts)

    def note(self, parts: Sequence[Row]) -> None:
        with self._lock:
            self._note(parts)

    def _note(self, parts: Sequence[Row]) -> None:
        self._parts.extend(parts)
        times_s = [parse_time(part["time"]).timestamp() for part in parts]
        self._times_s.extend(times_s)
        fresh_s = [time_s for time_s, part in zip(times_s, parts, strict=True) if not part["late"]]
        if fresh_s:
            self._clocks_s = (max(fresh_s), self._clock_s())

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
        """By the parts' own times: those that an outage held back come all at once, and were judged one by one."""
        now_s = self._clock_s()
        station_s = self._clocks_s[0] + now_s - self._clocks_s[1]  # the two clocks need not agree
        span_s = min(RATE_OVER_S, max(1.0, now_s - self._started_s))
        return sum(1 for time_s in self._times_s if station_s - span_s < time_s <= station_s) / span_s
