"""What the last parts would have become under another threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PREVIEWED = 500


@dataclass(frozen=True)
class Preview:
    parts: int  # that were looked at: of the running model, and with a score
    rejects_now: int
    rejects_then: int
    to_reject: list[str] = field(default_factory=list)  # keys of parts that passed, and would be rejected
    to_ok: list[str] = field(default_factory=list)  # keys of parts that were rejected, and would pass


def preview_threshold(parts: Sequence[dict[str, Any]], threshold: float) -> Preview:
    """As the line decides: a score at or above the threshold is a reject. UNKNOWN stays UNKNOWN, and is left out."""
    judged = [part for part in parts if part["decision"] != "UNKNOWN" and part["score"] is not None]
    was = [part["decision"] == "REJECT" for part in judged]
    becomes = [part["score"] >= threshold for part in judged]
    pairs = list(zip(judged, was, becomes, strict=True))
    return Preview(
        parts=len(judged),
        rejects_now=sum(was),
        rejects_then=sum(becomes),
        to_reject=[part["key"] for part, before, after in pairs if after and not before],
        to_ok=[part["key"] for part, before, after in pairs if before and not after],
    )
