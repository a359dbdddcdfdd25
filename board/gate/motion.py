"""How far the belt has come, and whether that may be believed: by an encoder, a camera's view, or the clock alone.

Two light barriers are `board/gate/barriers.py`. Times are passed in, in ns of our monotonic clock; positions are µm.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

from board.gate.geometry import Reach
from protocol.messages import Trigger
from protocol.strict import require
from protocol.units import NS_PER_S, UM_PER_MM

MEASURED_NS = 500_000_000  # over which the belt's speed is taken
BACK_UM = 2000  # that a belt may give way when it stops
SLACK_UM = 5000  # of a single reading
FORGET = 0.98  # a reading: after a hundred of them, a speed that was once is forgotten
FASTEST = 4.0  # times the configured speed: beyond it, it is the encoder that is wrong
KEPT_READINGS = 256
FRESH = 4  # readings, from which the belt's speed between this one and the next is taken
GRACE_NS = 20_000_000  # an encoder's reading is carried on for so long, forward and with doubt on neither side
VIEW_GRACE_NS = 120_000_000  # that of a view: cameras are slower
Origin = Literal["encoder", "barriers", "view", "nothing"]


@dataclass(frozen=True)
class MotionSettings:
    by: Origin | None = None  # None: the view in free-running mode, else nothing, and the state says so
    tolerance: float = 0.05  # share of the speed, or of the way between the barriers
    silence_ms: float = 100.0  # without a reading for so long, the gate is closed

    def __post_init__(self) -> None:
        require(0 < self.tolerance <= 0.2, "tolerance", "must be above 0, and at most 0.2")
        require(10 <= self.silence_ms <= 1000, "silence_ms", "must be 10..1000")


class Motion(Protocol):
    @property
    def speed_mm_s(self) -> float | None:
        """As it was measured last."""

    def moved(self, position_um: int, t_ns: int) -> None: ...

    doubts: int  # grows whenever it turns out that parts may be elsewhere than was thought

    def came(self, trigger: Trigger) -> Reach | None:
        """Where the belt was when this part broke the barrier; None where that is not known."""

    def place(self, t_ns: int) -> Reach | None:
        """Where it was at a time of late; None where that is not known."""

    def reach(self, t_ns: int) -> Reach:
        """How far it has come by now."""

    def time_at(self, position_um: int, t_ns: int) -> int:
        """When `reach` will have `high` there, as things are at `t_ns`."""

    def is_moving(self, t_ns: int) -> bool:
        """Proved of late: the gate is open for nobody on a belt that stands."""

    def trouble(self, t_ns: int) -> str:
        """Why the belt cannot be believed; empty if it can."""


class Clock:
    """Nothing measures the belt: it runs at the configured speed because somebody says so."""

    speed_mm_s = None

    doubts = 0

    def __init__(self, belt_speed_mm_s: float) -> None:
        self._um_s = max(1, round(belt_speed_mm_s * UM_PER_MM))

    def moved(self, position_um: int, t_ns: int) -> None:
        """Nobody asked."""

    def came(self, trigger: Trigger) -> Reach | None:
        return self.reach(trigger.t_ns)

    def place(self, t_ns: int) -> Reach | None:
        return self.reach(t_ns)

    def reach(self, t_ns: int) -> Reach:
        position_um = t_ns * self._um_s // NS_PER_S
        return Reach(position_um, position_um)

    def time_at(self, position_um: int, t_ns: int) -> int:
        return max(t_ns, -(-position_um * NS_PER_S // self._um_s))

    def is_moving(self, t_ns: int) -> bool:  # noqa: ARG002 - the seam of all motions
        return True

    def trouble(self, t_ns: int) -> str:  # noqa: ARG002
        return ""


@dataclass(frozen=True)
class Reading:
    position_um: int
    t_ns: int


class Encoder:
    """Positions decide, whatever the speed. Between two readings, and when they cease to grow, the belt may have gone
    on at the speed that it had: so a cable that breaks while the gate is open does not keep it open.
    """

    def __init__(self, settings: MotionSettings, belt_speed_mm_s: float, clear_um: int) -> None:
        """`clear_um`: after a contradiction the belt is believed again when it has run so far."""
        self._silence_ns = int(settings.silence_ms * 1e6)
        self._speed = belt_speed_mm_s * UM_PER_MM / NS_PER_S  # µm a ns
        self._bound = self._speed  # the greatest speed of late
        self._clear_um = clear_um
        self._readings: deque[Reading] = deque(maxlen=KEPT_READINGS)
        self._changed = Reading(0, 0)  # the last one that differs from the one before
        self._asked_ns: int | None = None  # a part came at this time, and the belt stood
        self._contradiction = ""
        self._since_um = 0  # way since the contradiction
        self.doubts = 0

    @property
    def speed_mm_s(self) -> float | None:
        if len(self._readings) < 2:
            return None
        first, last = self._recent()[0], self._readings[-1]
        return round(self._rate(first, last) * NS_PER_S / UM_PER_MM, 1)

    def moved(self, position_um: int, t_ns: int) -> None:
        now = Reading(position_um, t_ns)
        if not self._readings:
            self._readings.append(now)
            self._changed = now
            return
        last = self._readings[-1]
        if t_ns <= last.t_ns:
            return
        self._check(last, now)
        self._readings.append(now)
        if position_um != last.position_um:
            self._changed = now
            self._bound = max(self._fresh(), self._bound * FORGET)
            if self._asked_ns is not None and t_ns <= self._asked_ns + self._silence_ns:
                self._asked_ns = None

    def came(self, trigger: Trigger) -> Reach | None:
        if not self._readings:
            return None
        if trigger.t_ns > self._changed.t_ns + self._silence_ns and self._asked_ns is None:
            self._asked_ns = trigger.t_ns
        if trigger.position_um is not None:
            return Reach(trigger.position_um, trigger.position_um)
        return self.place(trigger.t_ns)

    def place(self, t_ns: int) -> Reach | None:
        """On the line between two readings, or a little behind the last one."""
        after = None
        for before in reversed(self._readings):
            if before.t_ns <= t_ns:
                return self._between(before, after, t_ns)
            after = before
        return None

    def reach(self, t_ns: int) -> Reach:
        if not self._readings:
            return Reach(0, 0)
        last = self._readings[-1]
        carried_um = int(self._fresh() * min(max(0, t_ns - last.t_ns), GRACE_NS))
        unseen_ns = min(max(0, t_ns - self._changed.t_ns), self._silence_ns) - GRACE_NS
        doubt_um = int(max(0, unseen_ns) * max(self._speed, self._bound))
        # subtle: of a reading that is not followed by another in time, nothing is sure but itself
        low_um = last.position_um + (carried_um if t_ns <= last.t_ns + GRACE_NS else 0)
        return Reach(low_um, last.position_um + carried_um + doubt_um)

    def time_at(self, position_um: int, t_ns: int) -> int:
        left_um = position_um - self.reach(t_ns).high
        rate = self._fresh() or self._bound
        return t_ns + max(0, -int(-left_um // rate))

    def is_moving(self, t_ns: int) -> bool:
        return len(self._readings) > 1 and t_ns <= self._changed.t_ns + self._silence_ns

    def trouble(self, t_ns: int) -> str:
        if not self._readings:
            return "nothing is heard of the belt's encoder: check its cable, or correct [motion] by"
        if self._asked_ns is not None and t_ns > self._asked_ns + self._silence_ns:
            self._asked_ns = None
            self._doubt("parts come while the belt's encoder stands: check its cable")
        if t_ns > self._readings[-1].t_ns + 2 * self._silence_ns:
            return "the belt's encoder is silent: check its cable"
        return self._contradiction

    def _check(self, last: Reading, now: Reading) -> None:
        step_um = now.position_um - last.position_um
        if step_um < -BACK_UM:
            self._doubt("the belt's encoder counts backwards: check its two cables and the belt's direction")
        elif step_um > SLACK_UM + FASTEST * self._speed * (now.t_ns - last.t_ns):
            self._doubt("the belt's encoder jumps: check its cable and its shield")
        elif self._contradiction:
            self._since_um += step_um
            if self._since_um >= self._clear_um:
                self._contradiction = ""

    def _doubt(self, why: str) -> None:
        self._contradiction, self._since_um = why, 0
        self.doubts += 1

    def _between(self, before: Reading, after: Reading | None, t_ns: int) -> Reach:
        way_ns = t_ns - before.t_ns
        if after is None:
            carried_um = int(self._fresh() * way_ns)
            return Reach(
                before.position_um + (carried_um if way_ns <= GRACE_NS else 0), before.position_um + carried_um
            )
        share = way_ns / (after.t_ns - before.t_ns)
        position_um = before.position_um + round(share * (after.position_um - before.position_um))
        return Reach(position_um, position_um)

    def _fresh(self) -> float:
        """The speed that it has just now, µm a ns."""
        if len(self._readings) < 2:
            return 0.0
        first = self._readings[-min(FRESH, len(self._readings))]
        return max(0.0, self._rate(first, self._readings[-1]))

    def _recent(self) -> list[Reading]:
        since_ns = self._readings[-1].t_ns - MEASURED_NS
        return [reading for reading in self._readings if reading.t_ns >= since_ns]

    @staticmethod
    def _rate(first: Reading, last: Reading) -> float:
        return (last.position_um - first.position_um) / max(1, last.t_ns - first.t_ns)


class View:
    """A free-running camera sees the belt move as long as a part is in its view. While none is, the belt has surely
    not gone back, and may have gone on as configured.
    """

    def __init__(self, settings: MotionSettings, belt_speed_mm_s: float, clear_um: int) -> None:
        self._silence_ns = int(settings.silence_ms * 1e6)
        self._nominal_mm_s, self._tolerance = belt_speed_mm_s, settings.tolerance
        self._speed = belt_speed_mm_s * UM_PER_MM / NS_PER_S
        self._clear_um = clear_um
        self._readings: deque[Reading] = deque(maxlen=KEPT_READINGS)  # without a gap
        self._reach = Reach(0, 0)  # at the last reading
        self._believed_um: int | None = None  # from here on; None: it never moved yet
        self._trouble = ""
        self._said_mm_s = 0.0
        self.speed_mm_s: float | None = None
        self.doubts = 0

    def moved(self, position_um: int, t_ns: int) -> None:
        if self._readings and t_ns <= self._readings[-1].t_ns:
            return
        if self._readings:
            self._go_on(self._readings[-1], Reading(position_um, t_ns))
        self._readings.append(Reading(position_um, t_ns))
        self._measure()

    def came(self, trigger: Trigger) -> Reach | None:
        return self.place(trigger.t_ns)

    def place(self, t_ns: int) -> Reach | None:
        """subtle: a trigger lies a view back or two, and the belt's way since then was seen."""
        if not self._readings:
            return None
        back_um = int((self._readings[-1].t_ns - t_ns) * self._speed)
        return Reach(self._reach.low - max(0, back_um), self._reach.high - back_um)

    def reach(self, t_ns: int) -> Reach:
        if not self._readings:
            return Reach(0, 0)
        unseen_ns = max(0, t_ns - self._readings[-1].t_ns)
        carried_um = int(unseen_ns * self._speed)
        # subtle: what nobody sees any more is not known to move
        low_um = self._reach.low + (carried_um if unseen_ns <= VIEW_GRACE_NS else 0)
        return Reach(low_um, self._reach.high + carried_um)

    def time_at(self, position_um: int, t_ns: int) -> int:
        return t_ns + max(0, int((position_um - self.reach(t_ns).high) / self._speed))

    def is_moving(self, t_ns: int) -> bool:  # noqa: ARG002 - what is not seen is in `reach`
        return self._believed_um is not None and self._reach.low >= self._believed_um

    def trouble(self, t_ns: int) -> str:  # noqa: ARG002
        return self._trouble

    def _go_on(self, last: Reading, now: Reading) -> None:
        step_um, step_ns = now.position_um - last.position_um, now.t_ns - last.t_ns
        if step_ns > self._silence_ns:
            self._readings.clear()  # nobody saw it in between
        may_um = int(step_ns * self._speed) if step_ns > self._silence_ns else step_um
        self._reach = Reach(self._reach.low + max(0, step_um), self._reach.high + max(0, step_um, may_um))

    def _measure(self) -> None:
        first, last = self._readings[0], self._readings[-1]
        first = next((reading for reading in self._readings if reading.t_ns >= last.t_ns - MEASURED_NS), first)
        if last.t_ns - first.t_ns < self._silence_ns:
            return
        mm_s = (last.position_um - first.position_um) / (last.t_ns - first.t_ns) * NS_PER_S / UM_PER_MM
        self.speed_mm_s = round(mm_s, 1)
        if abs(mm_s - self._nominal_mm_s) <= self._tolerance * self._nominal_mm_s:
            self._trouble = ""
            if self._believed_um is None:
                self._believed_um = self._reach.low
            return
        self._believed_um = self._reach.low + self._clear_um
        self.doubts += 1
        if not self._trouble or abs(mm_s - self._said_mm_s) > self._tolerance * self._nominal_mm_s:
            self._said_mm_s = mm_s
            self._trouble = wrong_speed(mm_s, self._nominal_mm_s)


def wrong_speed(measured_mm_s: float, configured_mm_s: float) -> str:
    return (
        f"the belt runs at {measured_mm_s:.0f} mm/s, not {configured_mm_s:g}: set the belt right, or correct "
        "belt_speed_mm_s"
    )
