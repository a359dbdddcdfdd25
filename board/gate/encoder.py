"""The belt's encoder: positions decide, whatever the speed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from board.gate.geometry import Reach
from board.gate.motion import KEPT_READINGS, MEASURED_NS, Leg, MotionSettings, Reading
from protocol.messages import Trigger
from protocol.units import NS_PER_S, UM_PER_MM

BACK_UM = 2000  # that a belt may give way when it stops
SLACK_UM = 5000  # of a single reading
FORGET = 0.98  # a reading: after a hundred of them, a speed that was once is forgotten
FASTEST = 4.0  # times the configured speed: beyond it, it is the encoder that is wrong
FRESH = 4  # readings, from which the belt's speed between this one and the next is taken
GRACE_NS = 20_000_000  # a reading is carried on for so long, forward and with doubt on neither side


class Encoder:
    """Between two readings, and when they cease to grow, the belt may have gone on at the speed that it had: so a cable
    that breaks while the gate is open does not keep it open.
    """

    def __init__(self, settings: MotionSettings, belt_speed_mm_s: float, clear_um: int) -> None:
        """`clear_um`: after a contradiction the belt is believed again when it has run so far."""
        self._silence_ns = int(settings.silence_ms * 1e6)
        self._speed = belt_speed_mm_s * UM_PER_MM / NS_PER_S  # µm a ns
        self.pace_um_ns = self._speed  # the greatest speed of late
        self._clear_um = clear_um
        self._readings: deque[Reading] = deque(maxlen=KEPT_READINGS)
        self._last = Reading(0, 0)
        self._changed_ns = 0  # when a reading last differed from the one before
        self._rate = 0.0  # just now, µm a ns
        self._asked_ns: int | None = None  # a part came at this time, and the belt stood
        self._contradiction = ""
        self._since_um = 0  # way since the contradiction
        self.doubts = 0

    @property
    def speed_mm_s(self) -> float | None:
        if len(self._readings) < 2:
            return None
        first = next(reading for reading in self._readings if reading.t_ns >= self._last.t_ns - MEASURED_NS)
        return round(_rate(first, self._last) * NS_PER_S / UM_PER_MM, 1)

    @property
    def is_surprising(self) -> bool:
        return self._contradiction != ""

    @property
    def has_advanced(self) -> bool:
        return self._changed_ns == self._last.t_ns

    def moved(self, position_um: int, t_ns: int) -> None:
        last, now = self._last, Reading(position_um, t_ns)
        if not self._readings:
            self._changed_ns = t_ns
        elif t_ns <= last.t_ns:
            return
        else:
            self._check(last, now)
        self._readings.append(now)
        self._last = now
        self._rate = max(0.0, _rate(self._readings[-min(FRESH, len(self._readings))], now))
        if position_um != last.position_um and len(self._readings) > 1:
            self._changed_ns = t_ns
            self.pace_um_ns = max(self._rate, self.pace_um_ns * FORGET)
            if self._asked_ns is not None and t_ns <= self._asked_ns + self._silence_ns:
                self._asked_ns = None

    def came(self, trigger: Trigger) -> Reach | None:
        if not self._readings:
            return None
        if trigger.t_ns > self._changed_ns + self._silence_ns and self._asked_ns is None:
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
        position_um, last_ns = self._last
        age_ns = t_ns - last_ns
        carried_um = int(self._rate * min(age_ns, GRACE_NS)) if age_ns > 0 else 0
        unseen_ns = t_ns - self._changed_ns
        doubt_um = 0
        if unseen_ns > GRACE_NS:
            doubt_um = int((min(unseen_ns, self._silence_ns) - GRACE_NS) * self._doubted_rate)
        # subtle: of a reading that is not followed by another in time, nothing is sure but itself
        low_um = position_um + carried_um if age_ns <= GRACE_NS else position_um
        return Reach(low_um, position_um + carried_um + doubt_um)

    def legs(self, t_ns: int) -> Sequence[Leg]:
        """It changes where a reading is carried on no longer, where doubt begins, and where it ends."""
        if not self._readings:
            return (Leg(t_ns, Reach(0, 0), 0.0, 0.0),)
        carried_ns, doubt_ns = self._last.t_ns + GRACE_NS, self._changed_ns + GRACE_NS
        bounds = {carried_ns + 1, doubt_ns, self._changed_ns + self._silence_ns}
        legs = []
        for begin_ns in (t_ns, *sorted(bound for bound in bounds if bound > t_ns)):
            carried = self._rate if begin_ns <= carried_ns else 0.0
            is_doubted = doubt_ns <= begin_ns < self._changed_ns + self._silence_ns
            doubted = self._doubted_rate if is_doubted else 0.0
            legs.append(Leg(begin_ns, self.reach(begin_ns), carried, carried + doubted))
        return legs

    def is_moving(self, t_ns: int) -> bool:
        return len(self._readings) > 1 and t_ns <= self._changed_ns + self._silence_ns

    def trouble(self, t_ns: int) -> str:
        if not self._readings:
            return "nothing is heard of the belt's encoder: check its cable, or correct [motion] by"
        if self._asked_ns is not None and t_ns > self._asked_ns + self._silence_ns:
            self._asked_ns = None
            self._doubt("parts come while the belt's encoder stands: check its cable")
        if t_ns > self._last.t_ns + 2 * self._silence_ns:
            return "the belt's encoder is silent: check its cable"
        return self._contradiction

    @property
    def _doubted_rate(self) -> float:
        return max(self._speed, self.pace_um_ns)

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
            carried_um = int(self._rate * way_ns)
            low_um = before.position_um + (carried_um if way_ns <= GRACE_NS else 0)
            return Reach(low_um, before.position_um + carried_um)
        share = way_ns / (after.t_ns - before.t_ns)
        position_um = before.position_um + round(share * (after.position_um - before.position_um))
        return Reach(position_um, position_um)


def _rate(first: Reading, last: Reading) -> float:
    return (last.position_um - first.position_um) / max(1, last.t_ns - first.t_ns)
