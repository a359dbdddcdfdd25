"""The metrics of the edge node and of a line: names, data types, aliases, and the latest values.

A tag is reported when its value changes. What belongs to the past goes as it was and changes no latest value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from host.plant.payload import DataType, Metric, Value
from protocol.messages import Verdict

ALIASES_EACH = 1000  # of one device; the edge node's own are below


@dataclass(frozen=True)
class Tag:
    name: str
    datatype: DataType
    initial: Value = None


BD_SEQ = Tag("bdSeq", DataType.INT64)
REBIRTH = Tag("Node Control/Rebirth", DataType.BOOLEAN, initial=False)
NODE_TAGS = (
    BD_SEQ,
    REBIRTH,
    Tag("Properties/Software", DataType.STRING, initial="Beltsight"),
    Tag("Bridge/Lines", DataType.INT64, initial=0),
    Tag("Bridge/Duplicates dropped", DataType.INT64, initial=0),
    Tag("Bridge/Messages refused", DataType.INT64, initial=0),
)

VERDICT_TAGS = (
    Tag("Verdict/Event ID", DataType.STRING),
    Tag("Verdict/Run", DataType.STRING),
    Tag("Verdict/Part ID", DataType.INT64),
    Tag("Verdict/Decision", DataType.STRING),
    Tag("Verdict/Score", DataType.DOUBLE),
    Tag("Verdict/Threshold", DataType.DOUBLE),
    Tag("Verdict/Reason", DataType.STRING),
    Tag("Verdict/Engine", DataType.STRING),
    Tag("Verdict/Model", DataType.STRING),
    Tag("Verdict/Degraded", DataType.BOOLEAN),
    Tag("Verdict/Missed deadline", DataType.BOOLEAN),
    Tag("Verdict/Latency ms", DataType.DOUBLE),
    Tag("Verdict/Readings", DataType.STRING),  # JSON: which sensors there are is the line's configuration
)
LINE_TAGS = (
    Tag("State", DataType.STRING),
    Tag("State/Reason", DataType.STRING),
    Tag("State/Model", DataType.STRING),
    Tag("Counts/Parts", DataType.INT64),
    Tag("Counts/OK", DataType.INT64),
    Tag("Counts/Reject", DataType.INT64),
    Tag("Counts/Unknown", DataType.INT64),
    Tag("Counts/Missed deadlines", DataType.INT64),
    Tag("Counts/Verdicts waiting", DataType.INT64),
    Tag("Counts/Parts per s", DataType.DOUBLE),
    Tag("Model/Known-bad parts", DataType.INT64),
    Tag("Model/Known-bad parts found", DataType.INT64),
    *VERDICT_TAGS,
)
PAUSE = Tag("Line Control/Pause", DataType.BOOLEAN, initial=False)
RESUME = Tag("Line Control/Resume", DataType.BOOLEAN, initial=False)
THRESHOLD = Tag("Line Control/Threshold", DataType.DOUBLE)
CONTROL_TAGS = (
    PAUSE,
    RESUME,
    THRESHOLD,
    Tag("Command/ID", DataType.STRING),
    Tag("Command/Obeyed", DataType.BOOLEAN),
    Tag("Command/Reason", DataType.STRING),
)


class Tags:
    """Latest values, by name, of one edge node or device."""

    def __init__(self, tags: Iterable[Tag], first_alias: int, now_ms: int) -> None:
        self._tags = {tag.name: tag for tag in tags}
        # a rebirth request must be by name: that one has no alias
        named = [name for name in self._tags if name != REBIRTH.name]
        self._aliases: dict[str, int] = {name: first_alias + index for index, name in enumerate(named)}
        self._values: dict[str, tuple[Value, int]] = {tag.name: (tag.initial, now_ms) for tag in self._tags.values()}

    def update(self, values: Mapping[str, Value], timestamp_ms: int) -> list[Metric]:
        """What of it is news, to be reported."""
        news = [name for name, value in values.items() if value != self._values[name][0]]
        for name in news:
            self._values[name] = (values[name], timestamp_ms)
        return [self._metric(name) for name in news]

    def past(self, values: Mapping[str, Value], timestamp_ms: int) -> list[Metric]:
        """All of it, as it was then."""
        return [
            Metric(name, self._tags[name].datatype, value, timestamp_ms, self._aliases[name], is_historical=True)
            for name, value in values.items()
        ]

    def all(self) -> list[Metric]:
        """For a birth: every metric, the oldest value first."""
        return sorted((self._metric(name) for name in self._tags), key=lambda metric: metric.timestamp_ms)

    def name_of(self, name: str, alias: int | None) -> str | None:
        """The tag that a command means."""
        if name:
            return name if name in self._tags else None
        return next((known for known, number in self._aliases.items() if number == alias), None)

    def _metric(self, name: str) -> Metric:
        value, timestamp_ms = self._values[name]
        return Metric(name, self._tags[name].datatype, value, timestamp_ms, self._aliases.get(name))


def verdict_values(verdict: Verdict) -> dict[str, Value]:
    values: tuple[Value, ...] = (
        verdict.event_id,
        verdict.run,
        verdict.part_id,
        verdict.decision,
        verdict.score,
        verdict.threshold,
        verdict.reason,
        verdict.engine,
        verdict.model_id,
        verdict.degraded,
        verdict.missed_deadline,
        verdict.latency_ms,
        json.dumps(verdict.readings, sort_keys=True),
    )
    return dict(zip((tag.name for tag in VERDICT_TAGS), values, strict=True))
