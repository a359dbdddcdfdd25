"""Where the gate may be open: from the windows of all parts known so far, and from nothing else.

Positions are of the belt, in µm, on a scale that grows as the belt runs; there is no clock here. How far the belt has
come is known from two sides: surely as far as `low`, and at most as far as `high`. Both are the same where the belt is
measured without doubt. A part that is not judged OK keeps the gate closed from where it may reach the window until it
has surely left it; that it has broken the light barrier is enough, its verdict may come later or never.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

MOST_PARTS = 1024  # between light barrier and gate; what comes beyond them closes as one
Key = Hashable


class Reach(NamedTuple):
    """How far the belt has come: surely to `low`, at most to `high`. A tuple, for it is made many times a turn."""

    low: int
    high: int


@dataclass(eq=False)
class Part:
    key: Key
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

    @property
    def begins(self) -> int:
        return self.edges[0]

    @property
    def ends(self) -> int:
        return self.edges[-1]

    def opens_at(self, high: int) -> bool:
        return bool(self.verdict and self.opens and self.opens[0] <= high < self.opens[1])


class Geometry:
    """The parts between light barrier and gate. What is asked at every turn costs with the parts that are at the gate,
    not with those on their way.

    Example: a part from 100 to 180 µm, and one too close behind it.

    >>> gate = Geometry()
    >>> gate.expect("good", Reach(100, 100), 80, opens=True)
    >>> gate.expect("bad", Reach(150, 150), 80, opens=True)
    >>> gate.judge("good", is_ok=True)
    >>> [gate.is_open(Reach(x, x)) for x in (99, 100, 149, 150, 179)]
    [False, True, True, False, False]
    """

    def __init__(self) -> None:
        self._parts: dict[Key, Part] = {}
        self._queue: list[Part] = []  # the same, by where they begin
        self._crowd: list[Part] = []  # those beyond MOST_PARTS, as one that is never judged
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
        part = Part(key, start.high, start.low + length, (start.high, start.high + length) if opens else None)
        if len(self._parts) < MOST_PARTS:
            self._parts[key] = part
            self._line_up(part)
        else:
            self._crowd = [_join(*self._crowd, part)]

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
            self._queue.remove(part)
            self._line_up(part)

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
        for part in chain(self._crowd, self._begun_by(high)):
            if not part.verdict:
                if part.enters <= high and low < part.leaves:
                    return False
            elif part.opens and part.opens[0] <= high < part.opens[1]:
                opens = True
        return opens

    def who(self, high: int) -> Key | None:
        """The last part to come whose window is here, and for which the gate would open."""
        return next((part.key for part in reversed(list(self._begun_by(high))) if part.opens_at(high)), None)

    def next_change(self, position_um: int) -> int | None:
        """The nearest place beyond `position_um` at which the answer may change, or a part's middle goes by."""
        nearest = None
        for part in chain(self._crowd, self._queue):
            if nearest is not None and part.begins >= nearest:
                break
            if part.ends > position_um:
                edge = next(edge for edge in part.edges if edge > position_um)
                nearest = edge if nearest is None else min(edge, nearest)
        return nearest

    def changes(self, from_um: int, until_um: int) -> set[int]:
        """All such places from there to there."""
        return {
            edge
            for part in chain(self._crowd, self._begun_by(until_um))
            if from_um <= part.ends
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
        for part in self._begun_by(at.low):
            if part.opens and not part.passed and _middle(part.opens) <= at.low:
                part.passed = True
                middle = _middle(part.opens)
                is_open = was_trusted and self.is_open(Reach(middle, middle))
                self.good_stopped += bool(part.verdict) and not is_open
            if part.ends <= at.low:
                gone.append(part)
        self._forget(gone, at)

    def _forget(self, gone: list[Part], at: Reach) -> None:
        for part in gone:
            del self._parts[part.key]
            self._queue.remove(part)
            self.good_stopped += bool(part.verdict) and not part.passed  # it was never seen to arrive
        self._crowd = [crowd for crowd in self._crowd if crowd.leaves > at.low]

    def _line_up(self, part: Part) -> None:
        insort(self._queue, part, key=lambda other: other.begins)

    def _begun_by(self, position_um: int) -> Iterator[Part]:
        for part in self._queue:
            if part.begins > position_um:
                return
            yield part


def _join(*parts: Part) -> Part:
    return Part(None, min(part.enters for part in parts), max(part.leaves for part in parts), None)


def _middle(span: tuple[int, int]) -> int:
    return (span[0] + span[1]) // 2
