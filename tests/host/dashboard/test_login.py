"""Passwords, sessions, and how often one may guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from host.dashboard.passwords import Credentials, is_password, require_passwords, set_password
from host.dashboard.sessions import FAILURES, IDLE_S, LASTS_S, MAX_SESSIONS, WINDOW_S, Guesses, Sessions, network_of
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


def test_logins_are_counted_at_the_door(clock: Clock) -> None:
    """Many at once are no more than one after the other, and no other address waits for them."""
    guesses = Guesses(clock)
    waits_s = [guesses.enter("10.0.0.1") for _ in range(150)]
    assert waits_s.count(0.0) == FAILURES
    assert waits_s[-1] == pytest.approx(WINDOW_S)
    assert guesses.enter("10.0.0.2") == 0
    guesses.leave("10.0.0.2", is_right=True)
    for _ in range(FAILURES):
        guesses.leave("10.0.0.1", is_right=False)
    assert guesses.enter("10.0.0.1") > 0
    clock.now_s += WINDOW_S + 1
    assert guesses.enter("10.0.0.1") == 0


def test_no_number_of_failing_addresses_locks_out_another(clock: Clock) -> None:
    guesses = Guesses(clock)
    for number in range(250):
        for _ in range(FAILURES):
            assert guesses.enter(f"10.0.1.{number}") == 0
            guesses.leave(f"10.0.1.{number}", is_right=False)
    assert guesses.enter("10.0.0.1") == 0


def test_who_knows_the_password_is_not_counted(clock: Clock) -> None:
    guesses = Guesses(clock)
    for _ in range(3 * FAILURES):
        assert guesses.enter("10.0.0.1") == 0
        guesses.leave("10.0.0.1", is_right=True)


def test_one_network_of_ipv6_is_one_address(clock: Clock) -> None:
    guesses = Guesses(clock)
    waits_s = [guesses.enter(f"2001:db8::{number:x}") for number in range(20)]
    assert waits_s.count(0.0) == FAILURES
    assert guesses.enter("2001:db8:0:1::1") == 0
    assert network_of("::ffff:10.0.0.1") == "10.0.0.1"


def test_a_session_ends_when_its_user_goes_or_has_another_password(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "passwords"
    for name in ("anna", "ben", "carla"):
        set_password(path, name, "correct horse")
    sessions = Sessions(clock, Credentials(path).of)
    cookies = {name: sessions.begin(name) for name in ("anna", "ben", "carla", "nobody")}
    lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith("anna:")]
    path.write_text("".join(lines))
    set_password(path, "ben", "another horse")
    found = {name: sessions.find(cookie) is not None for name, cookie in cookies.items()}
    assert found == {"anna": False, "ben": False, "carla": True, "nobody": False}
    path.unlink()
    assert sessions.find(cookies["carla"]) is None
