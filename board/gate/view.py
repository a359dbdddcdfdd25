"""What a free-running camera sees of the belt."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from board.gate.geometry import Reach
from board.gate.motion import (
    KEPT_READINGS,
    MEASURED_NS,
    Leg,
    MotionSettings,
    Reading,
    wrong_speed,
)
from protocol.messages import Trigger
from protocol.units import NS_PER_S, UM_PER_MM

GRACE_NS = 120_000_000  # a view is carried on for so long: cameras are slower than encoders


class View:
    """A free-running camera sees the belt move as long as a part is in its view. While none is, the belt has surely
    not gone back, and may have gone on as configured.
    """

    is_surprising = has_advanced = True  # views are seldom enough to look at each

    def __init__(self, settings: MotionSettings, belt_speed_mm_s: float, clear_um: int, carried_um: int) -> None:
        """`carried_um`: nothing is taken to have gone farther than this since it was last seen."""
        self._silence_ns = int(settings.silence_ms * 1e6)
        self._nominal_mm_s, self._tolerance = belt_speed_mm_s, settings.tolerance
        self._speed = belt_speed_mm_s * UM_PER_MM / NS_PER_S
        self.pace_um_ns = self._speed
        self._grace_ns = min(GRACE_NS, int(carried_um / self._speed))
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
        """subtle: who came after the last view did not come where that one was: it would leave too early."""
        ahead_um = int((trigger.t_ns - self._readings[-1].t_ns) * self._speed) if self._readings else 0
        if ahead_um > 0:
            return Reach(self._reach.low + ahead_um, self._reach.high + ahead_um)
        return self.place(trigger.t_ns)

    def place(self, t_ns: int) -> Reach | None:
        """On the line between two views; a little before the first one, and after the last, at the configured speed."""
        if not self._readings:
            return None
        after = last = self._readings[-1]
        for before in reversed(self._readings):
            if before.t_ns <= t_ns:
                share = (t_ns - before.t_ns) / max(1, after.t_ns - before.t_ns)
                back_um = (
                    last.position_um - before.position_um - round(share * (after.position_um - before.position_um))
                )
                if before is last:
                    return Reach(self._reach.low, self._reach.high + int((t_ns - last.t_ns) * self._speed))
                return Reach(self._reach.low - back_um, self._reach.high - back_um)
            after = before
        back_um = last.position_um - after.position_um + int((after.t_ns - t_ns) * self._speed)
        return Reach(self._reach.low - back_um, self._reach.high - back_um)

    def reach(self, t_ns: int) -> Reach:
        if not self._readings:
            return Reach(0, 0)
        unseen_ns = max(0, t_ns - self._readings[-1].t_ns)
        carried_um = int(unseen_ns * self._speed)
        # subtle: what nobody sees any more is not known to move
        low_um = self._reach.low + (carried_um if unseen_ns <= self._grace_ns else 0)
        return Reach(low_um, self._reach.high + carried_um)

    def legs(self, t_ns: int) -> Sequence[Leg]:
        """It changes where the last view is carried on no longer."""
        if not self._readings:
            return (Leg(t_ns, Reach(0, 0), 0.0, 0.0),)
        carried_ns = self._readings[-1].t_ns + self._grace_ns
        after = Leg(max(t_ns, carried_ns + 1), self.reach(max(t_ns, carried_ns + 1)), 0.0, self._speed)
        return (Leg(t_ns, self.reach(t_ns), self._speed, self._speed), after) if t_ns <= carried_ns else (after,)

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
        first = last = self._readings[-1]
        for reading in reversed(self._readings):
            if reading.t_ns < last.t_ns - MEASURED_NS:
                break
            first = reading
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
