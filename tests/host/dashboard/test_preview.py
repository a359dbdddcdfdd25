"""The preview decides as the line does."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from host.dashboard.preview import preview_threshold

SCORES = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.5]))


def parts_of(scores: list[float | None], threshold: float) -> list[dict[str, Any]]:
    """As a line with this threshold judged them."""

    def decide(score: float | None) -> str:
        if score is None:
            return "UNKNOWN"
        return "REJECT" if score >= threshold else "OK"

    return [{"key": str(at), "decision": decide(score), "score": score} for at, score in enumerate(scores)]


@given(st.lists(SCORES, max_size=60), SCORES.filter(bool), SCORES.filter(bool))
def test_it_is_what_the_line_would_have_said(scores: list[float | None], now: float, then: float) -> None:
    before, after = parts_of(scores, now), parts_of(scores, then)
    preview = preview_threshold(before, then)
    changed = [(old["key"], new["decision"]) for old, new in zip(before, after, strict=True) if old != new]
    assert preview.to_reject == [key for key, decision in changed if decision == "REJECT"]
    assert preview.to_ok == [key for key, decision in changed if decision == "OK"]
    assert preview.rejects_now == sum(part["decision"] == "REJECT" for part in before)
    assert preview.rejects_then == sum(part["decision"] == "REJECT" for part in after)
    assert preview.parts == sum(score is not None for score in scores)


def test_a_score_at_the_threshold_is_a_reject() -> None:
    assert preview_threshold(parts_of([0.5], 1.0), 0.5).to_reject == ["0"]


def test_a_part_that_was_too_late_stays_unknown() -> None:
    late = [{"key": "0", "decision": "UNKNOWN", "score": 0.1}]
    assert preview_threshold(late, 0.5).parts == 0
