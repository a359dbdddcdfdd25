"""Only boards whose key is known get in; the others are refused, said once, and time out."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from protocol.keys import client_options, load_public, load_secret, write_key_pair
from protocol.sockets import Options
from sim.station import LOOPBACK, ROOT, free_port
from tests.host.server.running import Board, Server, grey, is_grey, run_server, until

REFUSED = "beltsight_refused_peers_total"
UNFINISHED = ("not encrypted, or for another server", "gone before the handshake was over")


@dataclass(frozen=True)
class Keys:
    folder: Path

    def make(self, name: str) -> Path:
        return write_key_pair(self.folder, name)[1]

    def options(self, client: str, server: str = "server") -> Options:
        pair = load_secret(self.folder / f"{client}.secret")
        return client_options(load_public(self.folder / f"{server}.public"), pair)

    def allow(self, name: str) -> None:
        shutil.copy(self.folder / f"{name}.public", self.folder / "allowed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    keys = Keys(tmp_path_factory.mktemp("keys") / "keys")
    for name in ("server", "board", "stranger", "other-server", "worker"):
        keys.make(name)
    (keys.folder / "allowed").mkdir()
    keys.allow("board")
    return keys


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, models: Path, keys: Keys) -> Iterator[Server]:
    options = ["--key", str(keys.folder / "server.secret"), "--allow", str(keys.folder / "allowed")]
    with run_server(tmp_path_factory.mktemp("logs"), models, "--workers", "1", *options) as server:
        with Board(server.endpoint, keys.options("board")) as board:
            board.wait_until_ready()
        yield server


def test_a_known_board_is_answered(secure: Server, keys: Keys) -> None:
    with Board(secure.endpoint, keys.options("board")) as board:
        assert is_grey(board.ask(grey(1)), 1)


def test_an_unknown_board_is_refused_and_said_once(secure: Server, keys: Keys) -> None:
    for refused in range(1, 4):
        with Board(secure.endpoint, keys.options("stranger")) as board:
            assert not board.is_answered()
            until(lambda count=refused: secure.metric(f'{REFUSED}{{why="unknown key"}}') >= count)  # type: ignore[misc]
    assert secure.log.read_text().count("unknown key") == 1


def test_a_board_without_keys_is_refused_and_said_once(secure: Server) -> None:
    before = count_unfinished(secure)
    for refused in range(1, 4):
        with Board(secure.endpoint) as board:  # a busy machine may take longer to refuse it than to answer
            assert not board.is_answered()
            until(lambda count=refused: count_unfinished(secure) >= before + count)  # type: ignore[misc]
    log = secure.log.read_text()
    assert 1 <= sum(log.count(why) for why in UNFINISHED) <= len(UNFINISHED)


def count_unfinished(server: Server) -> float:
    """Board and server see at once that they do not fit: which of the two leaves first is chance."""
    return sum(server.metric(f'{REFUSED}{{why="{why}"}}') for why in UNFINISHED)


def test_who_leaves_before_the_handshake_is_counted(secure: Server) -> None:
    before = secure.metric(f'{REFUSED}{{why="{UNFINISHED[1]}"}}')
    host, port = secure.endpoint.removeprefix("tcp://").split(":")
    socket.create_connection((host, int(port))).close()
    until(lambda: secure.metric(f'{REFUSED}{{why="{UNFINISHED[1]}"}}') == before + 1)


def test_a_board_that_expects_another_server_hears_nothing(secure: Server, keys: Keys) -> None:
    before = secure.metric(f'{REFUSED}{{why="not encrypted, or for another server"}}')
    with Board(secure.endpoint, keys.options("board", server="other-server")) as board:
        assert not board.is_answered()
    until(lambda: secure.metric(f'{REFUSED}{{why="not encrypted, or for another server"}}') > before)


def test_a_board_is_let_in_while_the_server_runs(secure: Server, keys: Keys) -> None:
    keys.make("late-comer")
    with Board(secure.endpoint, keys.options("late-comer")) as board:
        assert not board.is_answered()
    keys.allow("late-comer")
    until(lambda: is_let_in(secure, keys))


def test_who_is_connected_is_heard_no_more_when_the_key_goes(secure: Server, keys: Keys) -> None:
    keys.make("leaver")
    keys.allow("leaver")
    (keys.folder / "allowed" / "damaged.public").write_text("no key")
    try:
        until(lambda: is_let_in(secure, keys, "leaver"))
        with (
            Board(secure.endpoint, keys.options("leaver")) as leaver,
            Board(secure.endpoint, keys.options("board")) as board,
        ):
            assert is_grey(leaver.ask(grey(1)), 1)
            (keys.folder / "allowed" / "leaver.public").unlink()
            until(lambda: not is_heard(leaver))
            assert is_grey(board.ask(grey(2)), 2)
    finally:
        (keys.folder / "allowed" / "damaged.public").unlink()
    assert secure.metric(f'{REFUSED}{{why="key was withdrawn"}}') > 0


def is_heard(board: Board) -> bool:
    board.send(grey(1))
    if board.hears_nothing(1.0):
        return False
    board.receive()
    return True


def is_let_in(server: Server, keys: Keys, name: str = "late-comer") -> bool:
    with Board(server.endpoint, keys.options(name)) as board:
        return board.is_answered()


def test_workers_of_another_machine_join_with_a_key_and_may_die(
    tmp_path_factory: pytest.TempPathFactory, models: Path, keys: Keys
) -> None:
    """The server has no workers of its own, and the joining ones no models."""
    join = f"tcp://{LOOPBACK}:{free_port()}"
    (keys.folder / "workers").mkdir()
    shutil.copy(keys.folder / "worker.public", keys.folder / "workers")
    options = ["--workers", "0", "--workers-bind", join, "--key", str(keys.folder / "server.secret")]
    options += ["--allow", str(keys.folder / "allowed"), "--allow-workers", str(keys.folder / "workers")]
    with run_server(tmp_path_factory.mktemp("logs"), models, *options) as server:
        stranger = join_as("stranger", join, keys)
        first, second = join_as("worker", join, keys), join_as("worker", join, keys)
        try:
            with Board(server.endpoint, keys.options("board")) as board:
                board.wait_until_ready()
                until(lambda: server.metric("beltsight_workers ") == 2)
                first.kill()
                for level in range(20):
                    assert is_grey(board.ask(grey(level)), level)
                second.terminate()
                until(lambda: server.get("/readyz")[0] == 503)
                assert second.wait(10) == 0
                assert server.says('"how": "left"')
        finally:
            for child in (stranger, first, second):
                child.terminate()
                child.wait(10)


def join_as(name: str, endpoint: str, keys: Keys) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "host.server", "--join", endpoint, "--workers", "1"]
    command += ["--key", str(keys.folder / f"{name}.secret"), "--server-key", str(keys.folder / "server.public")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--bind", "tcp://*:0"], "can be reached by others: give --key and --allow, or --plain-anywhere"),
        (["--workers-bind", "tcp://0.0.0.0:0"], "can be reached by others"),
        (["--join", "tcp://192.0.2.1:5556"], "is another machine: give --server-key and --key"),
        (["--models", "no-such-folder"], "give --models the folder of the model packages"),
        (["--key", "no.secret"], "without a folder of keys"),
        (["--key", "no.secret", "--allow", "."], "make keys with `beltsight keys`"),
        (["--metrics", "9464"], "use the form 127.0.0.1:9464"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_code_2(options: list[str], advice: str) -> None:
    free = [] if "--metrics" in options else ["--metrics", f"{LOOPBACK}:{free_port()}"]
    command = [sys.executable, "-m", "host.server", *free, *options]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, cwd=ROOT)
    said = [line for line in result.stderr.splitlines() if line.startswith("beltsight: ")]
    assert (result.returncode, len(said)) == (2, 1), result.stderr
    assert advice in said[0]
