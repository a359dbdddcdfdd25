"""Connections to real brokers: MQTT 5 and 3.1.1, and none at all."""

from __future__ import annotations

import contextlib
import importlib.util
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from protocol.broker import BrokerSettings, Will, close_broker, connect_broker
from protocol.errors import InputError
from protocol.strict import FieldError
from sim.station import AMQTT_CONFIG, LOOPBACK, Process, broker_command, free_port, wait_for_port

WITHIN_S = 10


def amqtt_command(folder: Path, port: int) -> list[str]:
    config = folder / "amqtt.yaml"
    config.write_text(AMQTT_CONFIG.format(address=f"{LOOPBACK}:{port}"))
    return [sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(config)]


@contextlib.contextmanager
def running(folder: Path, command: list[str], port: int) -> Iterator[BrokerSettings]:
    process = Process("broker", command, folder / "broker.log")
    try:
        wait_for_port(process, port)
        yield BrokerSettings(LOOPBACK, port)
    finally:
        process.stop()


@pytest.fixture(scope="module")
def old_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerSettings]:
    """One that speaks MQTT 3.1.1 only."""
    if not importlib.util.find_spec("amqtt"):
        pytest.skip("amqtt is not installed")
    folder, port = tmp_path_factory.mktemp("amqtt"), free_port()
    with running(folder, amqtt_command(folder, port), port) as settings:
        yield settings


class Listener:
    """Connected and subscribed to one topic; what arrives waits in `messages`."""

    def __init__(self, settings: BrokerSettings, client_id: str, topic: str, *, will: Will | None = None) -> None:
        self.messages: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
        self._subscribed = threading.Event()
        self.client, self.connected = connect_broker(settings, client_id, will=will, prepare=self._prepare)
        self.client.subscribe(topic, qos=1)
        assert self._subscribed.wait(WITHIN_S)

    def _prepare(self, client: mqtt.Client) -> None:
        client.on_message = lambda _client, _data, message: self.messages.put(message)
        client.on_subscribe = lambda *_: self._subscribed.set()

    def close(self) -> None:
        close_broker(self.client)


@contextlib.contextmanager
def listening(settings: BrokerSettings, topic: str) -> Iterator[Listener]:
    listener = Listener(settings, f"listener-{topic}", topic)
    try:
        yield listener
    finally:
        listener.close()


def test_mosquitto_is_spoken_to_in_mqtt_5(tmp_path: Path, port: int) -> None:
    if not shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin"):
        pytest.skip("mosquitto is not installed")
    with running(tmp_path, broker_command(tmp_path, port), port) as broker, listening(broker, "t5") as listener:
        assert listener.client.protocol == MQTTProtocolVersion.MQTTv5
        listener.client.publish("t5", b"hello", qos=1)
        assert listener.messages.get(timeout=WITHIN_S).payload == b"hello"


def test_a_broker_of_3_1_1_is_spoken_to_in_3_1_1(old_broker: BrokerSettings) -> None:
    with listening(old_broker, "t3") as listener:
        assert listener.client.protocol == MQTTProtocolVersion.MQTTv311
        listener.client.publish("t3", b"hello", qos=1)
        assert listener.messages.get(timeout=WITHIN_S).payload == b"hello"


VANISHING_CLIENT = """
import sys, time
from protocol.broker import BrokerSettings, Will, connect_broker
client, _ = connect_broker(
    BrokerSettings(port=int(sys.argv[1])), "vanishing", will=Will(sys.argv[2], b"lost"), prepare=lambda _: None)
print("connected", flush=True)
time.sleep(60)
"""


def check_last_will(settings: BrokerSettings) -> None:
    with listening(settings, "will/state") as listener:
        command = [sys.executable, "-c", VANISHING_CLIENT, str(settings.port), "will/state"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"connected\n"
            assert listener.messages.empty(), "the probe for the version must not leave a last will"
            child.kill()
        assert listener.messages.get(timeout=WITHIN_S).payload == b"lost"


def test_the_broker_publishes_the_last_will(broker: BrokerSettings) -> None:
    check_last_will(broker)


def test_a_broker_of_3_1_1_publishes_the_last_will(old_broker: BrokerSettings) -> None:
    check_last_will(old_broker)


def test_who_closes_in_order_leaves_no_will(broker: BrokerSettings) -> None:
    if not shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin"):
        pytest.skip("mosquitto is not installed")  # amqtt sends new subscribers retained messages of other topics
    with listening(broker, "orderly") as listener:
        leaving = Listener(broker, "leaving", "orderly", will=Will("orderly", b"lost"))
        leaving.close()
        listener.client.publish("orderly", b"next", qos=1)
        assert listener.messages.get(timeout=WITHIN_S).payload == b"next"
        assert not leaving.connected.event.is_set()


def connect(port: int) -> None:
    connect_broker(BrokerSettings(LOOPBACK, port), "client", prepare=lambda _: None)


def test_no_broker_says_what_to_do(port: int) -> None:
    advice = rf"no MQTT broker at {LOOPBACK}:{port} \(.*\): start one, or correct its address"
    with pytest.raises(InputError, match=advice):
        connect(port)


def test_a_host_without_a_name_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"no MQTT broker at no-such-host\.invalid:1883"):
        connect_broker(BrokerSettings("no-such-host.invalid"), "client", prepare=lambda _: None)


@contextlib.contextmanager
def no_broker(answer: bytes) -> Iterator[int]:
    """A port whose listener sends `answer` and hangs up."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = server.accept()
                with caller:
                    caller.recv(1000)
                    caller.sendall(answer)

    with socket.create_server((LOOPBACK, 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(WITHIN_S)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_no_broker_is_found_out_at_once(answer: bytes) -> None:
    started_s = time.monotonic()
    with no_broker(answer) as port, pytest.raises(InputError, match=r"does not answer: is it an MQTT broker\?"):
        connect(port)
    assert time.monotonic() - started_s < 3


def test_what_never_answers_is_given_up() -> None:
    with socket.create_server((LOOPBACK, 0)) as server, pytest.raises(InputError, match="does not answer"):
        connect(server.getsockname()[1])


def test_a_broker_that_refuses_us_says_why(tmp_path: Path, port: int) -> None:
    command = broker_command(tmp_path, port)
    if not command[0].endswith("mosquitto"):
        pytest.skip("mosquitto is not installed")
    config = tmp_path / "mosquitto.conf"
    config.write_text(config.read_text().replace("allow_anonymous true", "allow_anonymous false"))
    refusal = r"refuses us \(Not authorized\): check its listeners and access rules, and our user"
    with running(tmp_path, command, port), pytest.raises(InputError, match=refusal):
        connect(port)


@pytest.mark.parametrize("host", ["", "a..b", ".", "a b", "x" * 64, "\0"])
def test_what_cannot_be_a_host_is_refused_before_anything_is_started(host: str) -> None:
    with pytest.raises(FieldError, match="must be a name or an address"):
        BrokerSettings(host)


@pytest.mark.parametrize("host", ["localhost", "192.0.2.1", "::1", "broker.plant.example", "bücher.example"])
def test_hosts(host: str) -> None:
    assert BrokerSettings(host).host == host
