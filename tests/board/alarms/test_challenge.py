"""A challenge is passed only if all its known-bad parts are rejected at the gate; after a failed one nothing passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from board.alarms.challenge import AHEAD_S, DUE, Challenges, ChallengeSettings
from protocol.commands import ChallengeParts
from protocol.errors import MessageError
from protocol.messages import Decision
from protocol.reports import ChallengeReport

ORDER = ChallengeParts("7d3e", "2026-01-01T00:00:30Z", 2)
START_S, WINDOW_S = 1_767_225_600.0, 3.0


class Bench:
    """A line's loop with clocks that are turned by hand."""

    def __init__(self, settings: ChallengeSettings) -> None:
        self.clock_s, self.now_s = START_S, 0.0
        self.reports: list[ChallengeReport] = []
        self.challenges = Challenges(settings, self.reports.append, lambda: self.clock_s, lambda: self.now_s)

    def judge(self, *decisions: Decision, trouble: str = "") -> list[Decision]:
        """One part a second. What the gate is told."""
        told: list[Decision] = []
        for decision in decisions:
            said = self.challenges.note(len(told), decision, "", self.now_s + WINDOW_S)
            told.append(said[0])
            self.turn(trouble)
            self.now_s += 1
        return told

    def turn(self, trouble: str = "") -> None:
        self.challenges.step(trouble, "orange-256", 1.5)

    def end(self) -> ChallengeReport:
        self.now_s += WINDOW_S
        self.turn()
        return self.reports[-1]

    @property
    def state(self) -> str:
        complaint = self.challenges.complaint()
        return complaint.state if complaint else "running"


@pytest.fixture
def settings(tmp_path: Path) -> ChallengeSettings:
    return ChallengeSettings(due_every_h=8.0, audit=tmp_path / "audit.jsonl")


@pytest.fixture
def line(settings: ChallengeSettings) -> Bench:
    return Bench(settings)


def test_a_challenge_is_passed_when_all_of_its_parts_were_rejected_and_have_gone_by(line: Bench) -> None:
    assert line.state == "degraded", "none was ever passed"
    line.challenges.begin(ORDER)
    assert line.judge("REJECT", "REJECT", "OK") == ["REJECT", "REJECT", "OK"], "the third part is none of them"
    assert line.reports == [], "the second one is still at the gate"
    report = line.end()
    assert (report.passed, report.failed, report.parts, report.rejected) == (True, False, 2, 2)
    assert (report.id, report.model_id, report.threshold, report.time) == (
        "7d3e", "orange-256", 1.5, "2026-01-01T00:00:00.000Z",
    )  # fmt: skip
    assert (line.state, line.challenges.fault) == ("running", "")


@pytest.mark.parametrize("missed", ["OK", "UNKNOWN"])
def test_a_known_bad_part_that_is_not_rejected_does_not_pass_and_fails_the_challenge(
    line: Bench, missed: Decision
) -> None:
    line.challenges.begin(ORDER)
    assert line.judge(missed, "REJECT") == ["UNKNOWN", "REJECT"]
    report = line.end()
    assert (report.passed, report.failed, report.rejected) == (False, True, 1)
    assert "part 0 was not rejected" in report.reason
    assert (line.state, line.challenges.fault != "") == ("alarm", True)
    line.challenges.begin(replace(ORDER, id="again"))
    assert line.challenges.fault == "", "known-bad parts are judged"
    line.judge("REJECT", "REJECT")
    assert line.challenges.fault, "others are not, before it was passed"
    assert line.end().passed
    assert (line.state, line.challenges.fault) == ("running", "")


def test_a_gate_that_may_have_been_open_fails_the_challenge(line: Bench) -> None:
    line.challenges.begin(ORDER)
    line.judge("REJECT", trouble="the pin cannot be written")
    line.judge("REJECT")
    report = line.end()
    assert (report.failed, report.reason) == (True, "the gate may have been open: the pin cannot be written")


def test_parts_that_never_come_prove_nothing_and_harm_nothing(line: Bench, settings: ChallengeSettings) -> None:
    line.challenges.begin(ORDER)
    line.judge("REJECT")
    line.now_s += settings.within_s
    report = line.end()
    assert (report.passed, report.failed) == (False, False)
    assert report.reason == "1 of 2 parts did not come in time"
    assert line.state == "degraded", "it is still due"
    assert not line.challenges.is_running


def test_one_at_a_time(line: Bench) -> None:
    line.challenges.begin(ORDER)
    with pytest.raises(MessageError, match="a challenge is under way"):
        line.challenges.begin(replace(ORDER, id="another"))


@pytest.mark.parametrize(
    ("ago_s", "state"),
    [
        (0.0, "running"),
        (8 * 3600 - 1, "running"),
        (8 * 3600, "degraded"),
        (-AHEAD_S, "running"),
        (-AHEAD_S - 1, "degraded"),
    ],
)
def test_one_is_due_every_so_many_hours_also_after_a_restart(
    line: Bench, settings: ChallengeSettings, ago_s: float, state: str
) -> None:
    line.challenges.begin(ORDER)
    line.judge("REJECT", "REJECT")
    passed = line.end()
    for later in (line, Bench(settings)):
        later.clock_s = START_S + ago_s
        assert later.state == state
        assert later.reports[-1] == passed
    complaint = line.challenges.complaint()
    assert complaint is None or complaint.reason == DUE


def test_a_failed_one_is_remembered_over_a_restart_and_a_torn_line(line: Bench, settings: ChallengeSettings) -> None:
    line.challenges.begin(ORDER)
    line.judge("OK", "REJECT")
    line.end()
    assert settings.audit
    settings.audit.write_bytes(settings.audit.read_bytes() + b'{"passed": tr')
    assert Bench(settings).state == "alarm"


def test_what_cannot_be_kept_does_not_count_unless_it_failed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = Bench(ChallengeSettings(audit=tmp_path / "file" / "audit.jsonl"))
    line.challenges.begin(ORDER)
    line.judge("REJECT", "REJECT")
    line.end()
    assert line.state == "degraded"
    line.challenges.begin(ORDER)
    line.judge("OK", "REJECT")
    line.end()
    assert line.state == "alarm"


def test_none_is_due_where_nobody_asks_for_one() -> None:
    assert Bench(ChallengeSettings()).state == "running"
