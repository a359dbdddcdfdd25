"""The belt's motion by two light barriers: every part is timed on its way to the second, where its window begins.

Passages belong to parts in the order in which they came. When one does not fit, by a stop, another speed, a part that
was taken off or put on, everything on the way is closed for, until a part that came later has made its way in time.
Where the order itself has become uncertain, it is found again only by a pattern of distances that fits in one way: a
gap between two parts does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from board.gate.geometry import Key
from board.gate.motion import MotionSettings, wrong_speed
from protocol.units import NS_PER_S, UM_PER_MM

PATTERN = 8  # passages that have to fit in one way only
NEAR = 32  # passages back, until which parts may be before the gate's line
KEPT = 256  # parts between the barriers, and a while behind
LOST = "which part is which at the gate is not known any more: leave a gap between two parts"


@dataclass
class Way:
    key: Key
    t_ns: int  # at the first barrier
    overdue: bool = False  # it should have been at the second one, and that was noticed
    passed_ns: int | None = None  # at the second one


@dataclass(frozen=True)
class Arrival:
    """A passage of the second barrier, and whose it is."""

    key: Key
    t_ns: int
    near: tuple[Key, ...] = ()  # those before it that may not have passed the gate's line yet


@dataclass
class Barriers:
    settings: MotionSettings
    belt_speed_mm_s: float
    way_um: int  # between the barriers
    line_um: int = 0  # from the second one, until a part has surely passed the gate's line
    _ways: list[Way] = field(default_factory=list)
    _next: int = 0  # index of the part that passes next
    _passages: deque[int] = field(default_factory=lambda: deque(maxlen=PATTERN))
    _doubt_ns: int | None = None  # when something last did not fit
    _said_mm_s: float = 0.0
    speed_mm_s: float | None = None
    doubts: int = 0  # grows whenever something does not fit

    def __post_init__(self) -> None:
        self._travel_ns = int(self.way_um * NS_PER_S / (self.belt_speed_mm_s * UM_PER_MM))
        self._tolerance_ns = int(self._travel_ns * self.settings.tolerance)

    def came(self, key: Key, t_ns: int) -> None:
        self._ways.append(Way(key, t_ns))
        if len(self._ways) > KEPT:
            del self._ways[0]
            self._next -= 1
            if self._next < 0:  # nobody passes the second barrier
                self._next = 0
                self._doubt(t_ns)

    def passed(self, t_ns: int) -> Arrival | None:
        """Whose passage it is, where that is beyond doubt."""
        if self._next >= len(self._ways) or self._ways[self._next].t_ns >= t_ns:
            self._passages.clear()
            self._doubt(t_ns)  # nobody came who could be here
            return None
        self._passages.append(t_ns)
        way, self._next = self._ways[self._next], self._next + 1
        way.passed_ns = t_ns
        travel_ns = t_ns - way.t_ns
        self.speed_mm_s = round(self.way_um / UM_PER_MM * NS_PER_S / travel_ns, 1)
        if abs(travel_ns - self._travel_ns) > self._tolerance_ns:
            self._doubt(t_ns)
            self._find_order(t_ns)
            return None
        if self._doubt_ns is not None and way.t_ns > self._doubt_ns:
            self._doubt_ns = None
        return Arrival(way.key, t_ns, tuple(self._near(way, t_ns))) if self._doubt_ns is None else None

    def look(self, t_ns: int) -> bool:
        """False from when a part that should have passed has not."""
        for way in self._ways[self._next :]:
            if way.t_ns + self._travel_ns + self._tolerance_ns >= t_ns:
                break
            if not way.overdue:
                way.overdue = True
                self._doubt(way.t_ns + self._travel_ns + self._tolerance_ns)
        return self._doubt_ns is None

    def next_overdue_ns(self) -> int | None:
        waiting = (way for way in self._ways[self._next :] if not way.overdue)
        return next((way.t_ns + self._travel_ns + self._tolerance_ns + 1 for way in waiting), None)

    def trouble(self) -> str:
        if self._doubt_ns is None:
            return ""
        speeds, allowed = self._speeds(self._next), self.settings.tolerance * self.belt_speed_mm_s
        mean = sum(speeds) / max(1, len(speeds))
        if len(speeds) >= 3 and max(speeds) - min(speeds) <= allowed < abs(mean - self.belt_speed_mm_s):
            if abs(mean - self._said_mm_s) > allowed:  # subtle: what is said changes only with the matter
                self._said_mm_s = mean
            return wrong_speed(self._said_mm_s, self.belt_speed_mm_s)
        return "parts do not reach the gate when they should (the belt stopped, or one was taken off): " + LOST

    def _near(self, last: Way, t_ns: int) -> Iterator[Key]:
        """The way of the belt between two passages, less that of all stops that there can have been: no part that is
        in time travels for longer than the quickest of late, but for them.
        """
        behind = [way for way in self._ways[: self._next - 1] if way.passed_ns is not None][-NEAR:]
        travels = [way.passed_ns - way.t_ns for way in (*behind, last) if way.passed_ns is not None]
        quickest_ns = min(travel for travel in travels if travel >= self._travel_ns - self._tolerance_ns)
        stood_ns = t_ns - last.t_ns - quickest_ns
        for way in behind:
            if way.passed_ns is not None:
                run_um = (t_ns - way.passed_ns - stood_ns) * self.way_um // quickest_ns
                if run_um < self.line_um:
                    yield way.key

    def _doubt(self, t_ns: int) -> None:
        self._doubt_ns = max(t_ns, self._doubt_ns or 0)
        self.doubts += 1

    def _find_order(self, t_ns: int) -> None:
        """Another order than the present one, if it alone gives every part the same way, and in the right time."""
        if len(self._passages) < PATTERN or len(self._ways) < PATTERN:
            return
        came_ns = sliding_window_view(np.array([way.t_ns for way in self._ways], np.int64), PATTERN)
        travels_ns = np.array(self._passages, np.int64) - came_ns  # a row for each order; all at once, for speed
        slowest, fastest = travels_ns.max(axis=1), travels_ns.min(axis=1)
        fitting = np.flatnonzero((fastest > 0) & (slowest - fastest <= self._tolerance_ns))
        if len(fitting) != 1:
            return
        end = int(fitting[0]) + PATTERN
        if all(abs(travel - self._travel_ns) <= self._tolerance_ns for travel in self._travels(end)):
            self._next = end
            self._doubt(t_ns)

    def _travels(self, end: int) -> list[int]:
        """Of the last passages, if the last one was that of the part before `end`."""
        passages = list(self._passages)[-end:] if end else []  # subtle: [-0:] is all of them
        ways = self._ways[end - len(passages) : end]
        return [passage - way.t_ns for passage, way in zip(passages, ways, strict=True)]

    def _speeds(self, end: int) -> list[float]:
        travels = [travel for travel in self._travels(end) if travel > 0]
        return [self.way_um / UM_PER_MM * NS_PER_S / travel for travel in travels[-3:]]
