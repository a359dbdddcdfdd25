"""Which good parts have to meet a closed gate: from the belt's true positions, and from what can be known in time.

Written before the gate is asked, and without its code. A good part is stopped by force when, at the moment at which the
gate has to be told for it (its middle is at the gate's line, less the gate's own reaction), one of these holds.

overlap      The window of a part that is not OK (rejected, unknown, or without a verdict) covers that moment. Windows
             are as wide as configured, and wider by what the sensors cannot tell: with an encoder two of its counts,
             with a view the same and what the belt's wrong speed makes of the age of the last view. In time (nothing,
             barriers) a window lies where the part's time at either barrier puts it. Behind a part that is not OK and
             may not have cleared the gate's line (2 mm wide) when the next one was timed, nobody can be let through:
             the belt is not measured any more there. A stop within the tolerance may lie before or after that.
speed        Two barriers: the part's own way took longer or shorter than the tolerance allows; or another part's did,
             which was on the belt together with it: nobody can tell then who is who, and such a part's window closes
             as that of one that is not OK. A part that stands behind the second barrier for longer than its window
             lasts in time is stopped. View:
             over the last half second the belt's speed was wrong by more than the tolerance, or has been since the
             belt's whole length to the gate last moved by.
standstill   Encoder: the belt had stood, and by that moment no reading could have told that it runs again.

The tolerance is taken 3 % narrower, since a speed just at it may be judged either way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from board.gate.motion import MotionSettings
from tests.survival.crossed_belt import NS, SETTINGS, SPEED_MM_S, UM_PER_COUNT, VIEW_NS, CrossedBelt, Ints

Bools = NDArray[np.bool_]
NEIGHBOURS = 12  # on either side; the nearest are 20 mm apart
LINE_MM = 2.0
LEAD_NS = int(SETTINGS.lead_ms * 1e6)
HALF_MM = SETTINGS.window_mm / 2
TOLERANCE = 0.05 * 0.97  # what is promised of the gate, whatever its own default is
MEASURED_NS = NS // 2
PROGRAMMED_NS = 500_000  # it takes to program the timer


def find_forced(belt: CrossedBelt) -> Bools:
    """Of all parts; those that are not good are none of them."""
    if belt.by == "barriers":
        untimed = _untimed(belt)
        found = _overlaps(belt, ~belt.is_good | untimed) | untimed | _unmeasured(belt)
        return found & belt.is_good
    found = _overlaps(belt, ~belt.is_good)
    if belt.by == "view":
        found |= _mistaken(belt)
    elif belt.by == "encoder":
        found |= _restarted(belt)
    return found & belt.is_good


def ordered_ns(belt: CrossedBelt) -> Ints:
    """When the gate has to be told for each part."""
    return belt.times_ns(belt.ways_mm + SETTINGS.distance_mm) - LEAD_NS


def _overlaps(belt: CrossedBelt, closes: Bools) -> Bools:
    found = np.zeros(len(belt.ways_mm), bool)
    for step in (*range(-NEIGHBOURS, 0), *range(1, NEIGHBOURS + 1)):
        here = slice(max(0, -step), min(len(found), len(found) - step))
        other = slice(max(0, step), min(len(found), len(found) + step))
        found[here] |= closes[other] & _covers(belt, other, here)
    return found


def _covers(belt: CrossedBelt, other: slice, here: slice) -> Bools:
    """Is the window of the other one where this one's gate is ordered?"""
    ahead_mm = belt.ways_mm[here] - belt.ways_mm[other]
    if belt.by in ("encoder", "view"):
        wrong_mm_s = abs(belt.motion.speed_mm_s - SPEED_MM_S) if belt.by == "view" else 0.0
        doubt_mm = 2 * UM_PER_COUNT / 1000 + wrong_mm_s * 3 * VIEW_NS / NS
        close: Bools = np.abs(ahead_mm) <= HALF_MM + doubt_mm
        return close
    start_ns, window_ns = SETTINGS.start_ns(SPEED_MM_S), SETTINGS.window_ns(SPEED_MM_S)
    first = last = belt.came_ns[other] + start_ns
    if belt.by == "barriers":
        first = np.minimum(first, belt.passed_ns[other] - LEAD_NS)
        last = np.maximum(last, belt.passed_ns[other] - LEAD_NS)
    ordered = ordered_ns(belt)[here]
    way_s = (SETTINGS.distance_mm - HALF_MM) / belt.motion.speed_mm_s
    stood_mm = ((belt.passed_ns - belt.came_ns)[here] / NS - way_s) * belt.motion.speed_mm_s
    near: Bools = (ahead_mm > 0) & (ahead_mm <= HALF_MM + LINE_MM / 2 + stood_mm) & (belt.by == "barriers")
    covers: Bools = (first <= ordered) & (ordered <= last + window_ns) | near
    return covers


def _untimed(belt: CrossedBelt) -> Bools:
    way_ns = (SETTINGS.distance_mm - HALF_MM) / SPEED_MM_S * NS
    travel_ns = belt.passed_ns - belt.came_ns
    wrong = np.abs(travel_ns - way_ns) > TOLERANCE * way_ns
    due_ns = belt.came_ns + int(way_ns * (1 + TOLERANCE))
    found: Bools = wrong.copy()
    ordered = ordered_ns(belt)
    for seen_ns, passed_ns in zip(np.minimum(due_ns, belt.passed_ns)[wrong], belt.passed_ns[wrong], strict=True):
        found |= (belt.came_ns <= passed_ns) & (ordered >= seen_ns)
    return found


def _unmeasured(belt: CrossedBelt) -> Bools:
    found: Bools = ordered_ns(belt) + LEAD_NS > belt.passed_ns + SETTINGS.window_ns(SPEED_MM_S) - LEAD_NS
    return found


def _mistaken(belt: CrossedBelt) -> Bools:
    times_ns = np.arange(NS, belt.ends_ns, VIEW_NS // 4)
    ways_mm = belt.motion.ways_mm((times_ns - NS) / NS)
    begun_mm = belt.motion.ways_mm(np.maximum(0.0, (times_ns - NS - MEASURED_NS) / NS))
    spans_s = np.minimum(times_ns - NS, MEASURED_NS) / NS
    with np.errstate(invalid="ignore", divide="ignore"):
        wrong = np.abs((ways_mm - begun_mm) / spans_s - SPEED_MM_S) > TOLERANCE * SPEED_MM_S
    crosses_mm = belt.ways_mm + SETTINGS.distance_mm
    clear_mm = SETTINGS.distance_mm + HALF_MM + 2 * VIEW_NS / NS * belt.motion.speed_mm_s
    places_mm = ways_mm[wrong & (spans_s >= MotionSettings().silence_ms / 1e3)]
    before = np.searchsorted(places_mm, crosses_mm, side="right") - 1
    latest_mm = np.where(before >= 0, places_mm[before], -np.inf) if len(places_mm) else np.full(len(before), -np.inf)
    found: Bools = crosses_mm <= latest_mm + clear_mm
    return found


def _restarted(belt: CrossedBelt) -> Bools:
    ordered = ordered_ns(belt) + LEAD_NS
    found = np.zeros(len(ordered), bool)
    count_ns = int(UM_PER_COUNT / 1000 / belt.motion.speed_mm_s * NS)
    untold_ns = count_ns + belt.read_ns + belt.told_ns + LEAD_NS + PROGRAMMED_NS
    for _, end_s in belt.motion.stops_s():
        restarts_ns = NS + int(end_s * NS)
        found |= (restarts_ns <= ordered) & (ordered <= restarts_ns + untold_ns)
    return found
