"""The page's program, started for a test, and whoever speaks to it: a browser's HTTP, a station's MQTT and tap."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from board.seams import ResultSink
from board.sinks.tap import TapSettings, TapSink
from host.dashboard.identity import part_key
from host.dashboard.passwords import set_password
from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.messages import Frame, Trigger, Verdict, encode_verdict, rfc3339_now
from protocol.streams import HEALTH, STATE, VERDICT, topic
from sim.station import LOOPBACK, ROOT, Process, free_port, wait_for_port
from tests.examples import VERDICT as EXAMPLE

SITE = "plant"
USER, PASSWORD = "anna", "correct horse"
MAP_SCALE = 0.25


@dataclass(frozen=True)
class Page:
    """A page that runs, or can be started again."""

    folder: Path
    port: int
    config: Path
    options: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None  # of a browser that trusts it

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{LOOPBACK}:{self.port}/"

    @property
    def client(self) -> Client:
        return Client(self.port, tls=self.tls)

    @property
    def command(self) -> list[str]:
        command = [sys.executable, "-m", "host.dashboard", "--config", str(self.config), *self.options]
        command += ["--listen", f"{LOOPBACK}:{self.port}", "--folder", str(self.folder / "page")]
        return [*command, "--passwords", str(self.folder / "passwords")]

    @contextlib.contextmanager
    def run(self) -> Iterator[Process]:
        process = Process("page", self.command, self.folder / "page.log")
        try:
            wait_for_port(process, self.port)
            assert eventually(lambda: not summary(self.client)["reason"].startswith("connecting"), 60.0)
            yield process
        finally:
            process.stop()


def page_of(config: Path, *options: str, tls: ssl.SSLContext | None = None) -> Page:
    """For the line of this file. `USER` may act."""
    folder = config.parent
    set_password(folder / "passwords", USER, PASSWORD)
    return Page(folder, free_port(), config, options, tls)


def write_config(folder: Path, broker: BrokerSettings, line: str, tap_port: int) -> Path:
    """Of a line without a board."""
    config = folder / "line.toml"
    config.write_text(
        f'model = "trivial"\nsite = "{SITE}"\nline = "{line}"\nmodels_dir = "models"\n'
        f'[broker]\nhost = "{broker.host}"\nport = {broker.port}\n'
        f'[tap]\nendpoint = "tcp://{LOOPBACK}:{tap_port}"\n[recorder]\nfolder = "recordings"\n'
    )
    return config


@dataclass
class Client:
    """A browser as far as HTTP goes."""

    port: int
    cookie: str = ""
    token: str = ""
    headers: dict[str, str] = field(default_factory=dict)  # with each request
    tls: ssl.SSLContext | None = None

    def connect(self, timeout_s: float = 60) -> http.client.HTTPConnection:
        if self.tls:
            return http.client.HTTPSConnection(LOOPBACK, self.port, timeout=timeout_s, context=self.tls)
        return http.client.HTTPConnection(LOOPBACK, self.port, timeout=timeout_s)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self.connect()
        cookies = {"Cookie": f"beltsight={self.cookie}"} if self.cookie else {}
        try:
            connection.request(method, path, body, {**cookies, **self.headers, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, _, body = self.ask("GET", path)
        assert status == 200, (path, status, body[:300])
        return json.loads(body)

    def post(self, path: str, content: object, **headers: str) -> tuple[int, Any]:
        sent = {"Content-Type": "application/json", "X-Beltsight-Token": self.token, **headers}
        status, _, body = self.ask("POST", path, json.dumps(content).encode(), sent)
        return status, json.loads(body)

    def log_in(self) -> None:
        body = json.dumps({"user": USER, "password": PASSWORD}).encode()
        status, headers, answer = self.ask("POST", "/api/login", body, {"Content-Type": "application/json"})
        assert status == 200, answer
        self.cookie = headers["set-cookie"].partition("=")[2].partition(";")[0]
        self.token = json.loads(answer)["token"]


class Speaker:
    """Says over MQTT and tap what a station says."""

    def __init__(self, broker: BrokerSettings, line: str, tap_port: int) -> None:
        self.line = line
        self._client, _ = connect_broker(broker, f"speaker-{line}", prepare=lambda _client: None)
        self._tap: ResultSink = TapSink(TapSettings(f"tcp://{LOOPBACK}:{tap_port}"), lambda: MAP_SCALE)

    def part(self, part_id: int, **changes: Any) -> Verdict:
        own = {"site": SITE, "line": self.line, "event_id": f"{self.line}-{part_id}", "time": rfc3339_now()}
        return replace(EXAMPLE, part_id=part_id, **{**own, **changes})

    def say(self, verdict: Verdict) -> None:
        self.send(VERDICT.name, encode_verdict(verdict))

    def send(self, name: str, payload: bytes, *, retain: bool = False) -> None:
        """Until the broker has it."""
        info = self._client.publish(topic(VERDICT, SITE, self.line).removesuffix("verdict") + name, payload, 1, retain)
        info.wait_for_publish(10)
        assert info.is_published()

    def say_state(self, state: str, reason: str = "", *, model_id: str = "trivial") -> None:
        content = {"state": state, "reason": reason, "model_id": model_id, "time": rfc3339_now()}
        self.send(STATE.name, json.dumps(content).encode(), retain=True)

    def say_health(self) -> None:
        self.send(HEALTH.name, json.dumps({"time": rfc3339_now(), "parts": 3}).encode())

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Its health every second, as a station's: else the page takes it for lost."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(1.0):
                self.say_health()

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def show(self, verdict: Verdict, level: int = 128) -> None:
        """On the tap: a grey picture, and a map with one strange corner."""
        self.show_image(verdict, np.full((64, 64, 3), level, np.uint8))

    def show_image(self, verdict: Verdict, image: NDArray[np.uint8], *, strange: bool = True) -> None:
        anomaly = np.zeros((8, 8), np.int8)
        anomaly[1:4, 1:4] = 40 if strange else 0
        self._tap.publish(Frame(Trigger(verdict.run, verdict.part_id, 0, "clock"), image), verdict, anomaly)

    def wait_until_seen(self, client: Client) -> None:
        """The page's subscription to the tap takes a moment, and what is shown before is lost."""
        part = self.part(1)

        def is_seen() -> bool:
            self.show(part)
            return client.ask("GET", f"/pictures/{part_key(part.event_id)}.jpg")[0] == 200

        assert eventually(is_seen)

    def close(self) -> None:
        self._tap.close()
        close_broker(self._client)


def summary(client: Client) -> dict[str, Any]:
    """The next one that goes to every open page."""
    connection = client.connect(timeout_s=30)
    connection.request("GET", "/api/events")
    with contextlib.closing(connection), connection.getresponse() as stream:
        for line in stream:
            if line == b"event: summary\n":
                content: dict[str, Any] = json.loads(stream.readline().removeprefix(b"data: "))
                return content
    raise AssertionError("the stream ended")


def eventually(ready: Callable[[], bool], within_s: float = 20.0) -> bool:
    until_s = time.monotonic() + within_s
    while not ready() and time.monotonic() < until_s:
        time.sleep(0.1)
    return ready()


def refuse(*options: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """The program with these options, which it should not take."""
    command = [sys.executable, "-m", "host.dashboard", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, input=text)
