"""Counters and latencies of the line since its start, published every few seconds."""

from __future__ import annotations

import time
from collections import Counter, deque
from pathlib import Path

import numpy as np

from protocol.messages import Verdict, rfc3339_now

OWN_STAGES = ("decode", "preprocess", "decide")  # with publish: what the line itself costs, beside its engine
KEPT = 4096  # latest parts that the percentiles are taken from


class Health:
    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._due_s = 0.0
        self._counts: Counter[str] = Counter()
        self._stages: dict[str, deque[float]] = {}
        self._held_s = 0.0
        self._reported_s, self._reported_parts = time.monotonic(), 0

    def note(self, verdict: Verdict, publish_ms: float) -> None:
        self._counts["parts"] += 1
        self._counts[verdict.decision.lower()] += 1
        self._counts["missed_deadlines"] += verdict.missed_deadline
        own_ms = sum(verdict.stages_ms.get(stage, 0.0) for stage in OWN_STAGES) + publish_ms
        for stage, value in (*verdict.stages_ms.items(), ("publish", publish_ms), ("own", own_ms)):
            self._stages.setdefault(stage, deque(maxlen=KEPT)).append(value)

    def note_held(self, held_s: float) -> None:
        """The line stood still for so long, because a verdict could not be handed over."""
        self._held_s += held_s

    def is_due(self) -> bool:
        """True once per interval."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self._every_s
        return True

    def report(self, extra: dict[str, object]) -> dict[str, object]:
        """JSON-ready; `stages_ms` maps each stage to its p50, p99 and max over the latest parts."""
        stages = {stage: percentiles(values) for stage, values in self._stages.items()}
        own = {
            "parts_per_s": self._rate(),
            "held_s": round(self._held_s, 1),
            "rss_mb": resident_mb(),
            "stages_ms": stages,
        }
        return {"time": rfc3339_now(), **self._counts, **own, **extra}

    def _rate(self) -> float:
        """Parts per second since the report before."""
        now_s, parts = time.monotonic(), self._counts["parts"]
        rate = (parts - self._reported_parts) / max(now_s - self._reported_s, 1e-3)
        self._reported_s, self._reported_parts = now_s, parts
        return round(rate, 2)


def percentiles(values: deque[float]) -> dict[str, float]:
    p50, p99, top = np.percentile(np.asarray(values), (50, 99, 100))
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(top), 3)}


def resident_mb() -> float:
    """Resident memory of this process (proc(5), statm field 2, pages of 4 KiB)."""
    return round(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6, 1)
