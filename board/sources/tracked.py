"""Parts in the view of a free-running camera: found, tracked across frames, each delivered once."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.strict import require


@dataclass(frozen=True)
class TrackerSettings:
    px_per_mm: float = 2.5  # scale of the view
    part_mm: float = 76.0  # length of a part along the belt

    def __post_init__(self) -> None:
        require(self.px_per_mm > 0, "px_per_mm", "must be above 0")
        require(self.part_mm > 0, "part_mm", "must be above 0")
