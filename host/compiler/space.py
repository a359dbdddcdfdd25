"""What is free of the activation memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from board.overlay import isa


class DoesNotFitError(Exception):
    """Nothing that the user sees: another tensor must pass through DDR."""


@dataclass(frozen=True)
class Region:
    start: int
    words: int

    @property
    def end(self) -> int:
        return self.start + self.words

    def overlap(self, other: Region) -> int:
        return max(0, min(self.end, other.end) - max(self.start, other.start))

    def banks(self) -> list[Region]:
        """The whole banks in which it lies: while they are read, writing there costs cycles."""
        first, last = self.start // isa.BANK_WORDS, (self.end - 1) // isa.BANK_WORDS
        return [Region(bank * isa.BANK_WORDS, isa.BANK_WORDS) for bank in range(first, last + 1)]


class Space:
    """What is taken of the activation memory."""

    def __init__(self, words: int, taken: list[Region]) -> None:
        self._words = words
        self._taken = list(taken)

    def used_words(self) -> int:
        return sum(region.words for region in self._taken)

    def take(self, words: int, avoid: list[Region]) -> Region:
        """A free region with the least part in the banks of `avoid`, the lowest of equals.

        Raises: DoesNotFitError.
        """
        banks = {bank.start: bank for region in avoid for bank in region.banks()}.values()
        free = [region for region in self._candidates(words) if not any(region.overlap(one) for one in self._taken)]
        if not free:
            raise DoesNotFitError
        best = min(free, key=lambda region: (sum(region.overlap(bank) for bank in banks), region.start))
        self._taken.append(best)
        return best

    def _candidates(self, words: int) -> Iterator[Region]:
        """At the edges of what is taken and of banks."""
        edges = {bank * isa.BANK_WORDS for bank in range(isa.BANKS + 1)}
        edges |= {edge for region in self._taken for edge in (region.start, region.end)}
        starts = {start for edge in edges for start in (edge, edge - words)}
        return (Region(start, words) for start in starts if 0 <= start <= self._words - words)
