"""Lines as they are seen and commanded over the broker."""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Iterator

import paho.mqtt.client as mqtt

from protocol.broker import BrokerSettings, close_broker, connect_broker
from protocol.commands import Answer, make_order
from protocol.errors import InputError, MessageError
from protocol.messages import build_message, decode_json, decode_table, encode_json
from protocol.reports import HealthReport, LineState
from protocol.streams import COMMAND, HEALTH, RESULT, STATE, command_topic, topic
from protocol.strict import FieldError

EXPIRES_S = 60.0
MAX_UNREAD = 10_000

Report = LineState | HealthReport | Answer
_REPORTS: dict[str, type[Report]] = {STATE.name: LineState, HEALTH.name: HealthReport, RESULT.name: Answer}


class Lines:
    """Of one site, `+` for all. Context manager."""

    def __init__(self, broker: BrokerSettings, site: str = "+") -> None:
        """Raises: InputError if the broker does not let us in."""
        self._heard: queue.Queue[tuple[str, Report]] = queue.Queue(MAX_UNREAD)
        topics = [topic(stream, site, "+") for stream in (STATE, HEALTH, RESULT)]
        client_id = f"beltsight-deploy-{secrets.token_hex(4)}"
        self._client, _ = connect_broker(broker, client_id, topics=topics, prepare=self._prepare)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        close_broker(self._client)

    def command(self, line: str, name: str, within_s: float, **values: object) -> Answer:
        """Have `line`, "site/line", do what the command says. Raises: InputError if it cannot, or does not answer."""
        try:
            order = make_order(name, f"deploy-{secrets.token_hex(6)}", EXPIRES_S, values)
        except FieldError as error:
            raise InputError(
                f"{line} takes no such command ({error}): give the model another id, or correct --serve"
            ) from None
        site, _, own = line.partition("/")
        self._client.publish(command_topic(site, own, name), encode_json(order), qos=COMMAND.qos)
        answer = self.answer(order.id, within_s)
        if answer is None:
            raise InputError(
                f"{line} does not answer within {within_s:.0f} s: see whether it runs, has `commands = true`, and "
                "whether the broker lets you command it"
            )
        return answer

    def answer(self, number: str, within_s: float) -> Answer | None:
        """The next answer to the command of this id."""
        for _, report in self.reports(within_s):
            if isinstance(report, Answer) and report.id == number:
                return report
        return None

    def reports(self, within_s: float) -> Iterator[tuple[str, Report]]:
        """What lines say until then, each with its "site/line"."""
        until_s = time.monotonic() + within_s
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                yield self._heard.get(timeout=left_s)
            except queue.Empty:
                return

    def _prepare(self, client: mqtt.Client) -> None:
        client.on_message = self._on_message

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        _, site, line, name = message.topic.split("/", 3)
        try:
            report = _decode(name, bytes(message.payload))
        except MessageError:  # not one of ours: what is not understood says nothing
            return
        if not self._heard.full():
            self._heard.put((f"{site}/{line}", report))


def _decode(name: str, payload: bytes) -> Report:
    if name == HEALTH.name:  # a station adds counters of its own
        content = decode_table("health report", payload)
        known = HealthReport.__dataclass_fields__
        return build_message(HealthReport, {key: content[key] for key in content if key in known})
    return decode_json(_REPORTS[name], payload)
