"""The broker, by a connection of its own beside the station's: TLS, credentials, access; and what a station says there.

Nothing is published: whoever listens must not take a check for a verdict.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.reasoncodes import ReasonCode

from board.checkup.finding import Finding, fail, ok, refused, warn
from board.config import LineConfig
from protocol.broker import close_broker, connect_broker
from protocol.commands import ORDERS
from protocol.errors import InputError
from protocol.limits import Limits
from protocol.messages import new_run
from protocol.streams import HEALTH, STATE, client_id, command_topic, topic

GRANTED_WITHIN_S = 5.0
VERDICT_BYTES = 4096  # a long one, with many readings
HEARD_WITHIN_S = 2.5  # a station reports its health every second


class Listener:
    """A client that subscribes to what the station hears and says."""

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics
        self._asked: dict[int, str] = {}
        self.refused: set[str] = set()
        self.heard: dict[str, dict[str, Any]] = {}  # newest JSON object by the topic's last level
        self._answered = 0
        self.news = threading.Condition()

    def prepare(self, client: mqtt.Client) -> None:
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message

    def subscribe(self, client: mqtt.Client) -> bool:
        """Whether the broker answered for every topic."""
        with self.news:
            for name in self._topics:
                _, message_id = client.subscribe(name, 1)
                self._asked[message_id or 0] = name
            return self.news.wait_for(lambda: self._answered == len(self._topics), GRANTED_WITHIN_S)

    def _on_subscribe(self, _client: mqtt.Client, _data: object, mid: int, codes: list[ReasonCode], _: object) -> None:
        with self.news:
            self._answered += 1
            if any(code.is_failure for code in codes):
                self.refused.add(self._asked[mid])
            self.news.notify_all()

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            content = json.loads(message.payload)
        except (ValueError, RecursionError):  # not of a station of ours
            return
        with self.news:
            if isinstance(content, dict):
                self.heard[message.topic.rpartition("/")[2]] = content
            self.news.notify_all()


def check_broker(config: LineConfig) -> list[Finding]:
    """Connect as the station does, under another client id: the same would throw the station out."""
    where = f"{config.broker.host}:{config.broker.port}"
    commands = [command_topic(config.site, config.line, name) for name in ORDERS] if config.mqtt.commands else []
    said = [topic(stream, config.site, config.line) for stream in (STATE, HEALTH)]
    listener = Listener([*commands, *said])
    ours = client_id("doctor", config.site, config.line, new_run())
    try:
        client, connected = connect_broker(config.broker, ours, prepare=listener.prepare)
    except InputError as error:
        return [refused("broker", error)]
    try:
        if not listener.subscribe(client):
            return [fail("broker", f"{where} accepts us and answers no subscription", "look at the broker's log")]
        with listener.news:
            listener.news.wait_for(lambda: len(listener.heard) == 2, HEARD_WITHIN_S)
    finally:
        close_broker(client)
    link = [_describe_link(config, where), *_judge_limits(connected.limits)]
    return [*link, *_judge_access(commands, listener), *_judge_station(listener)]


def _describe_link(config: LineConfig, where: str) -> Finding:
    credentials = config.broker.credentials
    tls = "with TLS" if credentials.ca_file else "without TLS"
    user = f", as {credentials.user}" if credentials.user else ", without a user"
    return ok("broker", f"connected to {where} {tls}{user}")


def _judge_limits(limits: Limits) -> list[Finding]:
    """What the broker said when it accepted us (MQTT 5.0, 3.2.2.3)."""
    findings = []
    if limits.qos == 0:
        advice = "let it take QoS 1 (mosquitto: max_qos)"
        findings.append(warn("broker", "it acknowledges nothing, and may lose verdicts", advice))
    if limits.packet_bytes < VERDICT_BYTES:
        shown = f"it takes packets of at most {limits.packet_bytes} bytes"
        findings.append(warn("broker", shown, f"let it take {VERDICT_BYTES} (mosquitto: max_packet_size)"))
    if not limits.retains:
        shown = "it keeps no state for those who come later"
        findings.append(warn("broker", shown, "let it retain messages (mosquitto: retain_available)"))
    return findings


def _judge_access(commands: list[str], listener: Listener) -> list[Finding]:
    # subtle: mosquitto's acl_file grants every subscription, and delivers nothing on what it forbids
    closed = [name for name in commands if name in listener.refused]
    if closed:
        return [fail("access", f"may not subscribe to {', '.join(closed)}", "allow it in the broker's access rules")]
    if listener.refused:
        return [warn("access", "may not read what the station says", "nothing, if that is wanted: see it elsewhere")]
    return [ok("access", f"the broker grants us {len(commands)} commands to hear")] if commands else []


def _judge_station(listener: Listener) -> list[Finding]:
    """What a running station says of itself: it knows best, and about its right to publish it alone."""
    state, health = listener.heard.get(STATE.name), listener.heard.get(HEALTH.name)
    if state is None:
        return [ok("station", "none has spoken on this broker yet")]
    says, reason = str(state.get("state")), str(state.get("reason", ""))
    shown = f"{says}: {reason}" if reason else says
    if says == "lost":
        return [fail("station", shown, "look whether it runs: systemctl status beltsight")]
    findings = [ok("station", shown) if says == "running" else warn("station", shown, "see what it says")]
    refusals = health.get("refused_by_broker", 0) if health else 0
    if refusals:
        advice = "allow the station's user to publish, as in board/mosquitto/acl"
        findings.append(fail("access", f"the broker refused {refusals} of its verdicts", advice))
    if health and health.get("taken_over"):
        shown = f"another client came {health['taken_over']} times as the station"
        findings.append(fail("client id", shown, "stop the second station of this site and line"))
    return findings
