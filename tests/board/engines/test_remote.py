"""The remote engine gives the server's maps, never waits beyond its deadline, and returns when the server does."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from board.engines.chain import EngineChain, connect_remote, open_engine
from board.engines.remote import PROBE_S, RemoteServer, RemoteSettings
from board.engines.settings import EngineSettings
from protocol.detection import Answer, Ping, Pong, Request, decode_to_server, encode, refuse
from protocol.errors import EngineError, InputError
from protocol.keys import write_key_pair
from protocol.manifest import MODEL_ONNX, Package
from protocol.sockets import Socket, open_socket
from protocol.strict import FieldError
from tests.host.server.running import run_server, until

IMAGE = np.zeros((128, 128, 3), np.uint8)
MAP = np.arange(64, dtype=np.int8).reshape(8, 8)
DEADLINE_S = 0.6
SLACK_S = 0.3  # of a busy machine, beyond a deadline
Reply = Callable[[Request, int], list[bytes]]


class FakeServer:
    """Answers pings, and requests as it is told; `asked` are the requests that came."""

    def __init__(self, endpoint: str, package: Package, reply: Reply) -> None:
        self._sha256, self._reply = package.manifest.files[MODEL_ONNX], reply
        self.asked: list[Request] = []
        self.late: list[list[bytes]] = []  # sent before the next reply
        self._socket: Socket = open_socket("ROUTER", endpoint, bind=True, high_water_mark=8)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def answer(self, number: int, anomaly: NDArray[np.int8] = MAP) -> list[bytes]:
        return [encode(Answer(number, self._sha256, (8, 8), 1, 1.0)), anomaly.tobytes()]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close(0)

    def _serve(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(5):
                continue
            peer, *parts = self._socket.recv_multipart()
            message = decode_to_server(parts)
            if isinstance(message, Ping):
                self._socket.send_multipart([peer, encode(Pong(message.id, ready=True))])
                continue
            self.asked.append(message)
            for reply in (*self.late, self._reply(message, len(self.asked))):
                if reply:
                    self._socket.send_multipart([peer, *reply])


@pytest.fixture
def serve(endpoint: str, trivial_package: Package) -> Iterator[Callable[[Reply], FakeServer]]:
    opened: list[FakeServer] = []

    def start(reply: Reply) -> FakeServer:
        opened.append(FakeServer(endpoint, trivial_package, reply))
        return opened[-1]

    yield start
    for fake in opened:
        fake.close()


@pytest.fixture
def remote(endpoint: str, trivial_package: Package) -> Iterator[RemoteServer]:
    server = RemoteServer(RemoteSettings(endpoint, deadline_ms=DEADLINE_S * 1e3, attempts=2), trivial_package)
    yield server
    server.close()


def silent(_request: Request, _count: int) -> list[bytes]:
    return []


def elapsed_s(call: Callable[[], object]) -> float:
    started_s = time.monotonic()
    with pytest.raises(EngineError):
        call()
    return time.monotonic() - started_s


def test_the_servers_map_comes_back(serve: Callable[[Reply], FakeServer], remote: RemoteServer) -> None:
    fake = serve(lambda request, _: fake.answer(request.id))
    assert remote.reach(2.0)
    engine = remote.open_engine()
    assert np.array_equal(engine.infer(IMAGE[:, ::-1]), MAP)
    assert fake.asked[0].shape == (128, 128)
    assert 0 < fake.asked[0].deadline_ms <= DEADLINE_S * 1e3 / 2, "half of the deadline: there are two attempts"


def test_a_silent_server_costs_one_deadline_and_gets_a_second_try(
    serve: Callable[[Reply], FakeServer], remote: RemoteServer
) -> None:
    fake = serve(silent)
    assert remote.reach(2.0)
    assert 0.95 * DEADLINE_S < elapsed_s(lambda: remote.ask(IMAGE)) < DEADLINE_S + SLACK_S
    until(lambda: len(fake.asked) == 2)


def test_a_first_request_that_is_lost_is_made_good_within_the_deadline(
    serve: Callable[[Reply], FakeServer], remote: RemoteServer
) -> None:
    fake = serve(lambda request, count: fake.answer(request.id) if count == 2 else [])
    assert remote.reach(2.0)
    assert np.array_equal(remote.ask(IMAGE), MAP)


def test_the_answer_to_a_former_request_is_never_taken_for_the_present_one(
    serve: Callable[[Reply], FakeServer], remote: RemoteServer
) -> None:
    fake = serve(lambda request, _: fake.answer(request.id))
    assert remote.reach(2.0)
    fake.late = [fake.answer(1, MAP + np.int8(1))]
    assert np.array_equal(remote.ask(IMAGE), MAP)


def test_a_server_that_is_not_there_costs_one_deadline_and_then_almost_nothing(remote: RemoteServer) -> None:
    assert elapsed_s(lambda: remote.ask(IMAGE)) < DEADLINE_S + SLACK_S
    for _ in range(3):
        assert elapsed_s(remote.open_engine) < PROBE_S + SLACK_S


def test_a_board_whose_key_is_made_known_gets_in_without_a_restart(tmp_path: Path, trivial_package: Package) -> None:
    """A refused handshake ends a ZeroMQ socket for good: it must be replaced."""
    for name in ("server", "board"):
        write_key_pair(tmp_path / "keys", name)
    (tmp_path / "models").mkdir()
    shutil.copytree(trivial_package.folder, tmp_path / "models" / "trivial")
    (tmp_path / "allowed").mkdir()
    keys, allowed = tmp_path / "keys", str(tmp_path / "allowed")
    options = ["--workers", "1", "--key", str(keys / "server.secret"), "--allow", allowed]
    with run_server(tmp_path, tmp_path / "models", *options) as server:
        settings = RemoteSettings(
            server.endpoint, deadline_ms=1000, server_key=keys / "server.public", key=keys / "board.secret"
        )
        remote = RemoteServer(settings, trivial_package)
        assert not remote.reach(0.5)
        shutil.copy(keys / "board.public", allowed)
        until(lambda: opens(remote))
        golden = trivial_package.load_golden()
        assert np.array_equal(remote.ask(golden.images[0]), golden.maps[0])
        remote.close()


def opens(remote: RemoteServer) -> bool:
    try:
        remote.open_engine()
    except EngineError:
        time.sleep(0.2)
        return False
    return True


def test_a_refusal_is_an_engine_error_at_once(serve: Callable[[Reply], FakeServer], remote: RemoteServer) -> None:
    serve(lambda request, _: [refuse(request.id, "busy", "the queue is full")])
    assert remote.reach(2.0)
    with pytest.raises(EngineError, match=r"refuses \(busy\): the queue is full"):
        remote.ask(IMAGE)


def test_who_speaks_something_else_is_no_detection_server(
    serve: Callable[[Reply], FakeServer], remote: RemoteServer
) -> None:
    serve(lambda *_: [b"HTTP/1.1 400 Bad Request"])
    assert remote.reach(2.0)
    with pytest.raises(EngineError, match="is no detection server"):
        remote.ask(IMAGE)


@pytest.mark.parametrize(
    "settings",
    [
        {"deadline_ms": 0.0},
        {"attempts": 0},
        {"endpoint": "tcp://192.0.2.1:5555"},
        {"key": Path("a.secret")},
        {"server_key": Path("a.public")},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(FieldError):
        RemoteSettings(**settings)  # type: ignore[arg-type]


def test_a_plain_connection_elsewhere_must_be_asked_for() -> None:
    RemoteSettings("tcp://192.0.2.1:5555", plain_anywhere=True)
    RemoteSettings("tcp://192.0.2.1:5555", key=Path("a.secret"), server_key=Path("b.public"))


def test_a_loose_key_stops_the_board_at_its_start(tmp_path: Path, trivial_package: Package) -> None:
    public, secret = write_key_pair(tmp_path / "keys", "board")
    secret.chmod(0o644)
    settings = EngineSettings(order=("remote",), remote=RemoteSettings(key=secret, server_key=public))
    with pytest.raises(InputError, match=f"chmod 600 {secret}"):
        connect_remote(trivial_package, settings)


# ---- with the real server, in the chain


def test_the_line_leaves_a_lost_server_and_returns_to_it(tmp_path: Path, trivial_package: Package) -> None:
    shutil.copytree(trivial_package.folder, tmp_path / "models" / "trivial")
    golden = trivial_package.load_golden()
    with run_server(tmp_path, tmp_path / "models", "--workers", "1") as server:
        settings = EngineSettings(order=("remote", "arm"), retry_s=0.2, runtime="onnxruntime")
        settings = replace(settings, remote=RemoteSettings(server.endpoint, deadline_ms=DEADLINE_S * 1e3))
        remote = connect_remote(trivial_package, settings)
        assert remote is not None
        chain = EngineChain(settings, golden, lambda name: open_engine(name, trivial_package, settings, remote=remote))

        def speaker() -> str:
            anomaly, name = chain.infer(golden.images[0])
            assert np.array_equal(anomaly, golden.maps[0])
            return name

        until(lambda: speaker() == "remote")
        os.kill(server.child.pid, signal.SIGSTOP)
        started_s = time.monotonic()
        assert speaker() == "arm-onnxruntime"
        assert time.monotonic() - started_s < DEADLINE_S + SLACK_S
        assert chain.degraded
        costs_s = []
        while time.monotonic() - started_s < 1.5:
            part_s = time.monotonic()
            assert speaker() == "arm-onnxruntime"
            costs_s.append(time.monotonic() - part_s)
            time.sleep(0.05)
        assert max(costs_s) < PROBE_S + SLACK_S, "only the first part pays the deadline"
        os.kill(server.child.pid, signal.SIGCONT)
        until(lambda: speaker() == "remote")
        assert not chain.degraded
        chain.close()
        remote.close()
