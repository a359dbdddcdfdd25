"""How far the belt has come, and whether that may be believed. Without a measurement it is the clock that says so.

`encoder.py` and `view.py` measure; two light barriers are `barriers.py`. Times are passed in, in ns of our monotonic
clock; positions are µm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from board.gate.geometry import Reach
from board.gate.settings import EncoderSettings
from protocol.messages import Trigger
from protocol.strict import require
from protocol.units import NS_PER_S, UM_PER_MM

MEASURED_NS = 500_000_000  # over which the belt's speed is taken
KEPT_READINGS = 256
Origin = Literal["encoder", "barriers", "view", "nothing"]


@dataclass(frozen=True)
class MotionSettings:
    by: Origin | None = None  # None: the view in free-running mode, else nothing, and the state says so
    tolerance: float = 0.05  # share of the speed, or of the way between the barriers
    silence_ms: float = 100.0  # without a reading for so long, the gate is closed
    encoder: EncoderSettings | None = None  # the overlay's

    def __post_init__(self) -> None:
        require(0 < self.tolerance <= 0.2, "tolerance", "must be above 0, and at most 0.2")
        require(10 <= self.silence_ms <= 1000, "silence_ms", "must be 10..1000")
        require(self.encoder is None or self.by == "encoder", "encoder", 'needs by = "encoder"')


class Reading(NamedTuple):
    position_um: int
    t_ns: int


class Leg(NamedTuple):
    """From `t_ns` on the belt's reach grows evenly, until the next leg begins. Rates are µm a ns."""

    t_ns: int
    at: Reach
    low_rate: float
    high_rate: float


class Motion(Protocol):
    @property
    def speed_mm_s(self) -> float | None:
        """As it was measured last."""

    @property
    def pace_um_ns(self) -> float:
        """No slower than the belt runs when it runs: for the way that it makes while the gate moves."""

    @property
    def is_surprising(self) -> bool:
        """Whatever the last reading says, the gate has to be looked at."""

    @property
    def has_advanced(self) -> bool:
        """The last reading is farther than the one before."""

    def moved(self, position_um: int, t_ns: int) -> None: ...

    doubts: int  # grows whenever it turns out that parts may be elsewhere than was thought

    def came(self, trigger: Trigger) -> Reach | None:
        """Where the belt was when this part broke the barrier; None where that is not known."""

    def place(self, t_ns: int) -> Reach | None:
        """Where it was at a time of late; None where that is not known."""

    def reach(self, t_ns: int) -> Reach:
        """How far it has come by now."""

    def legs(self, t_ns: int) -> Sequence[Leg]:
        """How `reach` grows from now on if nothing is told."""

    def is_moving(self, t_ns: int) -> bool:
        """Proved of late: the gate is open for nobody on a belt that stands."""

    def trouble(self, t_ns: int) -> str:
        """Why the belt cannot be believed; empty if it can."""


class Clock:
    """Nothing measures the belt: it runs at the configured speed because somebody says so."""

    speed_mm_s = None
    is_surprising = has_advanced = False
    doubts = 0

    def __init__(self, belt_speed_mm_s: float) -> None:
        self._um_s = max(1, round(belt_speed_mm_s * UM_PER_MM))
        self.pace_um_ns = self._um_s / NS_PER_S

    def moved(self, position_um: int, t_ns: int) -> None:
        """Nobody asked."""

    def came(self, trigger: Trigger) -> Reach | None:
        return self.reach(trigger.t_ns)

    def place(self, t_ns: int) -> Reach | None:
        return self.reach(t_ns)

    def reach(self, t_ns: int) -> Reach:
        position_um = t_ns * self._um_s // NS_PER_S
        return Reach(position_um, position_um)

    def legs(self, t_ns: int) -> Sequence[Leg]:
        return (Leg(t_ns, self.reach(t_ns), self.pace_um_ns, self.pace_um_ns),)

    def is_moving(self, t_ns: int) -> bool:  # noqa: ARG002 - the seam of all motions
        return True

    def trouble(self, t_ns: int) -> str:  # noqa: ARG002
        return ""


def time_of(legs: Sequence[Leg], position_um: int, *, low: bool = False) -> int | None:
    """When the high end of `reach` comes there, or the low one; None: not as things are."""
    last = len(legs) - 1
    for number, leg in enumerate(legs):
        start, rate = (leg.at.low, leg.low_rate) if low else (leg.at.high, leg.high_rate)
        if position_um <= start:
            return leg.t_ns
        if rate > 0:
            at_ns = leg.t_ns - int((start - position_um) // rate)
            if number == last or at_ns < legs[number + 1].t_ns:
                return at_ns
    return None


def wrong_speed(measured_mm_s: float, configured_mm_s: float) -> str:
    return (
        f"the belt runs at {measured_mm_s:.0f} mm/s, not {configured_mm_s:g}: set the belt right, or correct "
        "belt_speed_mm_s"
    )
