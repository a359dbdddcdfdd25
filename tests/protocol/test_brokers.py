"""The brokers that README.md says were tried: a station and its readers on each of them that is installed.

aedes is looked for in build/aedes: `npm install --prefix build/aedes aedes@0.51`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from board.sinks.mqtt import MqttSettings, MqttSink
from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.messages import Frame, Trigger, Verdict, new_run
from protocol.streams import STATE, VERDICT, topic
from sim.station import AMQTT_CONFIG, LOOPBACK, ROOT, Process, broker_command, free_port, wait_for_port
from tests.survival.broker import MOSQUITTO, wait_until

FRAME = Frame(Trigger("run", 0, 0, ""), None)
AEDES = ROOT / "build" / "aedes" / "node_modules" / "aedes"
AEDES_PROGRAM = """
const broker = require(process.argv[1])();
require("net").createServer(broker.handle).listen(Number(process.argv[2]), "127.0.0.1");
"""


def mosquitto(folder: Path, port: int) -> list[str]:
    return broker_command(folder, port) if MOSQUITTO else []


def amqtt(folder: Path, port: int) -> list[str]:
    if not importlib.util.find_spec("amqtt"):
        return []
    config = folder / "amqtt.yaml"
    config.write_text(AMQTT_CONFIG.format(address=f"{LOOPBACK}:{port}"))
    return [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(config)]


def aedes(_folder: Path, port: int) -> list[str]:
    node = shutil.which("node")
    return [node, "-e", AEDES_PROGRAM, str(AEDES), str(port)] if node and AEDES.is_dir() else []


@pytest.fixture(params=[mosquitto, amqtt, aedes], ids=lambda make: str(make.__name__))
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Process]:
    """Starts it, always on the same port."""
    port = free_port()
    command = request.param(tmp_path, port)
    if not command:
        pytest.skip("it is not installed")

    def begin() -> Process:
        process = Process("broker", command, tmp_path / "broker.log")
        wait_for_port(process, port)
        return process

    begin.port = port  # type: ignore[attr-defined]
    return begin


class Reader:
    """Subscribes to one topic in the way of all our programs."""

    def __init__(self, broker: BrokerSettings, where: str) -> None:
        self.messages: list[bytes] = []
        self._client, _ = connect_broker(broker, f"reader-{new_run()}", topics=[where], prepare=self._prepare)

    def _prepare(self, client: Any) -> None:
        client.on_message = lambda _client, _data, message: self.messages.append(bytes(message.payload))

    def close(self) -> None:
        close_broker(self._client)

    @property
    def parts(self) -> set[int]:
        return {json.loads(message)["part_id"] for message in self.messages}

    @property
    def states(self) -> list[str]:
        return [json.loads(message)["state"] for message in self.messages]


@contextlib.contextmanager
def station(folder: Path, broker: BrokerSettings) -> Iterator[MqttSink]:
    settings = MqttSettings(folder / "outbox.sqlite", broker_at_start="optional")
    sink = MqttSink(settings, broker, "plant", "line1", "trivial")
    try:
        yield sink
    finally:
        sink.close()


def judge(sink: MqttSink, sample: Verdict, numbers: range) -> None:
    for number in numbers:
        sink.publish(FRAME, replace(sample, event_id=f"event-{number}", part_id=number), None)


VANISHING = """
import sys, time
from pathlib import Path
from board.sinks.mqtt import MqttSettings, MqttSink
from protocol.broker import BrokerSettings
sink = MqttSink(MqttSettings(Path(sys.argv[1])), BrokerSettings(port=int(sys.argv[2])), "plant", "line1", "trivial")
sink.require_broker()
sink.set_state("running", "")
print("there", flush=True)
time.sleep(60)
"""


def test_verdicts_arrive_also_those_of_a_time_without_it(
    start: Callable[[], Process], tmp_path: Path, verdict: Verdict
) -> None:
    broker = BrokerSettings(LOOPBACK, start.port)  # type: ignore[attr-defined]
    process = start()
    with station(tmp_path, broker) as sink:
        with contextlib.closing(Reader(broker, topic(VERDICT, "plant", "line1"))) as reader:
            judge(sink, verdict, range(40))
            wait_until(lambda: reader.parts == set(range(40)) and sink.waiting == 0)
        process.stop()
        wait_until(lambda: sink.complaint.startswith("no broker at"))
        judge(sink, verdict, range(40, 80))
        process = start()
        try:
            with contextlib.closing(Reader(broker, topic(VERDICT, "plant", "line1"))) as reader:
                judge(sink, verdict, range(80, 90))
                wait_until(lambda: sink.waiting == 0 and sink.complaint == "")
                wait_until(lambda: set(range(80, 90)) <= reader.parts)
        finally:
            process.stop()


def test_the_state_is_kept_and_a_station_that_vanishes_is_lost(start: Callable[[], Process], tmp_path: Path) -> None:
    broker = BrokerSettings(LOOPBACK, start.port)  # type: ignore[attr-defined]
    process = start()
    try:
        command = [sys.executable, "-c", VANISHING, str(tmp_path / "outbox.sqlite"), str(broker.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
            assert child.stdout
            assert child.stdout.readline() == b"there\n"
            with contextlib.closing(Reader(broker, topic(STATE, "plant", "+"))) as later:
                wait_until(lambda: "running" in later.states)
                child.kill()
                wait_until(lambda: later.states[-1] == "lost")
    finally:
        process.stop()
