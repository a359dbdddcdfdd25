"""What the plant may order of a line, as the line's own commands: an id of its own, and an early expiry."""

from __future__ import annotations

import math
import uuid
from collections import OrderedDict
from dataclasses import dataclass

from host.plant.payload import Value
from host.plant.tags import PAUSE, RESUME, THRESHOLD
from protocol.commands import Answer, make_order
from protocol.messages import decode_json, encode_json
from protocol.streams import command_topic

EXPIRES_AFTER_S = 10  # who does not hear it by then is told again, by somebody who looks
REMEMBERED = 64  # thresholds that were ordered and not answered


@dataclass(frozen=True)
class Order:
    command: str
    payload: bytes


class Orders:
    def __init__(self, site: str) -> None:
        self._site = site
        self._thresholds: OrderedDict[str, float] = OrderedDict()

    def topic(self, line: str, command: str) -> str:
        return command_topic(self._site, line, command)

    def order(self, tag: str | None, value: Value) -> Order | None:
        """The order that writing `value` to the tag means, None if it means nothing."""
        if tag == PAUSE.name and value is True:
            return self._make("pause")
        if tag == RESUME.name and value is True:
            return self._make("resume")
        if tag == THRESHOLD.name and _is_number(value):
            return self._make("threshold", value=float(value))  # type: ignore[arg-type]
        return None

    def read_answer(self, payload: bytes) -> dict[str, Value]:
        """Tags of what a line answered, to us or to others. Raises: MessageError."""
        answer = decode_json(Answer, payload)
        values: dict[str, Value] = {
            "Command/ID": answer.id,
            "Command/Obeyed": answer.obeyed,
            "Command/Reason": answer.reason,
        }
        threshold = self._thresholds.pop(answer.id, None)
        if threshold is not None and answer.obeyed:
            values[THRESHOLD.name] = threshold
        return values

    def _make(self, command: str, **more: float) -> Order:
        made = make_order(command, uuid.uuid4().hex, EXPIRES_AFTER_S, more)
        if "value" in more:
            self._thresholds[made.id] = more["value"]
            if len(self._thresholds) > REMEMBERED:
                self._thresholds.popitem(last=False)
        return Order(command, encode_json(made))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
