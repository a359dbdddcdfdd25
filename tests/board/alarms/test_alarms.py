"""When verdicts are not to be believed, and when none are asked for; and never at a line that has not changed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from board.alarms.alarms import CALM_PARTS, EQUAL_SCORES, SCORES, Alarms, AlarmSettings
from board.alarms.reject_share import RejectShare, usual_counts
from protocol.manifest import Distribution
from protocol.messages import Verdict
from protocol.strict import FieldError
from tests.examples import VERDICT

GOOD = Distribution(0.5, 0.05, (0.42, 0.5, 0.58))


class Belt:
    """Parts come one a second, unless told otherwise; the clock is this belt's."""

    def __init__(self, settings: AlarmSettings | None = None) -> None:
        self.now_s = 0.0
        self._rng = np.random.default_rng(1)
        self.alarms = Alarms(settings or AlarmSettings(), lambda: self.now_s)

    def say(self) -> str:
        """As `state: reason`; empty when there is nothing."""
        complaint = self.alarms.complaint()
        return f"{complaint.state}: {complaint.reason}" if complaint else ""

    def note(self, verdict: Verdict, calibrated: Distribution | None = GOOD, gap_s: float = 1.0) -> str:
        self.now_s += gap_s
        self.alarms.note_part()
        self.alarms.note(verdict, calibrated)
        return self.say()

    def judge(self, share: float, *, mean: float = 0.5, deviation: float = 0.05) -> str:
        is_bad = bool(self._rng.random() < share)
        score = float(self._rng.normal(1.2, 0.2) if is_bad else self._rng.normal(mean, deviation))
        return self.note(replace(VERDICT, decision="REJECT" if is_bad else "OK", score=score))

    def run(self, parts: int, share: float, *, mean: float = 0.5, deviation: float = 0.05) -> int:
        """The part at which something was said first; `parts`, if nothing was."""
        return next((part for part in range(parts) if self.judge(share, mean=mean, deviation=deviation)), parts)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.5])
def test_a_line_that_has_not_changed_gives_no_alarm(share: float) -> None:
    assert Belt().run(4000, share) == 4000


@pytest.mark.parametrize("year", ["1970", "2025", "2100"])
def test_a_wrong_clock_is_said_until_it_is_right(year: str) -> None:
    belt = Belt()
    assert belt.note(replace(VERDICT, time=year + VERDICT.time[4:])).startswith("degraded: verdicts carry a wrong date")
    assert belt.note(VERDICT) == ""


@pytest.mark.parametrize("share", [0.003, 0.05, 0.4])
def test_false_alarms_of_the_share(share: float) -> None:
    """At most one in 100,000 parts; over 1,800,000 parts of six shares there was none."""
    alarms = RejectShare()
    parts = np.random.default_rng(7).random(50_000) < share
    assert [said for is_rejected in parts.tolist() if (said := alarms.note(is_rejected))] == []


@pytest.mark.parametrize(
    ("before", "after", "within", "said"),
    [
        (0.05, 0.44, 80, "alarm: more rejects than usual: "),
        (0.2, 0.44, 300, "alarm: more rejects than usual: "),
        (0.2, 0.0, 120, "alarm: fewer rejects than usual: "),
        (0.02, 1.0, 20, "alarm: more rejects than usual: "),
    ],
)
def test_a_share_that_changes_is_an_alarm(before: float, after: float, within: int, said: str) -> None:
    belt = Belt()
    assert belt.run(1000, before) == 1000
    assert belt.run(within, after) < within
    assert belt.say().startswith(said)
    assert belt.say().endswith("; then resume")


def test_a_line_that_judges_many_parts_too_late_is_degraded_until_it_keeps_up() -> None:
    belt, late = Belt(), replace(VERDICT, decision="UNKNOWN", score=None, missed_deadline=True)
    for _ in range(9):
        assert belt.note(late) == belt.judge(0.0) == ""
    assert belt.note(late).startswith("degraded: more than 9 of the last 50 parts were judged too late")
    assert all(belt.judge(0.0) for _ in range(50 - 19))
    assert belt.judge(0.0) == ""


def test_few_rejects_that_stay_away_prove_nothing() -> None:
    belt = Belt()
    belt.run(1000, 0.005)
    assert belt.run(1000, 0.0) == 1000


def test_an_alarm_keeps_its_words_and_ends_with_its_reason() -> None:
    belt = Belt()
    belt.run(1000, 0.05)
    belt.run(80, 0.5)
    began = belt.say()
    for _ in range(20):
        assert belt.judge(0.5) == began
    calm = next(part for part in range(1000) if not belt.judge(0.05))
    assert calm > CALM_PARTS


def test_who_resumes_has_all_learned_anew() -> None:
    belt = Belt()
    belt.run(1000, 0.05)
    assert belt.run(200, 0.5) < 200
    belt.alarms.learn_anew()
    assert belt.say() == ""
    assert belt.run(1000, 0.5) == 1000


@pytest.mark.parametrize("changed", [replace(VERDICT, model_id="other"), replace(VERDICT, threshold=0.3)])
def test_another_model_or_threshold_has_a_share_of_its_own(changed: Verdict) -> None:
    belt = Belt()
    belt.run(1000, 0.05)
    for number, score in enumerate(np.random.default_rng(2).normal(0.5, 0.05, 400).tolist()):
        assert belt.note(replace(changed, decision="REJECT" if number % 2 else "OK", score=score)) == ""


