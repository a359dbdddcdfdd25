"""What goes over the link, what became of it, and what of it this broker can never be sent."""

from __future__ import annotations

import time

from board.records.outbox import Entry
from board.records.set_aside import SetAside
from board.sinks.connection import Answer
from board.sinks.delivery import Delivery
from board.sinks.link import BrokerLink
from protocol.errors import SinkError
from protocol.streams import VERDICT

RENEW_EVERY_S = 10.0  # a connection on which nothing is acknowledged
REFUSAL_SHOWN_S = 10.0  # how long a refusal of the broker makes the state degraded


class Posting:
    """Owned by the outbox's thread; its complaint and counts are anybody's."""

    def __init__(self, link: BrokerLink, delivery: Delivery, aside: SetAside, verdict_topic: str) -> None:
        self._link, self._delivery, self._aside, self._topic = link, delivery, aside, verdict_topic
        self._connections = 0
        self._refusal, self._refusal_until_s = "", 0.0
        self._is_overdue, self._renew_at_s = False, 0.0
        self._aside_trouble = ""
        self._set_aside = 0  # since the start
        self.refused = 0  # answers of the broker that it will not have a verdict; it is sent again

    def watch_link(self) -> None:
        """Begin anew over a new connection; give up one on which nothing is acknowledged."""
        if self._link.connections != self._connections:
            self._connections = self._link.connections
            guilty = self._delivery.begin_replay()
            if guilty:
                self._put_aside(guilty, f"the broker hangs up on it ({len(guilty.payload)} bytes)")
            self._link.tell_again()
        self._is_overdue = self._delivery.is_overdue
        if self._is_overdue and self._link.is_up and time.monotonic() >= self._renew_at_s:
            self._renew_at_s = time.monotonic() + RENEW_EVERY_S
            self._link.renew()

    def take_answers(self) -> None:
        for answer in self._link.take_answers():
            if answer.refusal:
                self._note_refused(answer)
            else:
                self._delivery.note_acknowledged(answer.message_id)

    def publish_waiting(self) -> None:
        """As much as the broker takes now; what the line says of itself goes first."""
        if not (self._link.is_up and self._link.flush()):
            return
        limits = self._link.limits
        for entry in self._delivery.next(self._link.room):
            if limits.takes(self._topic, entry.payload):
                self._publish(entry)
            else:
                size = f"{len(entry.payload)} bytes; its packets have at most {limits.packet_bytes}"
                self._put_aside(entry, f"too long for the broker ({size})")

    @property
    def kept(self) -> int:
        """Verdicts in the outbox that this broker cannot be sent, and that have no other place."""
        return self._delivery.kept

    @property
    def complaint(self) -> str:
        """Empty where nothing is wrong."""
        if self._link.is_taken_over:
            return f"another client came as {self._link.client_id}: stop the second station of this line"
        if self._link.is_down:
            broker = self._link.broker
            return f"no broker at {broker.host}:{broker.port}: bring it back; verdicts wait in the outbox"
        if self._link.is_flapping:
            return f"the broker ends our connections: is there a second {self._link.client_id}? its log says it"
        if self._is_overdue:
            return "the broker acknowledges no verdict: see to it and to the network; verdicts wait in the outbox"
        if time.monotonic() < self._refusal_until_s:
            return f"the broker refuses verdicts ({self._refusal}): correct its access rules"
        return self._aside_trouble or self._loss_complaint()

    def counters(self) -> dict[str, object]:
        return {
            "refused_by_broker": self.refused,
            "set_aside": self._aside.count,
            "set_aside_file": str(self._aside.path) if self._aside.count else "",
            "taken_over": self._link.taken_over,
        }

    def _loss_complaint(self) -> str:
        if self._set_aside:
            return f"verdicts that this broker cannot be sent are in {self._aside.path}: raise its limits"
        if self._link.too_long:
            most = self._link.limits.packet_bytes
            return (
                f"the broker takes {most} bytes a packet, and what the line says of itself is longer: raise its limit"
            )
        if self._link.is_up and self._link.limits.qos == 0:
            return "the broker acknowledges nothing (Maximum QoS 0), and may lose verdicts: let it take QoS 1"
        return ""

    def _publish(self, entry: Entry) -> None:
        message_id = self._link.post(VERDICT, entry.payload)
        if message_id is None:
            self._delivery.note_unpublished(entry)
        else:
            self._delivery.note_published(message_id, entry)

    def _note_refused(self, answer: Answer) -> None:
        entry = self._delivery.note_refused(answer.message_id)
        if entry is None:
            return
        self.refused += 1
        if answer.is_too_long:
            self._put_aside(entry, f"too long for the broker ({len(entry.payload)} bytes)")
        else:
            self._refusal, self._refusal_until_s = answer.refusal, time.monotonic() + REFUSAL_SHOWN_S

    def _put_aside(self, entry: Entry, reason: str) -> None:
        """Where that fails it stays in the outbox, and is not sent."""
        try:
            self._aside.add(entry.payload, reason)
        except SinkError as error:
            self._aside_trouble = str(error)
            self._delivery.note_kept(entry.seq)
        else:
            self._set_aside += 1
            self._delivery.note_set_aside(entry.seq)
