"""One user has his share of orders and of the audit log, and others have theirs."""

from __future__ import annotations

from sqlalchemy import Engine

from host.dashboard.audit import LOOK_EVERY, Audit
from host.dashboard.turns import A_MINUTE, AT_ONCE, WINDOW_S, Turns
from tests.host.dashboard.conftest import Clock


def test_one_user_does_not_flush_what_another_did(engine: Engine) -> None:
    audit = Audit(engine, most=150)
    for _ in range(20):
        audit.begin("anna", "10.0.0.1", "threshold", {"value": 0.5})
    for _ in range(3 * LOOK_EVERY):
        audit.begin("ben", "10.0.0.2", "pause", {})
    users = [entry["user"] for entry in audit.latest(1000)]
    assert users.count("anna") == 20
    assert len(users) <= 150 + LOOK_EVERY


def test_the_oldest_go_of_whoever_has_the_most(engine: Engine) -> None:
    audit = Audit(engine, most=50)
    for number in range(2 * LOOK_EVERY):
        audit.begin("anna" if number % 2 else "ben", "", "pause", {"number": number})
    left = [entry["details"]["number"] for entry in audit.latest(1000)]
    assert left == sorted(range(2 * LOOK_EVERY)[-50:], reverse=True)


def test_orders_of_one_user_do_not_hold_up_anothers(clock: Clock) -> None:
    turns = Turns(clock)
    assert [turns.begin("ben") for _ in range(AT_ONCE)] == [""] * AT_ONCE
    assert "wait for their answers" in turns.begin("ben")
    assert turns.begin("anna") == ""
    turns.end("ben")
    assert turns.begin("ben") == ""


def test_a_flood_is_refused_at_the_door(clock: Clock) -> None:
    turns = Turns(clock)
    answers = []
    for _ in range(10 * A_MINUTE):
        answers.append(turns.begin("ben"))
        if not answers[-1]:
            turns.end("ben")
    assert answers.count("") == A_MINUTE
    assert "within a minute" in answers[-1]
    clock.now_s += WINDOW_S + 1
    assert turns.begin("ben") == ""