def test_nearly_all_parts_rejected_is_an_alarm_from_the_start() -> None:
    belt = Belt()
    assert belt.run(100, 0.95) == 49
    assert "of the last 50 parts rejected: look at lamp" in belt.say()
    assert Belt(AlarmSettings(most_rejected=1.0)).run(400, 0.95) == 400


def test_parts_that_cannot_be_judged_are_an_alarm_until_one_can() -> None:
    belt = Belt()
    unknown = replace(VERDICT, decision="UNKNOWN", score=None, reason="no frame")
    assert [belt.note(unknown) for _ in range(19)] == [""] * 19
    assert belt.note(unknown) == "alarm: none of the last 20 parts could be judged (no frame)"
    assert belt.note(replace(unknown, reason="another")).endswith("(no frame)")
    assert belt.judge(0) == ""


@pytest.mark.parametrize("deviation", [0.0, 0.001])
def test_scores_that_do_not_depend_on_the_part_are_an_alarm(deviation: float) -> None:
    belt = Belt()
    assert belt.run(200, 0.05) == 200
    assert belt.run(2 * SCORES, 0, deviation=deviation) in range(SCORES - 2, SCORES + 2)
    assert belt.say().startswith(f"alarm: the last {SCORES} scores are all but the same: does the camera see the parts")


def test_scores_far_below_those_of_good_parts_are_an_alarm() -> None:
    belt = Belt()
    assert belt.run(2 * SCORES, 0, mean=-0.5) == SCORES - 1
    assert "far below those of good parts" in belt.say()


def test_a_quiet_product_is_no_alarm() -> None:
    """Scores on the line vary less than those of the calibration, which come from more days."""
    assert Belt().run(4000, 0, deviation=0.01) == 4000


@pytest.mark.parametrize("calibrated", [None, replace(GOOD, deviation=0.0)])
def test_without_a_calibration_only_equal_scores_are_an_alarm(calibrated: Distribution | None) -> None:
    belt = Belt()
    ok = replace(VERDICT, decision="OK", score=0.125)
    assert [belt.note(ok, calibrated) for _ in range(EQUAL_SCORES - 1)] == [""] * (EQUAL_SCORES - 1)
    assert belt.note(ok, calibrated).startswith(f"alarm: the last {EQUAL_SCORES} scores are all but the same")
    for number in range(SCORES):
        belt.note(replace(ok, score=number / 128), calibrated)
    assert belt.say() == ""


def test_idle_is_learned_from_the_times_between_parts() -> None:
    belt = Belt()
    belt.now_s = 61
    assert belt.say() == "idle: no part has come since the start: does the belt run, and does the light barrier see it?"
    for _ in range(30):
        assert belt.note(VERDICT, None, gap_s=2.0) == ""
    belt.now_s += 39
    assert belt.say() == ""
    belt.now_s += 2
    assert belt.say().startswith("idle: no part has come for more than 40 s: does the belt run")
    assert belt.note(VERDICT, None, gap_s=1.0) == ""


def test_idle_as_configured() -> None:
    belt = Belt(AlarmSettings(idle_after_s=5))
    for _ in range(50):
        belt.note(replace(VERDICT, decision="OK"), None, gap_s=0.5)
    belt.now_s += 5.5
    assert belt.say().startswith("idle: no part has come for more than 5 s")


@pytest.mark.parametrize("mean_s", [0.3, 3.0])
def test_parts_that_come_at_random_are_not_idle(mean_s: float) -> None:
    belt = Belt()
    for gap_s in np.random.default_rng(3).exponential(mean_s, 5000).tolist():
        belt.now_s += gap_s
        assert belt.say() == ""
        belt.alarms.note_part()


def test_an_alarm_is_more_than_idle() -> None:
    belt = Belt()
    belt.run(60, 1.0)
    belt.now_s += 1000
    assert belt.say().startswith("alarm: ")


def test_alarms_can_be_switched_off_but_an_idle_line_says_so() -> None:
    belt = Belt(AlarmSettings(enabled=False))
    assert belt.run(100, 1.0) == 100
    belt.now_s += 1000
    assert belt.say().startswith("idle: ")


@pytest.mark.parametrize(
    ("key", "value"), [("idle_after_s", -1.0), ("most_rejected", 0.0), ("most_rejected", 1.1), ("unknown_parts", 1)]
)
def test_settings_that_are_none(key: str, value: float) -> None:
    with pytest.raises(FieldError, match=f"{key}: must be"):
        AlarmSettings(**{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "rejects", "before"), [(30, 5, 100), (100, 0, 100), (100, 300, 600), (400, 990, 1000)]
)
def test_the_limits_are_those_of_the_distribution(parts: int, rejects: int, before: int) -> None:
    """Against its probabilities, each by its own."""
    a, b = rejects + 0.5, before - rejects + 0.5

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    chances = [
        math.comb(parts, count) * math.exp(log_beta(count + a, parts - count + b) - log_beta(a, b))
        for count in range(parts + 1)
    ]
    least, most = usual_counts(parts, rejects, before)
    assert sum(chances) == pytest.approx(1)
    assert sum(chances[:least]) <= 1e-6 < sum(chances[: least + 1])
    assert sum(chances[most + 1 :]) <= 1e-6 < sum(chances[most:])
