"""Verdicts over MQTT, through the outbox: stored first, published at QoS 1, removed when the broker acknowledged.

What can be lost: a killed process loses the verdicts of its last `commit_every_ms`, a power cut those of the last
`sync_every_ms` that the broker had not yet acknowledged. With `commit_every_ms = 0` neither loses any: each verdict is
on the disk before its part is done. Parts whose verdict was lost that way become UNKNOWN when the station is back.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from board.commands import Received
from board.records.outbox import Item, Outbox
from board.records.set_aside import SetAside
from board.seams import LastPart
from board.sinks.commits import Commits
from board.sinks.delivery import Delivery
from board.sinks.link import BrokerLink
from board.sinks.posting import Posting
from protocol.broker import BrokerSettings
from protocol.commands import Answer
from protocol.drift import DriftReport, encode_drift
from protocol.errors import SinkError
from protocol.manifest import Package
from protocol.messages import Frame, Opinion, Verdict, encode_json, encode_opinion, encode_verdict, rfc3339_now
from protocol.reports import SWITCHED_OFF, ChallengeReport, LineCondition, LineState
from protocol.streams import CHALLENGE, DRIFT, HEALTH, RESULT, SECOND_OPINION, STATE, VERDICT, topic
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

TURN_S = 0.02
FLUSH_WITHIN_S = 5.0
SILENT_S = 0.5
STORE_WITHIN_S = 5.0  # a card that cleans up keeps a commit waiting for a second


@dataclass(frozen=True)
class MqttSettings:
    outbox: Path = Path("outbox.sqlite")
    max_stored: int = 100_000  # verdicts kept for an absent broker, about 100 MB
    when_full: Literal["stop", "drop-oldest"] = "stop"  # stop: reject every part until there is room
    commit_every_ms: float = 20.0  # verdicts of this time share one commit; 0: one each, synced before the part is done
    sync_every_ms: float = 1000.0  # commits of this time share one sync to the disk
    replay_per_s: float = 1500.0  # pace of the verdicts that waited for the broker, beside the fresh ones
    broker_at_start: Literal["required", "optional"] = "required"
    commands: bool = False  # obey cmd/…: only where the broker's access rules say who may send which

    def __post_init__(self) -> None:
        require(self.max_stored >= 1, "max_stored", "must be 1 or more")
        require(0 <= self.commit_every_ms <= 10_000, "commit_every_ms", "must be 0..10000")
        require(0 <= self.sync_every_ms <= 600_000, "sync_every_ms", "must be 0..600000")
        require(1 <= self.replay_per_s <= 1_000_000, "replay_per_s", "must be 1..1000000")


class MqttSink:
    """One thread owns the outbox and publishes from it; the line only hands verdicts over."""

    def __init__(
        self,
        settings: MqttSettings,
        broker: BrokerSettings,
        site: str,
        line: str,
        model_id: str,
        *,
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """Begins to connect, and does not wait for it. Raises: InputError if the outbox does not open, or
        the broker's credentials are not in order.
        """
        self._settings = settings
        self._wake = threading.Event()
        self._link = BrokerLink(
            broker,
            site,
            line,
            obeys=settings.commands,
            last_state=self._lost_state,
            on_answer=self._wake_for_more,
            supervisor=supervisor,
        )
        self._outbox = Outbox(settings.outbox)
        self.last_part = self._outbox.last_part  # of the run of this program before this one
        self._delivery = Delivery(self._outbox, settings.replay_per_s)
        self._commits = Commits(
            self._outbox,
            self._delivery,
            commit_every_s=settings.commit_every_ms / 1e3,
            sync_every_s=settings.sync_every_ms / 1e3,
        )
        self._posting = Posting(self._link, self._delivery, SetAside(settings.outbox), topic(VERDICT, site, line))
        self._newest_event = ""
        self._trouble = ""
        self._closing = False
        self.dropped = 0  # verdicts that a full outbox lost, where that is wanted
        self.farewell = SWITCHED_OFF  # reason of the last state
        self._state = LineState("stopped", "starting", model_id, rfc3339_now())
        self._tell_state()
        self._thread = supervisor.start("outbox", self._run, silent_s=SILENT_S)

    def require_broker(self) -> None:
        """Wait for the first attempt to connect, where the settings want that. Raises: InputError if it failed."""
        if self._settings.broker_at_start == "required":
            self._link.require()

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:  # noqa: ARG002
        """Raises: SinkError when the outbox is full or does not take it."""
        if verdict.event_id != self._newest_event:  # the line tries again with one that was taken, but not committed
            self._refuse_when_full()
            self._commits.hand_over(Item(encode_verdict(verdict), LastPart(verdict.run, verdict.part_id)))
            self._newest_event = verdict.event_id
        if self._settings.commit_every_ms == 0:
            self._wake.set()
            self._await_commit()

    def set_state(self, state: LineCondition, reason: str) -> None:
        """Publish the line's state if it changed."""
        if (state, reason) != (self._state.state, self._state.reason):
            self._state = replace(self._state, state=state, reason=reason, time=rfc3339_now())
            self._tell_state()

    @property
    def state(self) -> LineState:
        """The latest, published or not."""
        return self._state

    def set_model(self, package: Package) -> None:
        """What the state names from now on."""
        state = replace(
            self._state,
            model_id=package.manifest.id,
            manifest_sha256=package.sha256,
            signed_by=package.signed_by,
        )
        if state != self._state:
            self._state = replace(state, time=rfc3339_now())
            self._tell_state()

    def publish_health(self, health: dict[str, object]) -> None:
        self._link.send(HEALTH, json.dumps(health).encode())

    def publish_opinion(self, opinion: Opinion) -> None:
        self._link.send(SECOND_OPINION, encode_opinion(opinion))

    def publish_challenge(self, report: ChallengeReport) -> None:
        self._link.tell(CHALLENGE, encode_json(report))

    def publish_drift(self, report: DriftReport) -> None:
        self._link.tell(DRIFT, encode_drift(report))

    def take_commands(self) -> list[Received]:
        """What came since the last call."""
        return self._link.take_commands()

    def publish_answer(self, answer: Answer) -> None:
        self._link.send(RESULT, encode_json(answer))

    @property
    def waiting(self) -> int:
        """Verdicts that the broker has not acknowledged."""
        return self._outbox.count - len(self._delivery.acknowledged) + self._commits.unstored

    @property
    def complaint(self) -> str:
        """What is wrong with outbox or broker, as far as the line must say it; empty when nothing is."""
        if self._trouble:
            return self._trouble
        if self.dropped and self.waiting >= self._settings.max_stored:
            return "outbox is full, verdicts are dropped: bring the broker back"
        return self._posting.complaint

    def counters(self) -> dict[str, object]:
        """For the health report."""
        aside = self._outbox.set_aside
        return {
            "unacknowledged": self.waiting,
            "dropped_verdicts": self.dropped,
            "dropped_commands": self._link.dropped_commands,
            "damaged_outbox": str(aside) if aside else "",
            **self._posting.counters(),
        }

    def close(self) -> None:
        """Flush what the broker takes within a few seconds; the rest stays in the outbox."""
        deadline_s = time.monotonic() + FLUSH_WITHIN_S
        while self.waiting > self._posting.kept and self._link.is_up and time.monotonic() < deadline_s:
            time.sleep(0.01)
        self._thread.stop(self._tell_to_end, FLUSH_WITHIN_S)
        self._link.end_attempt(FLUSH_WITHIN_S)
        self.set_state("stopped", self.farewell)
        self._link.close()
        self._outbox.close()

    def _tell_state(self) -> None:
        self._link.tell(STATE, encode_json(self._state))

    def _lost_state(self) -> bytes:
        return encode_json(replace(self._state, state="lost", reason="the station vanished", time=rfc3339_now()))

    def _refuse_when_full(self) -> None:
        if self._trouble:
            raise SinkError(self._trouble)
        if self.waiting >= self._settings.max_stored and self._settings.when_full == "stop":
            raise SinkError(f"outbox is full with {self._settings.max_stored} verdicts: bring the broker back")

    def _await_commit(self) -> None:
        is_stored = self._commits.await_stored(lambda: bool(self._trouble), FLUSH_WITHIN_S)
        if not is_stored or self._trouble:
            raise SinkError(self._trouble or "outbox does not answer")

    # ---- the outbox's thread

    def _tell_to_end(self) -> None:
        self._closing = True
        self._wake.set()

    def _wake_for_more(self) -> None:
        """From the network's thread: the broker has room again."""
        if self._delivery.has_more:
            self._wake.set()

    def _run(self, supervised: Supervised) -> None:
        while not self._closing:
            self._wake.wait(TURN_S)
            self._wake.clear()
            with supervised.busy(STORE_WITHIN_S):
                self._turn()
        self._turn()

    def _turn(self) -> None:
        try:
            if not self._closing:
                self._link.connect_when_due()
            self._posting.watch_link()
            self._posting.take_answers()
            self._commits.store(is_last=self._closing)
            self._drop_surplus()
            self._posting.publish_waiting()
            self._trouble = ""
        except SinkError as error:
            self._trouble = str(error)

    def _drop_surplus(self) -> None:
        surplus = self._outbox.count - self._settings.max_stored
        if surplus > 0 and self._settings.when_full == "drop-oldest":
            self.dropped += self._outbox.drop_oldest(surplus)
