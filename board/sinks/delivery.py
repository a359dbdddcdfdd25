"""Which stored verdicts go to the broker next: fresh ones at once, those of an outage in order, paced, marked as late.

An entry stays in the outbox until the broker acknowledged it; one that the broker refused waits and goes again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

from board.records.outbox import Entry, Outbox

MAX_IN_FLIGHT = 64  # verdicts published and not acknowledged
MAX_LATE_IN_FLIGHT = MAX_IN_FLIGHT // 2  # the rest is left to fresh ones
ACKNOWLEDGED_WITHIN_S = 3.0  # a broker at work takes milliseconds
RETRY_REFUSED_S = 5.0  # after a refusal; fresh verdicts, which show when the broker takes them again, do not wait


class Delivery:
    """Owned by the outbox's thread."""

    def __init__(self, outbox: Outbox, replay_per_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._outbox = outbox
        self._replay_per_s = replay_per_s
        self._clock_s = clock_s
        self._in_flight: dict[int, tuple[int, float]] = {}  # message id → seq, when it was published
        self._fresh_until = self._late_until = outbox.last_seq
        self._replayed_until = 0  # late ones up to here were published
        self._replay_from_s = 0.0  # what may be replayed now counts from here
        self.acknowledged: list[int] = []  # still in the outbox

    def begin_replay(self) -> None:
        """The broker is back: what is stored by now is late."""
        self._fresh_until = self._late_until = self._outbox.last_seq
        now_s = self._clock_s()  # the client sends again what is in flight
        self._in_flight = {message_id: (seq, now_s) for message_id, (seq, _) in self._in_flight.items()}

    def next(self) -> list[Entry]:
        """To be published now, in this order; `note_published` is to follow for each."""
        fresh = self._outbox.read_after(self._fresh_until, MAX_IN_FLIGHT - len(self._in_flight))
        if fresh:
            self._fresh_until = fresh[-1].seq
        return fresh + self._next_late(len(fresh))

    @property
    def is_overdue(self) -> bool:
        """A verdict waits for its acknowledgement for longer than any that comes."""
        first_s = next((published_s for _, published_s in self._in_flight.values()), math.inf)
        return self._clock_s() - first_s > ACKNOWLEDGED_WITHIN_S

    def note_published(self, message_id: int, entry: Entry) -> None:
        self._in_flight[message_id] = (entry.seq, self._clock_s())

    def note_acknowledged(self, message_id: int) -> None:
        seq, _ = self._in_flight.pop(message_id, (None, 0.0))
        if seq is not None:
            self.acknowledged.append(seq)

    def note_refused(self, message_id: int) -> None:
        seq, _ = self._in_flight.pop(message_id, (None, 0.0))
        if seq is not None:
            self._replayed_until = min(self._replayed_until, seq - 1)
            self._late_until = self._fresh_until
            self._replay_from_s = self._clock_s() + RETRY_REFUSED_S

    def _next_late(self, fresh: int) -> list[Entry]:
        room = min(MAX_IN_FLIGHT - len(self._in_flight) - fresh, self._late_room(), self._allowance())
        if room <= 0 or self._replayed_until >= self._late_until:
            return []
        sent = {*(seq for seq, _ in self._in_flight.values()), *self.acknowledged}
        stored = self._outbox.read_after(self._replayed_until, room + len(sent))
        late = [entry for entry in stored if entry.seq <= self._late_until and entry.seq not in sent][:room]
        self._replayed_until = late[-1].seq if late else self._late_until
        self._replay_from_s += len(late) / self._replay_per_s
        return [Entry(entry.seq, mark_late(entry.payload)) for entry in late]

    def _late_room(self) -> int:
        return MAX_LATE_IN_FLIGHT - sum(seq <= self._late_until for seq, _ in self._in_flight.values())

    def _allowance(self) -> int:
        """How many the pace lets go now; what was not used for long is no burst later."""
        now_s = self._clock_s()
        self._replay_from_s = max(self._replay_from_s, now_s - MAX_LATE_IN_FLIGHT / self._replay_per_s)
        return int(
            (now_s - self._replay_from_s) * self._replay_per_s + 1e-6
        )  # a whole number may come out a hair below


def mark_late(payload: bytes) -> bytes:
    """The verdict with `late` true. Bytes that are no JSON, out of a file that was damaged, go as they are."""
    try:
        record = json.loads(payload)
        late = {**record, "late": True} if isinstance(record, dict) else None
        return payload if late is None else json.dumps(late, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return payload
