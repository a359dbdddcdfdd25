"""Says of each moment whether the gate may be open: geometry, motion and what the source has told, in one.

Without a clock and without a thread: the drivers in `gate.py` and `timer_gate.py` pass the times, and move what moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from board.gate.barriers import Barriers
from board.gate.encoder import Encoder
from board.gate.geometry import Geometry, Reach
from board.gate.motion import Clock, Leg, Motion, MotionSettings, Origin, time_of
from board.gate.settings import GateSettings
from board.gate.view import View
from protocol.messages import MAX_T_NS, Trigger
from protocol.units import UM_PER_MM

LOOK_NS = 250_000_000  # at the latest so long after a look comes the next one
LOOK_AT_BELT_NS = 20_000_000  # while the gate is open, and the belt's motion can give out
EVEN_UM = 1000  # by which a belt may be farther than foreseen, before somebody looks
FORESEEN_NS = 97_000_000  # of such a belt; half a window is seldom just as long
LINE_UM = 1000  # a part whose middle is farther behind the gate's line has passed it
Mode = Literal["triggered", "free-running"]


@dataclass(frozen=True)
class Opening:
    """A stretch of time, in ns, or of the belt, in µm."""

    start: int
    end: int
    is_whole: bool  # it does not grow with what is told later


def choose_motion(motion: MotionSettings, mode: Mode) -> Origin:
    """What [motion] by says, or what nobody has to set up."""
    return motion.by or ("view" if mode == "free-running" else "nothing")


class Keeper:
    def __init__(
        self, settings: GateSettings, belt_speed_mm_s: float, motion: MotionSettings, mode: Mode = "triggered"
    ) -> None:
        self._settings, self._speed_mm_s = settings, belt_speed_mm_s
        self._lead_ns = int(settings.lead_ms * 1e6)
        self._start_um = int((settings.distance_mm - settings.window_mm / 2) * UM_PER_MM)
        self._window_um = int(settings.window_mm * UM_PER_MM)
        self.origin = choose_motion(motion, mode)
        self._motion = self._open_motion(motion)
        self._is_measured = not isinstance(self._motion, Clock)
        self._barriers = self._open_barriers(motion) if self.origin == "barriers" else None
        self._geometry = Geometry()
        self._seen_until_ns: int | None = None
        self._horizon: int | None = None  # so far on the belt everybody has been told
        self._doubts = 0
        self.is_waiting = True  # for word that no other part came
        self._is_open = False  # at the last look
        self._next_look_ns = MAX_T_NS  # as planned then
        self._foreseen = Leg(0, Reach(0, 0), 0.0, 0.0)  # how the belt went on then

    def deadline_ns(self, trigger: Trigger, now_ns: int) -> int:
        """The latest time for this part's verdict, as far as the belt's motion is known now."""
        expected_ns = trigger.t_ns + self._settings.start_ns(self._speed_mm_s)
        place = self._motion.place(trigger.t_ns) if self._is_measured else None
        if trigger.position_um is not None and self.origin == "encoder":
            place = Reach(trigger.position_um, trigger.position_um)
        if place is None:
            return expected_ns
        start_um = place.high + self._start_um - self.lead_um
        if start_um <= self._motion.reach(now_ns).high:
            return now_ns - 1
        return time_of(self._motion.legs(now_ns), start_um) or expected_ns

    def expect(self, trigger: Trigger, now_ns: int) -> bool:
        """True if the gate has to be looked at for it, before the next look that is planned."""
        key = (trigger.run, trigger.part_id, trigger.t_ns)
        if key in self._geometry:
            return False
        place = self._motion.came(trigger)
        if self._barriers:
            self._barriers.came(key, trigger.t_ns)
        if place is None:
            self._expect_anywhere(key, now_ns)
            return True
        start = Reach(place.low + self._start_um, place.high + self._start_um)
        self._geometry.expect(key, start, self._window_um, opens=not self._barriers)
        return self._is_measured or start.high <= self._reach(self._next_look_ns).high

    def judge(self, trigger: Trigger, now_ns: int, *, is_ok: bool) -> bool:
        """A verdict that comes when the part may be in its window already is none. True if the next look was planned
        without it.
        """
        key = (trigger.run, trigger.part_id, trigger.t_ns)
        is_new = key not in self._geometry
        self.expect(trigger, now_ns)
        is_late = self._geometry.has_begun(key, self._reach(now_ns))
        self._geometry.judge(key, is_ok=is_ok and not is_late)
        return is_new or is_late

    def seen_until(self, t_ns: int, now_ns: int) -> bool:
        """True where the gate has to be looked at for it: somebody waits to be let through, or is overdue."""
        self._seen_until_ns = max(t_ns, self._seen_until_ns or 0)
        self._horizon = None
        overdue_ns = self._barriers.next_overdue_ns() if self._barriers else None
        if overdue_ns is not None and overdue_ns <= t_ns:
            return True
        return self.is_waiting and self._geometry.who(self._reach(now_ns).high) is not None

    def moved(self, position_um: int, t_ns: int) -> bool:
        """True where the gate has to be looked at for it: the belt is not as it was foreseen."""
        self._motion.moved(position_um, t_ns)
        self._horizon = None
        if self.is_waiting or self._motion.is_surprising:
            return self._motion.has_advanced or self._motion.doubts != self._doubts
        foreseen = self._foreseen
        return position_um > foreseen.at.high + foreseen.high_rate * (t_ns - foreseen.t_ns) + EVEN_UM

    def at_gate(self, t_ns: int) -> None:
        """subtle: a part beyond the second barrier may be anywhere, should the belt stop. Who comes behind one that is
        not OK, and that has not surely passed the gate's line by now, finds the gate closed.
        """
        arrival = self._barriers.passed(t_ns) if self._barriers else None
        if arrival and all(self._geometry.is_ok(key) for key in arrival.near):
            self._geometry.arrive(arrival.key, self._motion.reach(arrival.t_ns).high, self._window_um)

    def look(self, now_ns: int) -> bool:
        """May the gate be open now? Also counts and forgets what has gone by."""
        if self._barriers:
            self._barriers.look(self._heard_until_ns(now_ns))
        trouble = self.trouble(now_ns)
        self._note_doubts()
        at = self._reach(now_ns)
        self.is_waiting = not (self._is_known(at) and self._motion.is_moving(now_ns))
        is_trusted = not trouble and not self.is_waiting
        self._is_open = is_trusted and self._geometry.is_open(at)
        self._geometry.pass_by(at, was_trusted=is_trusted)
        return self._is_open

    def part_at(self, now_ns: int) -> int:
        """Whom the gate is open for, if it is."""
        key = self._geometry.who(self._reach(now_ns).high)
        return key[1] if isinstance(key, tuple) else -1

    def next_look_ns(self, now_ns: int) -> int:
        legs = self._motion.legs(now_ns)
        self._foreseen = legs[0]
        latest_ns = now_ns + (LOOK_AT_BELT_NS if self._is_measured and self._is_open else LOOK_NS)
        foreseen_ns = [legs[-1].t_ns] if legs[-1].t_ns > now_ns else []
        ends = self._ends_of_knowledge(legs)
        self._next_look_ns = min([latest_ns, self._next_change_ns(legs), *foreseen_ns, *ends])
        return self._next_look_ns

    def open_until_ns(self, now_ns: int) -> int:
        """How long it may stay open as it is, if nothing new is told; for `LOOK_NS` at most."""
        latest_ns = now_ns + (FORESEEN_NS if self._is_measured else LOOK_NS)
        opening = next(iter(self.openings(now_ns, latest_ns)), None)
        return opening.end if opening and opening.start == now_ns else now_ns

    def openings(self, now_ns: int, until_ns: int) -> list[Opening]:
        """When it may be open from now on, if nothing new is told."""
        if self._is_measured:
            until_ns = min(until_ns, now_ns + FORESEEN_NS)
        legs = self._motion.legs(now_ns)
        until_ns = min([until_ns, *self._ends_of_knowledge(legs)])
        found: list[Opening] = []
        if until_ns <= now_ns or self.trouble(now_ns):
            return found
        changes = {time_ns for time_ns in self._changes_ns(legs, until_ns) if now_ns < time_ns < until_ns}
        for start_ns, end_ns in pairwise([now_ns, *sorted(changes), until_ns]):
            if self._may_be_open(start_ns):
                begins_ns = found.pop().start if found and found[-1].end == start_ns else start_ns
                found.append(Opening(begins_ns, end_ns, end_ns < until_ns and not self._is_measured))
        return found

    def stretches(self, now_ns: int) -> list[Opening]:
        """Where on the belt it may be open from here on, by the encoder's positions, if nothing new is told."""
        at, horizon_um = self._reach(now_ns), self._horizon_um()
        found: list[Opening] = []
        if horizon_um is None or self.trouble(now_ns) or not self._motion.is_moving(now_ns):
            return found
        doubt_um, lead_um = at.high - at.low, self.lead_um
        changes = self._geometry.changes(at.low, horizon_um)
        places = {um for um in (*changes, *(um + doubt_um for um in changes)) if at.high < um < horizon_um}
        for start_um, end_um in pairwise([at.high, *sorted(places), horizon_um]):
            if start_um < end_um and self._geometry.is_open(Reach(start_um - doubt_um, start_um)):
                start, end = start_um - doubt_um - lead_um, end_um - doubt_um - lead_um
                begins = found.pop().start if found and found[-1].end == start else start
                found.append(Opening(begins, end, end_um < horizon_um))
        return found

    def middles(self) -> list[int]:
        """Where on the belt a gate that closes for a moment would stop a part, as far as it is to be told ahead."""
        return [middle_um - self.lead_um for middle_um in self._geometry.middles()]

    @property
    def pace_um_ns(self) -> float:
        return self._motion.pace_um_ns

    def trouble(self, now_ns: int) -> str:
        """What is wrong with the belt, in one line; empty if nothing is."""
        return self._motion.trouble(now_ns) or (self._barriers.trouble() if self._barriers else "")

    @property
    def speed_mm_s(self) -> float | None:
        return self._barriers.speed_mm_s if self._barriers else self._motion.speed_mm_s

    @property
    def good_stopped(self) -> int:
        return self._geometry.good_stopped

    @property
    def lead_um(self) -> int:
        """The belt's way while the gate moves."""
        return int(self._lead_ns * self._motion.pace_um_ns)

    def _open_motion(self, motion: MotionSettings) -> Motion:
        clear_um = self._start_um + self._window_um
        if self.origin == "encoder":
            return Encoder(motion, self._speed_mm_s, clear_um)
        if self.origin == "view":
            return View(motion, self._speed_mm_s, clear_um, carried_um=self._window_um // 2 - LINE_UM)
        return Clock(self._speed_mm_s)

    def _open_barriers(self, motion: MotionSettings) -> Barriers:
        return Barriers(motion, self._speed_mm_s, self._start_um, line_um=self._window_um // 2 + LINE_UM)

    def _note_doubts(self) -> None:
        doubts = self._motion.doubts + (self._barriers.doubts if self._barriers else 0)
        if doubts != self._doubts:
            self._doubts = doubts
            self._geometry.condemn_all()

    def _heard_until_ns(self, now_ns: int) -> int:
        """subtle: a passage is not overdue while the message of it may be on its way."""
        return now_ns if self._seen_until_ns is None else min(now_ns, self._seen_until_ns)

    def _reach(self, t_ns: int) -> Reach:
        """Where the belt will be when the gate has moved, if it is told to now."""
        low, high = self._motion.reach(t_ns)
        lead_um = self.lead_um
        return Reach(low + lead_um, high + lead_um)

    def _expect_anywhere(self, key: tuple[str, int, int], now_ns: int) -> None:
        """A part of which nobody knows where it is keeps the gate closed until it has surely left."""
        low_um = self._motion.reach(now_ns).low
        self._geometry.expect(key, Reach(low_um + self._start_um, low_um), self._window_um, opens=False)
        self._geometry.judge(key, is_ok=False)

    def _may_be_open(self, t_ns: int) -> bool:
        at = self._reach(t_ns)
        return self._is_known(at) and self._motion.is_moving(t_ns) and self._geometry.is_open(at)

    def _is_known(self, at: Reach) -> bool:
        """Whoever could be in the window by then has been told."""
        horizon_um = self._horizon_um()
        return horizon_um is not None and at.high < horizon_um

    def _horizon_um(self) -> int | None:
        """Kept until something is told of it: it is asked for several times a turn."""
        if self._horizon is None and self._seen_until_ns is not None:
            place = self._motion.place(self._seen_until_ns)
            self._horizon = place.low + self._start_um if place else None
        return self._horizon

    def _next_change_ns(self, legs: Sequence[Leg]) -> int:
        """subtle: never now, or nobody would get on."""
        now_ns, (low_um, high_um), *_ = legs[0]
        lead_um = self.lead_um
        change_um = self._geometry.next_change(high_um + lead_um)
        found_ns = None if change_um is None else time_of(legs, change_um - lead_um)
        if low_um < high_um:
            left_um = self._geometry.next_change(low_um + lead_um)
            left_ns = None if left_um is None else time_of(legs, left_um - lead_um, low=True)
            found_ns = left_ns if found_ns is None or (left_ns is not None and left_ns < found_ns) else found_ns
        return MAX_T_NS if found_ns is None else max(now_ns + 1, found_ns)

    def _changes_ns(self, legs: Sequence[Leg], until_ns: int) -> Iterator[int]:
        """When the answer may change."""
        (low_um, high_um), lead_um = legs[0].at, self.lead_um
        last_um = self._motion.reach(until_ns).high
        for change_um in self._geometry.changes(low_um + lead_um, last_um + lead_um):
            for low in (False, True) if low_um < high_um else (False,):
                time_ns = time_of(legs, change_um - lead_um, low=low)
                if time_ns is not None:
                    yield time_ns
        yield from (leg.t_ns for leg in legs)

    def _ends_of_knowledge(self, legs: Sequence[Leg]) -> list[int]:
        """Times from now on at which the gate closes unless something is told before."""
        horizon_um = self._horizon_um()
        ends = [] if horizon_um is None else [time_of(legs, horizon_um - self.lead_um)]
        overdue_ns = self._barriers.next_overdue_ns() if self._barriers else None
        return [end for end in (*ends, overdue_ns) if end is not None and end > legs[0].t_ns]
