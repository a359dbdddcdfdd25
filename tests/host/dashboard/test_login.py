"""Passwords, sessions, and how often one may guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from host.dashboard.passwords import is_password, require_passwords, set_password
from host.dashboard.sessions import ALL_FAILURES, FAILURES, IDLE_S, LASTS_S, MAX_SESSIONS, WINDOW_S, Guesses, Sessions
from protocol.errors import InputError
from tests.host.dashboard.conftest import Clock


def test_several_users_and_a_change(tmp_path: Path) -> None:
    path = tmp_path / "new" / "passwords"
    set_password(path, "anna", "correct horse")
    set_password(path, "ben", "battery staple")
    set_password(path, "anna", "another horse")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in path.parent.iterdir()] == ["passwords"]
    assert is_password(path, "anna", "another horse")
    assert is_password(path, "ben", "battery staple")
    assert not is_password(path, "anna", "correct horse")
    assert not is_password(path, "ben", "another horse")
    assert not is_password(path, "eve", "another horse")
    assert not is_password(path, "", "")
    assert b"horse" not in path.read_bytes()


@pytest.mark.parametrize(("name", "password"), [("a:b", "long enough"), ("", "long enough"), ("anna", "short")])
def test_what_is_no_user(tmp_path: Path, name: str, password: str) -> None:
    with pytest.raises(InputError):
        set_password(tmp_path / "passwords", name, password)


def test_a_file_that_is_open_to_others_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    set_password(path, "anna", "correct horse")
    path.chmod(0o640)
    for use in (lambda: require_passwords(path), lambda: is_password(path, "anna", "correct horse")):
        with pytest.raises(InputError, match="chmod 600"):
            use()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    set_password(path, "anna", "correct horse")
    path.write_text(path.read_text()[:-3])
    with pytest.raises(InputError, match="--set-password"):
        require_passwords(path)


def test_without_a_file_nobody_may_act(tmp_path: Path) -> None:
    require_passwords(tmp_path / "none")
    assert not is_password(tmp_path / "none", "anna", "correct horse")


def test_a_session_ends_after_a_shift_or_when_it_is_not_used(clock: Clock) -> None:
    sessions = Sessions(clock)
    idle, busy = sessions.begin("anna"), sessions.begin("ben")
    for _ in range(int(LASTS_S / IDLE_S)):
        clock.now_s += IDLE_S
        found = sessions.find(busy)
        assert found is not None
        assert found.user == "ben"
    clock.now_s += 1
    assert sessions.find(idle) is None
    assert sessions.find(busy) is None


def test_sessions_are_bounded_and_end(clock: Clock) -> None:
    sessions = Sessions(clock)
    cookies = [sessions.begin("anna") for _ in range(MAX_SESSIONS + 1)]
    assert sessions.find(cookies[0]) is None
    assert sessions.find(cookies[1]) is not None
    sessions.end(cookies[1])
    assert sessions.find(cookies[1]) is None
    assert len(set(cookies)) == len(cookies)


def test_only_a_sessions_own_token_is_accepted(clock: Clock) -> None:
    sessions = Sessions(clock)
    one, other = (sessions.find(sessions.begin("anna")) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.accepts(one.token)
    for token in ("", other.token, one.token[:-1], "\udfff"):
        assert not one.accepts(token)


def test_guesses_are_counted_by_address_and_in_all(clock: Clock) -> None:
    guesses = Guesses(clock)
    for _ in range(FAILURES):
        assert guesses.must_wait_s("10.0.0.1") == 0
        guesses.note_failure("10.0.0.1")
    assert guesses.must_wait_s("10.0.0.1") == pytest.approx(WINDOW_S)
    assert guesses.must_wait_s("10.0.0.2") == 0
    for number in range(ALL_FAILURES):
        guesses.note_failure(f"10.0.1.{number}")
    assert guesses.must_wait_s("10.0.0.2") > 0
    clock.now_s += WINDOW_S + 1
    assert guesses.must_wait_s("10.0.0.1") == 0
