"""[gate] of the line's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protocol.strict import require
from protocol.units import NS_PER_S

MOST_MM = 1e8  # of belt: one that is simulated waits minutes for a slow engine


@dataclass(frozen=True)
class GateSettings:
    kind: Literal["dry", "gpio", "timer"] = "dry"
    distance_mm: float = 300.0  # light barrier → gate
    window_mm: float = 80.0  # length of belt, centred on the part, that nobody shares with a part that is not OK
    lead_ms: float = 5.0  # the gate's own reaction time
    dry_log: Path | None = None  # where the dry gate writes its movements, one JSON line each
    gpio_pin: int = 0  # user GPIO number (EMIO) of the gate's output

    def start_ns(self, belt_speed_mm_s: float) -> int:
        """From a part's trigger to the beginning of its window."""
        travel_s = (self.distance_mm - self.window_mm / 2) / belt_speed_mm_s
        return int((travel_s - self.lead_ms / 1e3) * NS_PER_S)

    def window_ns(self, belt_speed_mm_s: float) -> int:
        return int(self.window_mm / belt_speed_mm_s * NS_PER_S)

    def __post_init__(self) -> None:
        require(1 <= self.window_mm <= MOST_MM, "window_mm", f"must be 1..{MOST_MM:g}")
        farthest = f"must be more than half of window_mm, and at most {MOST_MM:g}"
        require(self.window_mm / 2 < self.distance_mm <= MOST_MM, "distance_mm", farthest)
        require(0 <= self.lead_ms <= 1000, "lead_ms", "must be 0..1000")
        require(self.gpio_pin >= 0, "gpio_pin", "must be 0 or more")


@dataclass(frozen=True)
class EncoderSettings:
    """[motion.encoder]: the encoder is wired to the overlay; left out, the belt's messages tell its positions."""

    um_per_count: float = 100.0  # of belt
    kind: Literal["quadrature", "directed", "plain"] = "quadrature"  # A and B; A and a direction; A alone
    turned: bool = False  # it counts the other way
    filter_us: float = 1.0  # shorter pulses are noise

    def um(self, counts: int) -> int:
        return round(counts * self.um_per_count)

    def __post_init__(self) -> None:
        require(0.1 <= self.um_per_count <= 5000, "um_per_count", "must be 0.1..5000")
        require(0 <= self.filter_us <= 500, "filter_us", "must be 0..500")
