"""Where the gate may be open: from the windows of all parts known so far, and from nothing else.

Positions are of the belt, in µm, on a scale that grows as the belt runs; there is no clock here. How far the belt has
come is known from two sides: surely as far as `low`, and at most as far as `high`. Both are the same where the belt is
measured without doubt. A part that is not judged OK keeps the gate closed from where it may reach the window until it
has surely left it; that it has broken the light barrier is enough, its verdict may come later or never.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

MOST_PARTS = 1024  # between light barrier and gate; what comes beyond them closes as one
Key = Hashable


class Reach(NamedTuple):
    """How far the belt has come: surely to `low`, at most to `high`. A tuple, for it is made many times a turn."""

    low: int
    high: int


@dataclass
class Part:
    enters: int  # once `high` is here, it may be in its window
    leaves: int  # once `low` is here, it has surely left
    opens: tuple[int, int] | None  # for these values of `high` the gate opens for it, once it is OK
    verdict: bool | None = None  # None while it is not judged
    passed: bool = False  # its middle has gone by, and was counted
    edges: tuple[int, ...] = ()  # where something changes; the last one is its end

    def __post_init__(self) -> None:
        self.measure()

    def measure(self) -> None:
        edges = (self.enters, self.leaves)
        self.edges = tuple(sorted((*edges, *self.opens, _middle(self.opens)) if self.opens else edges))

    def opens_at(self, high: int) -> bool:
        return bool(self.verdict and self.opens and self.opens[0] <= high < self.opens[1])


class Geometry:
    """The parts between light barrier and gate. Example: a part from 100 to 180 µm, and one too close behind it.

    >>> gate = Geometry()
    >>> gate.expect("good", Reach(100, 100), 80, opens=True)
    >>> gate.expect("bad", Reach(150, 150), 80, opens=True)
    >>> gate.judge("good", is_ok=True)
    >>> [gate.is_open(Reach(x, x)) for x in (99, 100, 149, 150, 179)]
    [False, True, True, False, False]
    """

    def __init__(self) -> None:
        self._parts: dict[Key, Part] = {}
        self._crowd: Part | None = None  # those beyond MOST_PARTS, as one that is never judged
        self.parts = 0  # so far
        self.good_stopped = 0  # parts that were OK, and whose middle met the closed gate

    def __contains__(self, key: Key) -> bool:
        return key in self._parts

    def is_ok(self, key: Key) -> bool:
        return key in self._parts and self._parts[key].verdict is True

    def expect(self, key: Key, start: Reach, length: int, *, opens: bool) -> None:
        """A part whose window begins where the belt is at `start`, and is so long; told again, it stays as it is.

        With `opens` the gate opens for it there once it is OK; without, `arrive` has to say where.
        """
        if key in self._parts:
            return
        self.parts += 1
        part = Part(start.high, start.low + length, (start.high, start.high + length) if opens else None)
        if len(self._parts) < MOST_PARTS:
            self._parts[key] = part
        else:
            self._crowd = _join(self._crowd, part)

    def judge(self, key: Key, *, is_ok: bool) -> None:
        """The first verdict holds, and one that is not OK overrules."""
        part = self._parts.get(key)
        if part and (part.verdict is None or not is_ok):
            part.verdict = is_ok

    def arrive(self, key: Key, at: int, length: int) -> None:
        """The part was seen at the beginning of its window: from here on the gate opens for it if it is OK."""
        part = self._parts.get(key)
        if part:
            part.opens = (at, at + length)
            part.enters, part.leaves = min(part.enters, at), max(part.leaves, at + length)
            part.measure()

    def condemn_all(self) -> None:
        """Nothing that is on the way now may pass: where it is has become uncertain."""
        for part in self._parts.values():
            part.verdict = False

    def has_begun(self, key: Key, at: Reach) -> bool:
        """Too late for a verdict: the part may be in its window."""
        return key in self._parts and self._parts[key].enters <= at.high

    def is_open(self, at: Reach) -> bool:
        """May the gate be open? Not the word on parts that nobody has told of."""
        low, high = at
        opens = False
        for part in self._all():  # subtle: in one plain loop, for it runs at every turn
            if not part.verdict:
                if part.enters <= high and low < part.leaves:
                    return False
            elif part.opens and part.opens[0] <= high < part.opens[1]:
                opens = True
        return opens

    def who(self, high: int) -> Key | None:
        """The last part to come whose window is here, and for which the gate would open."""
        return next((key for key, part in reversed(self._parts.items()) if part.opens_at(high)), None)

    def next_change(self, position_um: int) -> int | None:
        """The nearest place beyond `position_um` at which the answer may change, or a part's middle goes by."""
        nearest = None
        for part in self._all():
            if part.edges[-1] > position_um:
                edge = next(edge for edge in part.edges if edge > position_um)
                if nearest is None or edge < nearest:
                    nearest = edge
        return nearest

    def changes(self, from_um: int, until_um: int) -> set[int]:
        """All such places from there to there."""
        return {
            edge
            for part in self._all()
            if part.edges[0] <= until_um and from_um <= part.edges[-1]
            for edge in part.edges
            if from_um <= edge <= until_um
        }

    def middles(self) -> list[int]:
        """Where each part meets the gate, if it is known."""
        return [_middle(part.opens) for part in self._parts.values() if part.opens]

    def pass_by(self, at: Reach, *, was_trusted: bool) -> None:
        """Count the good parts that have met the gate, and forget what has left it.

        `was_trusted`: but for the parts themselves, nothing kept the gate closed.
        """
        gone = []
        for key, part in self._parts.items():
            if part.edges[0] > at.low:
                continue
            if part.opens and not part.passed and _middle(part.opens) <= at.low:
                part.passed = True
                middle = _middle(part.opens)
                is_open = was_trusted and self.is_open(Reach(middle, middle))
                self.good_stopped += bool(part.verdict) and not is_open
            if part.edges[-1] <= at.low:
                gone.append(key)
        self._forget(gone, at)

    def _forget(self, gone: list[Key], at: Reach) -> None:
        for key in gone:
            part = self._parts.pop(key)
            self.good_stopped += bool(part.verdict) and not part.passed  # it was never seen to arrive
        if self._crowd and self._crowd.leaves <= at.low:
            self._crowd = None

    def _all(self) -> Iterator[Part]:
        yield from self._parts.values()
        if self._crowd:
            yield self._crowd


def _join(crowd: Part | None, part: Part) -> Part:
    if crowd is None:
        return Part(part.enters, part.leaves, None)
    return Part(min(crowd.enters, part.enters), max(crowd.leaves, part.leaves), None)


def _middle(span: tuple[int, int]) -> int:
    return (span[0] + span[1]) // 2
