"""Keys lie in files that only their owner reads; what is open to others is refused with the command that closes it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq

from protocol.errors import InputError
from protocol.keys import is_loopback, load_public, load_secret, write_key_pair


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def careless_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_pair_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    public, secret = write_key_pair(tmp_path / "new" / "keys", "server")
    assert (mode(public.parent), mode(secret), mode(public)) == (0o700, 0o600, 0o644)
    pair = load_secret(secret)
    assert pair.public == load_public(public) == zmq.curve_public(pair.secret)
    assert pair.secret.decode() not in repr(pair)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    public, secret = write_key_pair(tmp_path, "board")
    before = secret.read_bytes()
    for missing in (public, secret):
        kept = missing.read_bytes()
        missing.unlink()
        with pytest.raises(InputError, match=r"exists: choose another name"):
            write_key_pair(tmp_path, "board")
        assert not missing.exists(), "no half of another pair"
        missing.write_bytes(kept)
    assert secret.read_bytes() == before


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    _, secret = write_key_pair(tmp_path, "board")
    for loose in (0o640, 0o604, 0o620):
        secret.chmod(loose)
        with pytest.raises(InputError, match=f"is open to others: chmod 600 {secret}"):
            load_secret(secret)


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(InputError, match=f"is open to others: chmod 700 {tmp_path}"):
        write_key_pair(tmp_path, "board")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"x" * 39, b"x" * 41, b'"' * 40, b"\xff" * 40])
def test_what_is_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.public").write_bytes(content)
    with pytest.raises(InputError, match="is no key: make keys with `beltsight keys`"):
        load_public(tmp_path / "bad.public")


def test_a_key_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make keys with `beltsight keys`"):
        load_secret(tmp_path / "none.secret")


@pytest.mark.parametrize("name", ["", "../server", "a/b", "a b", ".hidden"])
def test_a_name_is_a_plain_word(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no name for a key"):
        write_key_pair(tmp_path, name)


@pytest.mark.parametrize(
    ("endpoint", "stays"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.8.8.8:5555", True),
        ("tcp://localhost:5555", True),
        ("tcp://[::1]:5555", True),
        ("ipc:///tmp/x", True),
        ("tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://192.168.1.2:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://127.0.0.1.example.com:5555", False),
        ("tcp://localhost.example.com:5555", False),
        ("", False),
    ],
)
def test_what_stays_on_this_machine(endpoint: str, stays: bool) -> None:
    assert is_loopback(endpoint) == stays


def test_folders_that_are_made_are_private_all(tmp_path: Path) -> None:
    """Keys for signing go to keys/models, those of the server to keys afterwards: it must not be open to others."""
    write_key_pair(tmp_path / "keys" / "models", "maker")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    write_key_pair(tmp_path / "keys", "server")
