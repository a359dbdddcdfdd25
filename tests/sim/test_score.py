"""The summary of a run, against what can be counted by hand and against scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from protocol.messages import Decision, Location, Verdict
from sim.passing import Passing, decide_parts
from sim.score import auroc, find_parts, percentiles, summarize


def verdict(part_id: int, decision: Decision, score: float | None = 0.0, **changes: object) -> Verdict:
    plain = Verdict(
        event_id=f"event-{part_id}",
        site="sim",
        line="line1",
        run="run",
        part_id=part_id,
        decision=decision,
        score=score,
        threshold=1.0,
        reason="",
        engine="arm-onnxruntime" if score is not None else "",
        model_id="model",
        degraded=False,
        missed_deadline=False,
        time="2026-01-01T00:00:00.000Z",
        latency_ms=float(part_id),
        stages_ms={"infer": 2.0 * part_id},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_of_several_verdicts_on_a_part_one_that_is_not_ok_counts() -> None:
    first, second = (
        [verdict(0, "OK"), verdict(1, "REJECT"), verdict(2, "OK")],
        [verdict(0, "UNKNOWN"), verdict(1, "OK")],
    )
    assert decide_parts([*first, *second]) == {0: "UNKNOWN", 1: "REJECT", 2: "OK"}


def test_a_run_is_counted() -> None:
    truth = {0: "", 1: "", 2: "mould", 3: "bruise", 4: "", 5: ""}
    verdicts = [
        verdict(0, "OK", 0.1),
        verdict(1, "REJECT", 1.5),
        verdict(2, "REJECT", 2.0),
        verdict(3, "OK", 0.3),
        verdict(4, "UNKNOWN", None, missed_deadline=True, reason="late"),
    ]
    summary = summarize(truth, verdicts, duration_s=2.0, duplicates=1, health={"rss_mb": 80.0})
    assert (summary.parts, summary.verdicts, summary.lost) == (6, 5, 1)
    assert (summary.ok, summary.reject, summary.unknown) == (2, 2, 1)
    assert (summary.recall, summary.false_reject_rate) == (0.5, 0.25)
    assert summary.auroc == 0.75
    assert summary.parts_per_s == 2.5
    assert (summary.missed_deadlines, summary.duplicates, summary.board_rss_mb) == (1, 1, 80.0)
    assert summary.latency_ms == {"p50": 2.0, "p99": 3.96, "max": 4.0}
    assert summary.stages_ms["infer"]["max"] == 8.0
    assert summary.engine == "arm-onnxruntime"


def test_rates_without_meaning_are_none() -> None:
    summary = summarize({0: ""}, [verdict(0, "OK")], duration_s=1.0, duplicates=0, health={})
    assert (summary.auroc, summary.recall, summary.false_reject_rate) == (None, None, 0.0)


def test_parts_that_were_all_unknown_have_no_figures() -> None:
    """They were seen, and the scores were right, but too late: none of that helped anybody."""
    late = [verdict(number, "UNKNOWN", number, missed_deadline=True, reason="late") for number in range(4)]
    summary = summarize({0: "", 1: "", 2: "rot", 3: "rot"}, late, duration_s=1.0, duplicates=0, health={})
    assert (summary.auroc, summary.recall, summary.false_reject_rate) == (None, None, None)
    assert summary.missed_deadlines == 4


def test_what_was_judged_ok_by_mistake_is_named() -> None:
    truth = {0: "", 1: "rot", 2: "bruise", 3: "rot"}
    verdicts = [verdict(0, "OK"), verdict(1, "REJECT", 2.0), verdict(2, "OK"), verdict(3, "UNKNOWN", None)]
    passing = Passing({"OK": 1, "REJECT": 1, "UNKNOWN": 0}, 1, (1,))
    summary = summarize(
        truth, verdicts, duration_s=1.0, duplicates=0, health={}, passing=passing, state="degraded: dust"
    )
    assert summary.missed == {2: "bruise"}
    assert (summary.crossed_open, summary.good_stopped) == ({"OK": 1, "REJECT": 1, "UNKNOWN": 0}, 1)
    assert not summary.is_safe
    assert summarize(truth, verdicts, duration_s=1.0, duplicates=0, health={}).crossed_open is None


def test_a_verdict_on_a_part_that_never_was_counts_as_surplus() -> None:
    summary = summarize({0: ""}, [verdict(0, "OK"), verdict(-7, "OK")], duration_s=1.0, duplicates=0, health={})
    assert (summary.verdicts, summary.duplicates) == (1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_scikit_learns_ties_included(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bad = rng.random(200) < 0.3
    scores = np.round(rng.normal(size=200) + bad, 1)  # rounded: many ties
    assert auroc(list(scores), list(bad)) == pytest.approx(roc_auc_score(bad, scores), abs=1e-4)


def test_percentiles_of_nothing_are_zero() -> None:
    assert percentiles([]) == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_free_running_verdicts_get_the_number_of_the_part_they_saw() -> None:
    centres = {9: [(4, 100.0, 200.0), (5, 400.0, 210.0)]}
    near = verdict(0, "OK", location=Location(9, 390.0, 220.0))
    far = verdict(1, "OK", location=Location(9, 250.0, 200.0))
    elsewhen = verdict(2, "OK", location=Location(8, 100.0, 200.0))
    found = [found.part_id for found in find_parts([near, far, elsewhen], centres)]
    assert found[0] == 5
    assert found[1] < 0
    assert found[2] < 0
    assert found[1] != found[2]
