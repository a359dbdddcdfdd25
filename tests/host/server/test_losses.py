"""Workers and the front are killed, stopped and overrun; every request is answered once, refused, or times out."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zmq

from protocol.detection import Answer, Refusal, decode_to_board
from tests.host.server.running import Board, Server, drain, grey, is_grey, run_server, until


@dataclass
class Load:
    """Boards that always have one request on its way, each with a grey level of its own."""

    boards: list[Board]
    asked: dict[tuple[int, int], float] = field(default_factory=dict)  # (board, number) -> latest time of its reply
    answered: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    lost: int = 0

    def run(self, for_s: float, deadline_s: float) -> None:
        until_s = time.monotonic() + for_s
        while time.monotonic() < until_s:
            self.turn(deadline_s)

    def turn(self, deadline_s: float) -> None:
        now_s = time.monotonic()
        for index, board in enumerate(self.boards):
            for message in drain(board.socket):
                self.take(index, message)
            for key in [key for key, latest_s in self.asked.items() if key[0] == index and latest_s < now_s]:
                del self.asked[key]  # what comes now, comes too late
                self.lost += 1
            if not any(key[0] == index for key in self.asked):
                number = board.send(grey(index * 8 + len(board.sent) % 8), deadline_ms=deadline_s * 1e3)
                self.asked[index, number] = now_s + deadline_s
        time.sleep(0.001)

    def take(self, index: int, message: list[bytes]) -> None:
        header, anomaly = decode_to_board(message)
        expected = self.asked.pop((index, header.id), None)
        if isinstance(header, Refusal):
            assert expected is not None or header.code == "late", header
            self.refused[header.code] += 1
            return
        assert isinstance(header, Answer)
        assert anomaly is not None
        assert expected is not None, "answered twice, or after its deadline"
        assert is_grey(anomaly, self.boards[index].sent[header.id]), "another board's or part's map"
        self.answered[index] += 1


@pytest.fixture
def two_workers(tmp_path: Path, models: Path) -> Iterator[Server]:
    with run_server(tmp_path, models, "--workers", "2", "--batch-s", "1") as server:
        with Board(server.endpoint) as board:
            board.wait_until_ready()
        until(lambda: server.metric("beltsight_workers ") == 2)
        yield server


@contextlib.contextmanager
def load_on(server: Server, boards: int) -> Iterator[Load]:
    with contextlib.ExitStack() as opened:
        yield Load([opened.enter_context(Board(server.endpoint)) for _ in range(boards)])


def test_workers_are_killed_under_load(two_workers: Server) -> None:
    with load_on(two_workers, boards=4) as load:
        for _ in range(5):
            load.run(0.4, deadline_s=3.0)
            os.kill(two_workers.workers()[0], signal.SIGKILL)
        load.run(1.0, deadline_s=3.0)
    assert two_workers.metric("beltsight_workers_lost_total") >= 2, "some die before they have any work"
    assert (load.lost, sum(load.refused.values())) == (0, 0)
    assert min(load.answered.values()) > 5, "more than one between two kills, on however busy a machine"
    assert len(load.answered) == 4
    until(lambda: len(two_workers.workers()) == 2)


def test_equal_boards_get_equal_shares(server: Server) -> None:
    with load_on(server, boards=8) as load:
        load.run(1.5, deadline_s=5.0)
    shares = load.answered.values()
    assert len(shares) == 8
    assert min(shares) >= 0.7 * sum(shares) / 8


def test_a_greedy_board_does_not_crowd_out_the_others(two_workers: Server) -> None:
    for pid in two_workers.workers():
        os.kill(pid, signal.SIGSTOP)
    with Board(two_workers.endpoint) as greedy, Board(two_workers.endpoint) as modest:
        for _ in range(60):
            greedy.send(grey(1))
        number = modest.send(grey(2))
        for pid in two_workers.workers():
            os.kill(pid, signal.SIGCONT)
        reply, anomaly = modest.receive()
        assert isinstance(reply, Answer)
        assert reply.id == number
        assert anomaly is not None
        assert is_grey(anomaly, 2)
        replies = [greedy.receive()[0] for _ in range(60)]
        assert {reply.code for reply in replies if isinstance(reply, Refusal)} == {"busy"}
        assert sum(isinstance(reply, Answer) for reply in replies) >= 8


def test_a_worker_that_hangs_is_replaced_and_its_work_begun_again(tmp_path: Path, models: Path) -> None:
    with run_server(tmp_path, models, "--workers", "1", "--batch-s", "1") as server, Board(server.endpoint) as board:
        board.wait_until_ready()
        os.kill(server.workers()[0], signal.SIGSTOP)
        assert is_grey(board.ask(grey(3)), 3)
        assert server.says("hangs over a batch") or server.says("is silent")


def test_what_cannot_be_done_in_time_is_refused_as_late(two_workers: Server) -> None:
    for pid in two_workers.workers():
        os.kill(pid, signal.SIGKILL)
    until(lambda: two_workers.get("/readyz")[0] == 503)
    with Board(two_workers.endpoint) as board:
        started_s = time.monotonic()
        board.send(grey(4), deadline_ms=50)
        assert board.is_refused().code == "late"
        assert time.monotonic() - started_s < 1
        board.wait_until_ready()
        assert is_grey(board.ask(grey(4)), 4)


def test_the_front_is_killed_and_comes_back(tmp_path: Path, models: Path) -> None:
    with run_server(tmp_path, models, "--workers", "1") as server, Board(server.endpoint) as board:
        board.wait_until_ready()
        orphans = server.workers()
        number = board.send(grey(5))
        server.child.kill()
        server.child.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
        with run_server(tmp_path, models, "--workers", "1", bind=server.endpoint) as again:
            with Board(again.endpoint) as other:
                other.wait_until_ready()
            assert is_grey(board.ask(grey(6), id=number + 1), 6), "the board is connected again"


def test_a_server_without_workers_is_alive_but_not_ready(tmp_path: Path, models: Path) -> None:
    with run_server(tmp_path, models, "--workers", "0") as server, Board(server.endpoint) as board:
        assert [server.get(path)[0] for path in ("/healthz", "/readyz")] == [200, 503]
        pong = board.pings("trivial")
        assert not getattr(pong, "ready", True)


def test_a_board_that_reads_nothing_does_not_stop_the_others(server: Server) -> None:
    with Board(server.endpoint) as deaf, Board(server.endpoint) as board:
        deaf.socket.setsockopt(zmq.RCVHWM, 1)
        with contextlib.suppress(zmq.Again):  # nothing more is taken from it until it reads
            for _ in range(300):
                deaf.send_bytes(b"garbage")
        assert is_grey(board.ask(grey(7)), 7)


def test_a_server_ends_in_order(tmp_path: Path, models: Path) -> None:
    with run_server(tmp_path, models, "--workers", "2") as server:
        until(lambda: server.metric("beltsight_workers ") == 2)
        pids = server.workers()
        started_s = time.monotonic()
        server.child.send_signal(signal.SIGTERM)
        assert server.child.wait(10) == 0
        assert time.monotonic() - started_s < 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
