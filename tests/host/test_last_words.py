"""A program that cannot go on says why, and ends with a code that has it started again."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from host.last_words import LastWords
from protocol.supervision import Trouble

ENDED = Trouble("writer", "ended: KeyError: 'x'", is_needed=True, has_ended=True)
SILENT = Trouble("writer", "silent for more than 2 s", is_needed=True, has_ended=False)
UNNEEDED = Trouble("tap reader", "ended: KeyError: 'x'", is_needed=False, has_ended=True)


@dataclass
class Program:
    now_s: float = 100.0
    said: list[str] = field(default_factory=list)
    ends: int = 0
    left: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.words = LastWords(self.said.append, self._end, now_s=lambda: self.now_s, leave=self.left.append)

    def _end(self) -> None:
        self.ends += 1

    def look(self, trouble: Trouble | None, for_s: float) -> None:
        end_s = self.now_s + for_s
        while self.now_s < end_s:
            self.words.act(trouble)
            self.now_s += 0.5
        self.words.act(trouble)


@pytest.mark.parametrize(("trouble", "patience_s"), [(ENDED, 5.0), (SILENT, 30.0)])
def test_it_is_shown_for_a_while_and_ends(trouble: Trouble, patience_s: float) -> None:
    program = Program()
    program.look(trouble, patience_s - 1)
    assert program.said == [str(trouble)]
    assert (program.ends, program.words.exit_code) == (0, 0)
    program.look(trouble, 1)
    assert program.ends > 0
    assert program.words.exit_code == 1
    assert program.left == []


def test_an_orderly_end_that_does_not_come_is_not_waited_for() -> None:
    program = Program()
    program.look(ENDED, 15)
    assert program.left == [1]


def test_who_comes_back_in_time_ends_nothing() -> None:
    program = Program()
    program.look(SILENT, 29)
    program.look(None, 100)
    program.look(SILENT, 29)
    assert (program.ends, program.words.exit_code) == (0, 0)
    assert program.said == [str(SILENT), "all threads are at work again", str(SILENT)]


def test_what_is_not_needed_is_said_and_no_more() -> None:
    program = Program()
    program.look(UNNEEDED, 1000)
    assert program.said == [str(UNNEEDED)]
    assert (program.ends, program.words.exit_code) == (0, 0)
