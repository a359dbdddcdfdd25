"""Verdicts against the truth: the summary of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from protocol.messages import Decision, Verdict
from sim.passing import Passing


@dataclass(frozen=True)
class Summary:
    """End of a run. Rates are None where they have no meaning, such as recall without a defective part."""

    parts: int
    verdicts: int  # parts with a verdict
    ok: int
    reject: int
    unknown: int
    auroc: float | None  # of the scores, over parts that have one
    recall: float | None  # defective parts with the decision REJECT
    false_reject_rate: float | None  # good parts with the decision REJECT
    parts_per_s: float
    latency_ms: dict[str, float]  # trigger → decision: p50, p99, max
    stages_ms: dict[str, dict[str, float]]  # the same for each stage
    missed_deadlines: int
    lost: int  # parts without any verdict
    duplicates: int
    board_rss_mb: float | None  # resident memory of the board's process at its last health report
    engine: str
    model_id: str
    missed: dict[int, str]  # defective parts that were judged OK, and what they have
    crossed_open: dict[Decision, int] | None  # parts that met an open gate; None where that is not known
    good_stopped: int | None  # parts judged OK that met a closed one
    crossed_wrongly: tuple[int, ...]  # parts that are not OK and met an open one
    state: str  # of the line at the end, with its reason

    @property
    def is_safe(self) -> bool:
        return not self.crossed_wrongly

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def summarize(
    truth: Mapping[int, str],
    verdicts: Sequence[Verdict],
    *,
    duration_s: float,
    duplicates: int,
    health: Mapping[str, Any],
    passing: Passing | None = None,
    state: str = "",
) -> Summary:
    """`truth` maps each part id to its defect, '' for good; `health` is the board's last report about itself.

    subtle: of parts that were all UNKNOWN there is no figure; no false reject among them would only flatter.
    """
    judged = {verdict.part_id: verdict for verdict in verdicts if verdict.part_id in truth}
    counts = Counter(verdict.decision for verdict in judged.values())
    rejected = {part_id for part_id, verdict in judged.items() if verdict.decision == "REJECT"}
    bad = {part_id for part_id, defect in truth.items() if defect}
    good = set(truth) - bad
    decided = {part_id for part_id, verdict in judged.items() if verdict.decision != "UNKNOWN"}
    scored = [v for v in judged.values() if v.score is not None and v.part_id in decided]
    stages = {name: percentiles([v.stages_ms[name] for v in judged.values() if name in v.stages_ms]) for name in STAGES}
    stages |= {name: health["stages_ms"][name] for name in BOARD_STAGES if name in health.get("stages_ms", {})}
    return Summary(
        parts=len(truth),
        verdicts=len(judged),
        ok=counts["OK"],
        reject=counts["REJECT"],
        unknown=counts["UNKNOWN"],
        auroc=auroc([v.score for v in scored if v.score is not None], [v.part_id in bad for v in scored]),
        recall=round(len(rejected & bad) / len(bad), 4) if bad & decided else None,
        false_reject_rate=round(len(rejected & good) / len(good), 4) if good & decided else None,
        parts_per_s=round(len(judged) / duration_s, 2) if duration_s > 0 else 0.0,
        latency_ms=percentiles([v.latency_ms for v in judged.values()]),
        stages_ms=stages,
        missed_deadlines=sum(v.missed_deadline for v in judged.values()),
        lost=len(truth) - len(judged),
        duplicates=duplicates + len(verdicts) - len(judged),
        board_rss_mb=health.get("rss_mb"),
        engine=", ".join(sorted({v.engine for v in judged.values() if v.engine})),
        model_id=", ".join(sorted({v.model_id for v in judged.values()})),
        missed={part_id: truth[part_id] for part_id in sorted(bad & decided - rejected)},
        crossed_open=passing.crossed_open if passing else None,
        good_stopped=passing.good_stopped if passing else None,
        crossed_wrongly=passing.wrongly if passing else (),
        state=state,
    )


STAGES = ("wait", "decode", "preprocess", "infer", "decide")  # in each verdict
BOARD_STAGES = ("publish", "own")  # over before the board can know them: from its health


def percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    p50, p99, top = np.percentile(np.asarray(values), (50, 99, 100))
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "max": round(float(top), 2)}


def auroc(scores: Sequence[float], is_bad: Sequence[bool]) -> float | None:
    """Area under the ROC curve as the probability that a bad part scores above a good one (Mann and Whitney, 1947).

    >>> auroc([0.1, 0.4, 0.4, 0.9], [False, False, True, True])
    0.875
    """
    values, bad = np.asarray(scores, np.float64), np.asarray(is_bad, bool)
    if bad.all() or not bad.any():
        return None
    good = np.sort(values[~bad])
    below, not_above = np.searchsorted(good, values[bad], "left"), np.searchsorted(good, values[bad], "right")
    return round(float((below + not_above).mean()) / (2 * len(good)), 4)


def find_parts(verdicts: Sequence[Verdict], centres: Mapping[int, list[tuple[int, float, float]]]) -> list[Verdict]:
    """Free-running verdicts under the belt's part numbers: the part whose centre lay nearest to where it was seen.

    `centres` maps a camera frame to (part number, x_px, y_px) of the parts in it. A verdict near no part keeps an id
    that the truth does not know.
    """
    return [_renumbered(verdict, centres) for verdict in verdicts]


def _renumbered(verdict: Verdict, centres: Mapping[int, list[tuple[int, float, float]]]) -> Verdict:
    seen = verdict.location
    if seen is None:
        return verdict
    distances = [(np.hypot(x - seen.x_px, y - seen.y_px), number) for number, x, y in centres.get(seen.frame, [])]
    distance_px, number = min(distances, default=(np.inf, -1))
    return Verdict(**{**vars(verdict), "part_id": number if distance_px <= NEAR_PX else NOBODY - verdict.part_id})


NEAR_PX = 60.0  # a third of a part: nearer than any neighbour can be
NOBODY = -1
