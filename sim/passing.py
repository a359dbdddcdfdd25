"""What met the gate open and what met it closed: its own record against the belt's true positions.

A part crosses when its centre passes the gate's line, which here is 2 mm wide, so that a part on which the belt stops
has a time too. A part that is not OK crossed an open gate if the gate stood open at any moment of that; one that is OK
was stopped if the gate stood closed at any moment of it. A part without a verdict counts as UNKNOWN.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import InputError
from protocol.messages import Decision, Verdict
from sim.motion import BeltMotion

LINE_MM = 2.0
DECISIONS: tuple[Decision, ...] = ("OK", "REJECT", "UNKNOWN")


@dataclass(frozen=True)
class Span:
    """A stretch of time, both ends in it."""

    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Passing:
    crossed_open: dict[Decision, int]
    good_stopped: int  # judged OK, and met a closed gate
    wrongly: tuple[int, ...]  # parts that are not OK and crossed

    @property
    def is_safe(self) -> bool:
        return not self.wrongly


def decide_parts(verdicts: Sequence[Verdict]) -> dict[int, Decision]:
    """Of a part that has several verdicts, one that is not OK counts."""
    decisions: dict[int, Decision] = {}
    for verdict in verdicts:
        if decisions.get(verdict.part_id, "OK") == "OK":
            decisions[verdict.part_id] = verdict.decision
    return decisions


def judge_passing(
    open_spans: Sequence[Span], crossings: Mapping[int, Span], decisions: Mapping[int, Decision]
) -> Passing:
    """`crossings` maps each part to when its centre was at the gate's line, `decisions` to what was decided of it."""
    crossed: Counter[Decision] = Counter()
    wrongly, stopped = [], 0
    for part_id, crossing in crossings.items():
        decision = decisions.get(part_id, "UNKNOWN")
        was_open = any(span.start_ns <= crossing.end_ns and crossing.start_ns <= span.end_ns for span in open_spans)
        was_closed = not any(
            span.start_ns <= crossing.start_ns and crossing.end_ns <= span.end_ns for span in open_spans
        )
        crossed[decision] += was_open
        if decision == "OK":
            stopped += was_closed
        elif was_open:
            wrongly.append(part_id)
    return Passing({decision: crossed[decision] for decision in DECISIONS}, stopped, tuple(wrongly))


def find_crossings(motion: BeltMotion, centres_mm: Sequence[float], gate_mm: float, started_ns: int) -> dict[int, Span]:
    """When each part is at the gate's line, `gate_mm` behind where its centre is at `centres_mm` of the belt's way."""

    def span(at_mm: float) -> Span:
        enters_s, leaves_s = motion.time_s(at_mm - LINE_MM / 2), motion.left_s(at_mm + LINE_MM / 2)
        return Span(started_ns + int(enters_s * 1e9), started_ns + int(leaves_s * 1e9))

    return {number: span(centre_mm + gate_mm) for number, centre_mm in enumerate(centres_mm)}


def read_gate_log(path: Path) -> list[Span]:
    """When the dry gate stood open. Raises: InputError if there is no such record."""
    try:
        return list(_open_spans(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the gate's record {path} cannot be read ({error}): what crossed is not known") from None


def _open_spans(lines: Sequence[str]) -> Iterator[Span]:
    """A gate that never closed again stays open for good."""
    since_ns: int | None = None
    for line in lines:
        move = json.loads(line)
        if move["open"] and since_ns is None:
            since_ns = int(move["t_ns"])
        elif not move["open"] and since_ns is not None:
            yield Span(since_ns, int(move["t_ns"]))
            since_ns = None
    if since_ns is not None:
        yield Span(since_ns, 2**63)
