"""Parts near the threshold are judged again by a server, behind the board's back: a real board, broker and server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from board.config import decode_config
from board.records.recording import read_recording
from board.sinks.second_opinion import READING
from host.export.trivial import write_trivial_package
from protocol.broker import BrokerSettings
from protocol.errors import ConfigError
from protocol.messages import Opinion, Trigger, Verdict, clock_id, decode_opinion
from protocol.sockets import Socket, open_socket
from protocol.wire import encode_raw_frame
from sim.station import LOOPBACK, ROOT, Process, board_config, free_port
from sim.verdicts import Verdicts
from tests.examples import grey_frame, trivial_station
from tests.host.server.running import Board, run_server, until
from tests.survival.broker import Subscriber

LINE, STRICT = 0.25, 0.1  # thresholds of the board's model and the server's
LOW, HIGH = 0.05, 0.4
BELOW, BOTH_OK, DISPUTED, BOTH_REJECT, ABOVE = 100, 138, 150, 170, 220  # grey levels; (level - 128) / 128 is the score


@dataclass
class Station:
    run: str
    belt: Socket
    verdicts: Verdicts
    opinions: Subscriber
    recordings: Path
    parts: int = 0
    levels: dict[int, int] = field(default_factory=dict)

    def send(self, *levels: int) -> list[Verdict]:
        """The verdicts on parts of these grey levels."""
        for level in levels:
            trigger = Trigger(self.run, self.parts, time.monotonic_ns(), clock_id())
            self.belt.send_multipart(encode_raw_frame(trigger, grey_frame(level), {}))
            self.parts += 1
        assert self.verdicts.wait(lambda: len(self.verdicts.items) == self.parts, 20)
        return self.verdicts.items[-len(levels) :]

    def opinion(self) -> Opinion:
        return decode_opinion(bytes(self.opinions.next().payload))

    def counter(self, name: str) -> int:
        self.verdicts.wait_for_health(5)
        return int(self.verdicts.health[f"second_opinion{name}"])


def write_config(folder: Path, broker: BrokerSettings, server: str, **changes: object) -> Path:
    settings = trivial_station(folder, broker.port)
    keys = {"model": '"strict"', "low": LOW, "high": HIGH, "deadline_ms": 300, "queue_parts": 2, **changes}
    text = board_config(settings).replace('site = "sim"', f'site = "{folder.name}"')
    text += f'[engines.remote]\nendpoint = "{server}"\n[second_opinion]\n'
    path = folder / "line.toml"
    path.write_text(text + "".join(f"{key} = {value}\n" for key, value in keys.items()))
    return path


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A folder of what the server has; the board has one model more."""
    write_trivial_package(tmp_path / "models" / "trivial", threshold=LINE)
    write_trivial_package(tmp_path / "models" / "strict", threshold=STRICT)
    return tmp_path / "models"


@contextlib.contextmanager
def run_board(folder: Path, broker: BrokerSettings, server: str, **changes: object) -> Iterator[Station]:
    path = write_config(folder, broker, server, **changes)
    config = decode_config(path.read_bytes(), "line.toml")
    opinions = Subscriber(broker.port, f"beltsight/{folder.name}/line1/second-opinion", f"opinions-{folder.name}")
    verdicts = Verdicts(broker, "run")
    board = Process("board", [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(path)], folder / "log")
    belt = open_socket("PUSH", config.belt.endpoint, bind=False, high_water_mark=100, linger_ms=1000, timeout_ms=5000)
    try:
        until(lambda: "runs, model" in (folder / "log").read_text())
        yield Station("run", belt, verdicts, opinions, folder / "recordings" / "disagreements")
    finally:
        board.stop()
        belt.close()
        verdicts.close()
        opinions.close()


