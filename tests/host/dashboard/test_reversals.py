"""A change of model that was obeyed and did not hold is said, and stands in the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from host.dashboard.audit import Audit
from host.dashboard.reversals import KEPT, Reversals
from host.dashboard.tables import open_database
from protocol.commands import Answer


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    engine = open_database(URL.create("sqlite", database=str(tmp_path / "history.sqlite")))
    yield Audit(engine)
    engine.dispose()


def answer(order_id: str, reason: str = "", command: str = "model") -> Answer:
    return Answer(order_id, command, not reason, reason, "2026-01-01T00:00:00Z")


def test_a_change_that_goes_back_is_said_and_written_down(audit: Audit) -> None:
    reversals = Reversals(audit)
    entry = audit.begin("anna", "::1", "model", {"model": "other"})
    reversals.expect("1", entry)
    reversals.hear(answer("1"))
    audit.finish(entry, "done")
    assert reversals.latest == ""
    reversals.hear(answer("1", "it rejected 20 of its first 20 parts: back to first"))
    reversals.write_down()
    assert reversals.latest == "it rejected 20 of its first 20 parts: back to first"
    (row,) = audit.latest(9)
    assert row["outcome"] == f"done, and taken back: {reversals.latest}"
    reversals.hear(answer("2"))
    assert reversals.latest == ""


@pytest.mark.parametrize("command", ["threshold", "model"])
def test_what_was_refused_at_once_was_never_taken_back(audit: Audit, command: str) -> None:
    reversals = Reversals(audit)
    reversals.hear(answer("1", "no such model", command))
    assert reversals.latest == ""


def test_a_change_of_somebody_else_is_said_too(audit: Audit) -> None:
    reversals = Reversals(audit)
    reversals.hear(answer("theirs"))
    reversals.hear(answer("theirs", "no engine could run it"))
    reversals.write_down()
    assert reversals.latest == "no engine could run it"
    assert audit.latest(9) == []


def test_what_is_kept_is_bounded(audit: Audit) -> None:
    reversals = Reversals(audit)
    entries = [audit.begin("anna", "::1", "model", {}) for _ in range(3)]
    for number in range(3 * KEPT):
        reversals.expect(str(number), entries[number % 3])
        reversals.hear(answer(str(number)))
    reversals.hear(answer("0", "too long ago"))
    assert reversals.latest == ""
