"""What the line says over MQTT, collected by a client that knows nothing of the board."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import paho.mqtt.client as mqtt

from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.commands import make_order
from protocol.errors import InputError, MessageError
from protocol.messages import Verdict, decode_verdict, encode_json, new_run
from protocol.reports import JUDGING
from protocol.streams import command_topic
from sim.station import LINE, SITE

ORDER_EXPIRES_S = 60.0
OBEYED_WITHIN_S = 30.0


class Verdicts:
    """Verdicts of one run, each event once, in the order of their arrival; and the line's latest state and health."""

    def __init__(self, broker: BrokerSettings, run: str) -> None:
        """Raises: InputError if no broker answers."""
        self.items: list[Verdict] = []
        self.latest_ns = 0  # when the last of them arrived
        self.duplicates = 0
        self.state = ""
        self.state_reason = ""
        self.health: dict[str, Any] = {}
        self._run = run
        self._events: set[str] = set()
        self._news = threading.Condition()
        self._client, _ = connect_broker(broker, f"belt-{new_run()}", prepare=self._prepare)

    @property
    def condition(self) -> str:
        """State and reason in one line."""
        return f"{self.state}: {self.state_reason}" if self.state_reason else self.state

    def wait(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Until `ready()` holds, which is asked again whenever something arrives."""
        with self._news:
            return self._news.wait_for(ready, timeout_s)

    def wait_until_running(self, check: Callable[[], None], timeout_s: float) -> None:
        """Until a board announces itself. `check` raises what is wrong with it. Raises: InputError."""
        deadline_s = time.monotonic() + timeout_s
        # subtle: not every broker gives a state that it retains to who asks for all lines; health is said every second
        while not self.wait(lambda: self.state in JUDGING or (not self.state and bool(self.health)), 0.1):
            check()
            if time.monotonic() > deadline_s:
                raise InputError(self._tell_missing(timeout_s))

    def wait_until_learning(self, check: Callable[[], None]) -> None:
        """Until the board says that the next parts teach it. Raises: InputError."""
        deadline_s = time.monotonic() + OBEYED_WITHIN_S
        while not self.wait(lambda: self.state_reason.startswith("learning"), 0.1):
            check()
            if time.monotonic() > deadline_s:
                raise InputError(f"the board does not learn ({self.condition}): see its board.log")

    def _tell_missing(self, timeout_s: float) -> str:
        if self.state:
            return f"the board is not ready within {timeout_s:.0f} s: {self.condition}"
        return f"no board announced itself within {timeout_s:.0f} s: is board/run.py on this broker?"

    def wait_for_health(self, timeout_s: float) -> None:
        """Until the board's next report, which covers every verdict that has arrived."""
        seen = self.health
        self.wait(lambda: self.health is not seen, timeout_s)

    def order(self, name: str, fields: Mapping[str, object]) -> None:
        """Send the line that was started here a command."""
        order = make_order(name, f"belt-{new_run()}", ORDER_EXPIRES_S, fields)
        self._client.publish(command_topic(SITE, LINE, name), encode_json(order), qos=1)

    def close(self) -> None:
        close_broker(self._client)

    def _prepare(self, client: mqtt.Client) -> None:
        accepted = client.on_connect

        def on_connect(*packet: object) -> None:
            if accepted:
                accepted(*packet)  # type: ignore[arg-type]
            for leaf, qos in (("verdict", 1), ("state", 1), ("health", 0)):
                client.subscribe(f"beltsight/+/+/{leaf}", qos=qos)

        client.on_connect = on_connect
        client.on_message = self._on_message

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        leaf = message.topic.rpartition("/")[2]
        with self._news:
            with contextlib.suppress(MessageError, ValueError):  # a verdict that is none leaves its part lost
                self._take(leaf, bytes(message.payload))
            self._news.notify_all()

    def _take(self, leaf: str, payload: bytes) -> None:
        if leaf == "verdict":
            self._take_verdict(decode_verdict(payload))
            return
        content = json.loads(payload)
        if leaf == "health":
            self.health = content
        else:
            self.state, self.state_reason = str(content["state"]), str(content["reason"])

    def _take_verdict(self, verdict: Verdict) -> None:
        if verdict.run != self._run:
            return
        if verdict.event_id in self._events:
            self.duplicates += 1
            return
        self._events.add(verdict.event_id)
        self.items.append(verdict)
        self.latest_ns = time.monotonic_ns()
