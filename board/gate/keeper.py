"""Says of each moment whether the gate may be open: geometry, motion and what the source has told, in one.

Without a clock and without a thread: the drivers in `gate.py` and `timer_gate.py` pass the times, and move what moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from board.gate.barriers import Barriers
from board.gate.geometry import Geometry, Reach
from board.gate.motion import Clock, Encoder, Motion, MotionSettings, Origin, View
from board.gate.settings import GateSettings
from protocol.messages import Trigger
from protocol.units import UM_PER_MM

LOOK_NS = 250_000_000  # at the latest so long after a look comes the next one
LOOK_AT_BELT_NS = 20_000_000  # where the belt's motion can give out
FORESEEN_NS = 100_000_000  # of such a belt
STEP_NS = 500_000  # looks at a belt whose motion is estimated are no closer
Mode = Literal["triggered", "free-running"]


@dataclass(frozen=True)
class Opening:
    start_ns: int
    end_ns: int
    is_whole: bool  # it does not grow with what is told later


def choose_motion(motion: MotionSettings, mode: Mode) -> Origin:
    """What [motion] by says, or what nobody has to set up."""
    return motion.by or ("view" if mode == "free-running" else "nothing")


class Keeper:
    def __init__(
        self, settings: GateSettings, belt_speed_mm_s: float, motion: MotionSettings, mode: Mode = "triggered"
    ) -> None:
        self._settings, self._speed_mm_s = settings, belt_speed_mm_s
        self._lead_um = int(settings.lead_ms * belt_speed_mm_s)
        self._start_um = int((settings.distance_mm - settings.window_mm / 2) * UM_PER_MM) - self._lead_um
        self._window_um = int(settings.window_mm * UM_PER_MM)
        self.origin = choose_motion(motion, mode)
        self._motion = self._open_motion(motion)
        way_um = self._start_um + self._lead_um
        self._barriers = Barriers(motion, belt_speed_mm_s, way_um) if self.origin == "barriers" else None
        self._geometry = Geometry()
        self._seen_until_ns: int | None = None
        self._doubts = 0
        self._is_waiting = True  # for word that no other part came

    def deadline_ns(self, trigger: Trigger, now_ns: int) -> int:
        """The latest time for this part's verdict, as far as the belt's motion is known now."""
        if isinstance(self._motion, Clock):
            return trigger.t_ns + self._settings.start_ns(self._speed_mm_s)
        place = self._motion.place(trigger.t_ns)
        if trigger.position_um is not None and self.origin == "encoder":
            place = Reach(trigger.position_um, trigger.position_um)
        if place is None:
            return trigger.t_ns + self._settings.start_ns(self._speed_mm_s)
        start_um = place.high + self._start_um
        return self._motion.time_at(start_um, now_ns) if start_um > self._motion.reach(now_ns).high else now_ns - 1

    def expect(self, trigger: Trigger, now_ns: int) -> None:
        key = (trigger.run, trigger.part_id, trigger.t_ns)
        if key in self._geometry:
            return
        place = self._motion.came(trigger)
        if self._barriers:
            self._barriers.came(key, trigger.t_ns)
        if place is None:
            self._expect_anywhere(key, now_ns)
            return
        start = Reach(place.low + self._start_um, place.high + self._start_um)
        self._geometry.expect(key, start, self._window_um, opens=not self._barriers)

    def judge(self, trigger: Trigger, now_ns: int, *, is_ok: bool) -> bool:
        """A verdict that comes when the part may be in its window already is none. True if the next look was planned
        without it.
        """
        key = (trigger.run, trigger.part_id, trigger.t_ns)
        is_new = key not in self._geometry
        self.expect(trigger, now_ns)
        is_late = self._geometry.has_begun(key, self._motion.reach(now_ns))
        self._geometry.judge(key, is_ok=is_ok and not is_late)
        return is_new or is_late

    def seen_until(self, t_ns: int) -> bool:
        """True where the gate was closed for want of it."""
        self._seen_until_ns = max(t_ns, self._seen_until_ns or 0)
        return self._is_waiting

    def moved(self, position_um: int, t_ns: int) -> None:
        self._motion.moved(position_um, t_ns)

    def at_gate(self, t_ns: int) -> None:
        if self._barriers:
            arrival = self._barriers.passed(t_ns)
            if arrival:
                at_um = self._motion.reach(arrival.t_ns).high - self._lead_um
                self._geometry.arrive(arrival.key, at_um, self._window_um)

    def look(self, now_ns: int) -> bool:
        """May the gate be open now? Also counts and forgets what has gone by."""
        if self._barriers:
            self._barriers.look(self._heard_until_ns(now_ns))
        trouble = self.trouble(now_ns)
        doubts = self._motion.doubts + (self._barriers.doubts if self._barriers else 0)
        if doubts != self._doubts:
            self._doubts = doubts
            self._geometry.condemn_all()
        at = self._motion.reach(now_ns)
        self._is_waiting = not self._is_known(at)
        is_trusted = not trouble and self._motion.is_moving(now_ns) and not self._is_waiting
        is_open = is_trusted and self._geometry.is_open(at)
        self._geometry.pass_by(at, was_trusted=is_trusted)
        return is_open

    def _heard_until_ns(self, now_ns: int) -> int:
        """subtle: a passage is not overdue while the message of it may be on its way."""
        return now_ns if self._seen_until_ns is None else min(now_ns, self._seen_until_ns)

    def part_at(self, now_ns: int) -> int:
        """Whom the gate is open for, if it is."""
        key = self._geometry.who(self._motion.reach(now_ns).high)
        return key[1] if isinstance(key, tuple) else -1

    def next_look_ns(self, now_ns: int) -> int:
        latest_ns = now_ns + (LOOK_NS if isinstance(self._motion, Clock) else LOOK_AT_BELT_NS)
        return min(latest_ns, self._next_change_ns(now_ns, latest_ns))

    def openings(self, now_ns: int, until_ns: int) -> list[Opening]:
        """When it may be open from now on, if nothing new is told."""
        if not isinstance(self._motion, Clock):
            until_ns = min(until_ns, now_ns + FORESEEN_NS)
        until_ns = min([until_ns, *self._ends_of_knowledge(now_ns)])
        found: list[Opening] = []
        at_ns = now_ns
        while at_ns < until_ns:
            next_ns = max(at_ns + 1, self._next_change_ns(at_ns, until_ns))
            if self._may_be_open(at_ns):
                begins = found and found[-1].end_ns == at_ns
                start_ns = found.pop().start_ns if begins else at_ns
                found.append(Opening(start_ns, next_ns, next_ns < until_ns and isinstance(self._motion, Clock)))
            at_ns = next_ns
        return found

    def open_until_ns(self, now_ns: int) -> int:
        """How long it may stay open as it is, if nothing new is told; for `LOOK_NS` at most."""
        latest_ns = now_ns + (LOOK_NS if isinstance(self._motion, Clock) else FORESEEN_NS)
        latest_ns = min([latest_ns, *self._ends_of_knowledge(now_ns)])
        at_ns = now_ns
        while at_ns < latest_ns and self._may_be_open(at_ns):
            at_ns = max(at_ns + 1, self._next_change_ns(at_ns, latest_ns))
        return min(at_ns, latest_ns)

    def trouble(self, now_ns: int) -> str:
        """What is wrong with the belt, in one line; empty if nothing is."""
        return self._motion.trouble(now_ns) or (self._barriers.trouble() if self._barriers else "")

    @property
    def speed_mm_s(self) -> float | None:
        return self._barriers.speed_mm_s if self._barriers else self._motion.speed_mm_s

    @property
    def good_stopped(self) -> int:
        return self._geometry.good_stopped

    def _open_motion(self, motion: MotionSettings) -> Motion:
        clear_um = self._start_um + self._lead_um + self._window_um
        if self.origin == "encoder":
            return Encoder(motion, self._speed_mm_s, clear_um)
        if self.origin == "view":
            return View(motion, self._speed_mm_s, clear_um)
        return Clock(self._speed_mm_s)

    def _expect_anywhere(self, key: tuple[str, int, int], now_ns: int) -> None:
        """A part of which nobody knows where it is keeps the gate closed until it has surely left."""
        low_um = self._motion.reach(now_ns).low
        self._geometry.expect(key, Reach(low_um + self._start_um, low_um), self._window_um, opens=False)
        self._geometry.judge(key, is_ok=False)

    def _may_be_open(self, t_ns: int) -> bool:
        at = self._motion.reach(t_ns)
        if not self._geometry.is_open(at) or not self._is_known(at):
            return False
        return self._motion.is_moving(t_ns) and not self.trouble(t_ns)

    def _is_known(self, at: Reach) -> bool:
        """Whoever could be in the window by now has been told."""
        horizon_um = self._horizon_um()
        return horizon_um is not None and at.high < horizon_um

    def _horizon_um(self) -> int | None:
        place = None if self._seen_until_ns is None else self._motion.place(self._seen_until_ns)
        return place.low + self._start_um if place else None

    def _next_change_ns(self, t_ns: int, latest_ns: int) -> int:
        change_um = self._geometry.next_change(self._motion.reach(t_ns).high)
        change_ns = latest_ns if change_um is None else self._motion.time_at(change_um, t_ns)
        step_ns = 1 if isinstance(self._motion, Clock) else STEP_NS
        return min([max(t_ns + step_ns, change_ns), *self._ends_of_knowledge(t_ns)])

    def _ends_of_knowledge(self, t_ns: int) -> list[int]:
        """Times after `t_ns` at which the gate closes unless something is told before."""
        horizon_um = self._horizon_um()
        ends = [self._motion.time_at(horizon_um, t_ns)] if horizon_um is not None else []
        overdue_ns = self._barriers.next_overdue_ns() if self._barriers else None
        return [end for end in (*ends, overdue_ns) if end is not None and end > t_ns]
