"""What the line's state is: everything that has something to complain about is asked, and the worst counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from protocol.reports import CONDITIONS, LineCondition

MAX_REASON = 400  # characters, for all reasons together


@dataclass(frozen=True)
class Complaint:
    """subtle: the reason is part of the retained state, so it must not change while the matter is the same: no
    counts, no times that run.
    """

    state: Literal["running", "idle", "degraded", "alarm", "stopped"]  # running: worth saying, and nothing more
    reason: str  # what is wrong and what to do about it, in one line


Complains = Callable[[], Complaint | None]
"""Asked at each turn of the line's loop, by its thread: it must not block."""


def judge(complaints: Iterable[Complaint]) -> tuple[LineCondition, str]:
    """The worst state, and all reasons, the worst first; `running` without any."""
    ordered = sorted(complaints, key=lambda complaint: -CONDITIONS.index(complaint.state))
    if not ordered:
        return "running", ""
    reasons = "; ".join(dict.fromkeys(" ".join(complaint.reason.split()) for complaint in ordered))
    return ordered[0].state, reasons if len(reasons) <= MAX_REASON else reasons[: MAX_REASON - 1] + "…"
