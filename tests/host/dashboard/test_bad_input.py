"""What the page's program cannot use is one line that says what to do, and exit code 2."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from host.dashboard.__main__ import parse_options
from host.dashboard.passwords import set_password
from protocol.broker import BrokerSettings
from protocol.keys import is_loopback
from sim.station import LOOPBACK
from tests.host.dashboard.running import refuse, write_config

NOBODY = BrokerSettings(LOOPBACK, 9)


@pytest.fixture
def config(tmp_path: Path) -> str:
    return str(write_config(tmp_path, NOBODY, "line1", 9))


def check(result: object, *words: str) -> None:
    text = getattr(result, "stderr", "")
    assert getattr(result, "returncode", None) == 2, text
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("beltsight: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--listen", "8080"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["--listen", "0.0.0.0:0"], "--plain-anywhere"),
        (["--certificate", "page.pem"], "--key"),
        (["--shifts", "six"], "--shifts"),
        (["--keep-days", "-1"], "--keep-days"),
        (["--good-mb", "nan"], "--good-mb"),
        (["--rejected-mb", "0"], "--rejected-mb"),
    ],
)
def test_options(options: list[str], word: str) -> None:
    check(refuse(*options), word)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--database", "mysql://x"], "--database"),
        (["--database", "nonsense"], "--database"),
        (["--database", "postgresql+psycopg://u:secret@127.0.0.1:9/x"], "--database-password"),
        (["--database", "postgresql+psycopg://u@127.0.0.1:9/x?password=secret"], "--database-password"),
        (["--database", "postgresql+psycopg://u@127.0.0.1:9/x"], "--database"),
        (["--tap", "nonsense"], "tcp://"),
        (["--certificate", "no.pem", "--key", "no.key"], "no.pem"),
    ],
)
def test_options_that_need_a_look(tmp_path: Path, config: str, options: list[str], word: str) -> None:
    result = refuse("--config", config, "--folder", str(tmp_path / "page"), "--listen", "127.0.0.1:0", *options)
    check(result, word)
    assert "secret" not in result.stderr


def test_a_port_that_is_taken(tmp_path: Path, config: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        check(refuse("--config", config, "--folder", str(tmp_path), "--listen", f"{LOOPBACK}:{port}"), "--listen")


def test_a_folder_that_is_none(tmp_path: Path, config: str) -> None:
    (tmp_path / "file").write_text("")
    check(refuse("--config", config, "--folder", str(tmp_path / "file"), "--listen", "127.0.0.1:0"), "--folder")


def test_a_history_that_is_none(tmp_path: Path, config: str) -> None:
    (tmp_path / "history.sqlite").write_bytes(b"no database at all, but long enough" * 40)
    check(refuse("--config", config, "--folder", str(tmp_path), "--listen", "127.0.0.1:0"), "database")


def test_secrets_that_others_can_read(tmp_path: Path, config: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o640)
    database = ["--database", "postgresql+psycopg://u@h/x", "--database-password", str(secret)]
    for options in (database, ["--certificate", str(secret), "--key", str(secret)]):
        check(refuse("--config", config, "--listen", "127.0.0.1:0", *options), "chmod 600")


def test_passwords_that_others_can_read(tmp_path: Path, config: str) -> None:
    passwords = tmp_path / "passwords"
    set_password(passwords, "anna", "correct horse")
    passwords.chmod(0o644)
    check(refuse("--config", config, "--passwords", str(passwords), "--listen", "127.0.0.1:0"), "chmod 600")


def test_a_password_that_is_too_short(tmp_path: Path) -> None:
    passwords = str(tmp_path / "passwords")
    check(refuse("--set-password", "anna", "--passwords", passwords, text="short\n"), "10..200")
    made = refuse("--set-password", "anna", "--passwords", passwords, text="long enough\n")
    assert (made.returncode, made.stderr) == (0, "")


def test_what_is_not_told_otherwise_is_on_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dashboard"])
    assert is_loopback(f"tcp://{parse_options().listen}")
