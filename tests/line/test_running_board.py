"""A board that runs on its own: belts come and go, and rubbish on its socket does no harm."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.export.trivial import write_trivial_package
from protocol.broker import BrokerSettings
from protocol.messages import Trigger, clock_id
from protocol.sockets import Socket, open_socket
from protocol.wire import EndOfRun, FrameHeader, FrameMessage, encode_message, encode_raw_frame
from sim.station import LOOPBACK, StationSettings, free_port, start_board, start_broker
from sim.verdicts import Verdicts
from tests.examples import grey_frame, trivial_station

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StationSettings]:
    folder = tmp_path_factory.mktemp("station")
    write_trivial_package(folder / "models" / "trivial")
    settings = trivial_station(folder, free_port())
    with start_broker(folder, settings.mqtt_port), start_board(settings) as board:
        ready = Verdicts(BrokerSettings(LOOPBACK, settings.mqtt_port), "nobody")
        ready.wait_until_running(board.check, 30)
        ready.close()
        yield settings


@pytest.fixture
def belt(station: StationSettings) -> Iterator[Socket]:
    endpoint = f"tcp://{LOOPBACK}:{station.belt_port}"
    socket = open_socket("PUSH", endpoint, bind=False, high_water_mark=10, linger_ms=1000, timeout_ms=5000)
    yield socket
    socket.close()


def convey(station: StationSettings, report: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "sim" / "conveyor.py"), "--models", str(station.models_dir)]
    command += ["--model", "trivial", "--connect", f"tcp://{LOOPBACK}:{station.belt_port}"]
    command += ["--broker", f"{LOOPBACK}:{station.mqtt_port}", "--report", str(report)]
    command += ["--tap", f"tcp://{LOOPBACK}:{station.tap_port}", "--as-fast-as-possible", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_one_belt_after_the_other(station: StationSettings, tmp_path: Path) -> None:
    for number in range(2):
        picture = tmp_path / f"{number}.png"
        result = convey(station, tmp_path / "report.json", "--parts", "15", "--picture", str(picture))
        assert result.returncode == 0, result.stderr
        report = json.loads((tmp_path / "report.json").read_text())
        assert (report["parts"], report["verdicts"], report["unknown"], report["lost"]) == (15, 15, 0, 0)
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_corrupt_frames_are_unknown_and_the_line_goes_on(station: StationSettings, belt: Socket) -> None:
    run = f"rubbish-{time.monotonic_ns()}"
    verdicts = Verdicts(BrokerSettings(LOOPBACK, station.mqtt_port), run)

    def trigger(part_id: int) -> Trigger:
        return Trigger(run, part_id, time.monotonic_ns(), clock_id())

    time.sleep(0.2)  # the subscription
    belt.send_multipart(encode_raw_frame(trigger(0), grey_frame(40), {}))
    belt.send_multipart([b"no message of ours", b"at all"])
    belt.send_multipart(encode_message(FrameMessage(FrameHeader(trigger(1), (256, 256)), b"too few pixels")))
    belt.send_multipart(encode_message(FrameMessage(FrameHeader(trigger(2), (256, 256), "jpeg"), b"\xff\xd8\xff")))
    belt.send_multipart(encode_raw_frame(trigger(3), grey_frame(40)[:100], {}))
    belt.send_multipart(encode_raw_frame(trigger(5), grey_frame(40), {}))  # part 4 never comes
    belt.send_multipart(encode_message(EndOfRun(run, 7)))  # nor does part 6
    assert verdicts.wait(lambda: len(verdicts.items) == 7, 20)
    verdicts.close()
    assert [verdict.part_id for verdict in verdicts.items] == list(range(7))
    assert [verdict.decision for verdict in verdicts.items] == ["OK"] + ["UNKNOWN"] * 4 + ["OK", "UNKNOWN"]
    assert "corrupt" in verdicts.items[1].reason
    assert "corrupt" in verdicts.items[2].reason
    assert "256x100" in verdicts.items[3].reason
    assert "lost" in verdicts.items[4].reason