def test_opinions_follow_the_verdicts_near_the_threshold(tmp_path: Path, served: Path, broker: BrokerSettings) -> None:
    with run_server(tmp_path, served, "--workers", "1") as server:
        with Board(server.endpoint) as asking:
            asking.wait_until_ready("strict")
        with run_board(tmp_path, broker, server.endpoint, deadline_ms=5000, queue_parts=16) as station:
            verdicts = station.send(BELOW, BOTH_OK, DISPUTED, BOTH_REJECT, ABOVE)
            opinions = [station.opinion() for _ in range(3)]
            assert [verdict.decision for verdict in verdicts] == ["OK", "OK", "OK", "REJECT", "REJECT"]
            assert [opinion.part_id for opinion in opinions] == [1, 2, 3]
            assert [opinion.event_id for opinion in opinions] == [verdict.event_id for verdict in verdicts[1:4]]
            assert [opinion.decision for opinion in opinions] == ["OK", "REJECT", "REJECT"]
            assert [opinion.agrees for opinion in opinions] == [True, False, True]
            assert [opinion.score for opinion in opinions] == [verdict.score for verdict in verdicts[1:4]]
            assert {(opinion.model_id, opinion.threshold) for opinion in opinions} == {("strict", STRICT)}
            assert station.counter("s") == 3
            assert station.counter("_disagreements") == 1
            assert station.opinions.messages.empty()
        (record,) = [record for path in sorted(station.recordings.iterdir()) for record in read_recording(path)]
        assert record.verdict == verdicts[2]
        assert record.frame.readings[READING] == opinions[1].score
        assert record.frame.image is not None
        assert round(float(np.mean(record.frame.image))) == DISPUTED


def test_a_server_that_is_gone_delays_nothing_and_is_asked_again(
    tmp_path: Path, served: Path, broker: BrokerSettings
) -> None:
    endpoint = f"tcp://{LOOPBACK}:{free_port()}"
    with run_board(tmp_path, broker, endpoint) as station:
        verdicts = station.send(*[DISPUTED] * 30)
        assert {verdict.decision for verdict in verdicts} == {"OK"}
        assert max(verdict.stages_ms["infer"] + verdict.stages_ms["decide"] for verdict in verdicts) < 250
        until(lambda: station.counter("s_failed") + station.counter("s_dropped") == 30)
        assert station.counter("s_failed") >= 2
        assert station.counter("s_dropped") >= 20, "two wait, what comes on top is dropped"
        assert "gave no answer within 300 ms" in (tmp_path / "log").read_text()
        with run_server(tmp_path, served, "--workers", "1", bind=endpoint) as server:
            with Board(server.endpoint) as asking:
                asking.wait_until_ready("strict")
            until(lambda: bool(station.send(DISPUTED)) and not station.opinions.messages.empty())
            assert not station.opinion().agrees


@pytest.mark.usefixtures("served")
def test_a_server_without_the_model_is_named_in_the_log(tmp_path: Path, broker: BrokerSettings) -> None:
    write_trivial_package(tmp_path / "others" / "other")
    with (
        run_server(tmp_path, tmp_path / "others", "--workers", "1") as server,
        run_board(tmp_path, broker, server.endpoint) as station,
    ):
        station.send(DISPUTED)
        until(lambda: station.counter("s_failed") == 1)
        assert "unknown-model" in (tmp_path / "log").read_text()
        assert station.counter("s") == 0


def test_models_of_different_frames_do_not_go_together(tmp_path: Path, served: Path, broker: BrokerSettings) -> None:
    write_trivial_package(served / "larger", frame_px=300)
    path = write_config(tmp_path, broker, "tcp://127.0.0.1:1", model='"larger"')
    command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "larger takes frames of (300, 300)" in result.stderr


@pytest.mark.parametrize(
    ("wrong", "key"),
    [("low = 0.5", "high"), ("deadline_ms = 0", "deadline_ms"), ("queue_parts = 0", "queue_parts"), ("", "model")],
)
def test_impossible_settings_are_refused_with_their_line(wrong: str, key: str) -> None:
    model = 'model = "strict"\n' if wrong else 'model = "../strict"\n'
    low = "" if wrong.startswith("low") else "low = 0.1\n"
    text = f'model = "trivial"\n[second_opinion]\n{model}{low}high = 0.4\n{wrong}\n'
    with pytest.raises(ConfigError, match=rf"line.toml:\d: second_opinion.{key}"):
        decode_config(text.encode(), "line.toml")
