"""Mosquitto that can be killed, and subscribers that miss nothing of what it passed on."""

from __future__ import annotations

import contextlib
import queue
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from protocol.broker import BrokerSettings
from protocol.messages import Verdict, decode_verdict
from sim.station import LOOPBACK, free_port

WITHIN_S = 20.0
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def open_client(client_id: str) -> mqtt.Client:
    """With a session that the broker keeps."""
    version = MQTTProtocolVersion.MQTTv311  # every broker speaks it
    return mqtt.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False, protocol=version)


class Subscriber:
    """A plain client; what the broker keeps for it while it is away comes when it is back."""

    def __init__(self, port: int, topic: str, client_id: str, qos: int = 1) -> None:
        self.messages: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
        self._topic = topic
        self.subscribed = False
        self._client = open_client(client_id)
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topic, qos=qos)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = lambda _client, _data, message: self.messages.put(message)
        self._client.connect(LOOPBACK, port)
        self._client.loop_start()
        wait_until(lambda: self.subscribed)

    def _on_subscribe(self, *_: object) -> None:
        self.subscribed = True

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # no ring of references: paho closes its own sockets when nobody knows it any more
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None

    def next(self) -> mqtt.MQTTMessage:
        return self.messages.get(timeout=WITHIN_S)

    def verdicts(self, count: int) -> list[Verdict]:
        """Until `count` different ones have come, in the order of their first arrival."""
        seen: dict[str, Verdict] = {}
        while len(seen) < count:
            verdict = decode_verdict(bytes(self.next().payload))
            seen.setdefault(verdict.event_id, verdict)
        return list(seen.values())

    def until(self, event_id: str) -> list[Verdict]:
        """In the order of arrival, some of them twice, up to this one."""
        arrived = [decode_verdict(bytes(self.next().payload))]
        while arrived[-1].event_id != event_id:
            arrived.append(decode_verdict(bytes(self.next().payload)))
        return arrived

    def until_now(self) -> list[Verdict]:
        return [decode_verdict(bytes(self.next().payload)) for _ in range(self.messages.qsize())]


# subtle: with a `topic` rule mosquitto drops, after a restart and with a PUBACK to the station, what comes before the
# subscriber is back: the rule does not hold for a session out of its file (mosquitto's issue 384). A pattern does.
ANYTHING = "pattern readwrite #"


class MortalBroker:
    """Mosquitto that can be killed. The subscription is in its file before the test starts it, so that the test's
    subscriber misses nothing, whoever connects first."""

    def __init__(self, folder: Path, topic: str, limits: str = "max_inflight_messages 0") -> None:
        """`limits`: lines of its configuration. As they stand it passes on what it acknowledges, and takes nothing with
        it into death.
        """
        self.settings = BrokerSettings(LOOPBACK, free_port())
        self._folder, self._topic = folder, topic
        (folder / "mosquitto.conf").write_text(
            f"listener {self.settings.port} {LOOPBACK}\nallow_anonymous true\n"
            f"persistence true\npersistence_location {folder}/\nuser root\n"
            f"acl_file {folder}/acl\n"
            f"{limits}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.allow(ANYTHING)
        self.start()
        self.subscribe().close()
        self._end(signal.SIGTERM)  # writes its file

    def start(self) -> None:
        with (self._folder / "mosquitto.log").open("ab") as log:
            command = [str(MOSQUITTO), "-c", str(self._folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._listens)

    def allow(self, rule: str) -> None:
        """Replace the access rules."""
        (self._folder / "acl").write_text(rule + "\n")
        (self._folder / "acl").chmod(0o600)
        if self._process:
            self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def hold(self, seconds: float) -> None:
        """It stands still: its sockets stay open, and nobody answers."""
        if self._process:
            self._process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait(WITHIN_S)
            self._process = None

    def subscribe(self) -> Subscriber:
        return Subscriber(self.settings.port, self._topic, "subscriber")

    def read_along(self) -> Subscriber:
        """A second reader, that acknowledges nothing: what the broker sent before its death is read to the end, where
        the first reader hangs up as soon as an acknowledgement fails."""
        return Subscriber(self.settings.port, self._topic, "reader", qos=0)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.settings.port), 1):
            return True
        return False
