"""Which stored verdicts go to the broker next: fresh ones at once, those of an outage in order, paced, marked as late.

An entry stays in the outbox until the broker acknowledged it; one that the broker refused waits and goes again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

from board.records.outbox import Entry, Outbox
from board.sinks.suspects import Suspects

MAX_IN_FLIGHT = 64  # verdicts published and not acknowledged, where the broker takes as many
MAX_LATE_IN_FLIGHT = MAX_IN_FLIGHT // 2  # the rest is left to fresh ones
YOUNG_S = 10.0  # a connection that breaks sooner may have broken on what it was sent
ACKNOWLEDGED_WITHIN_S = 3.0  # a broker at work takes milliseconds
RETRY_REFUSED_S = 5.0  # after a refusal; fresh verdicts, which show when the broker takes them again, do not wait
FRESH = b'"late":false}'  # as a verdict ends


class Delivery:
    """Owned by the outbox's thread."""

    def __init__(self, outbox: Outbox, replay_per_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._outbox = outbox
        self._replay_per_s = replay_per_s
        self._clock_s = clock_s
        self._in_flight: dict[int, tuple[Entry, float]] = {}  # by message id, with the time when it was published
        self._fresh_until = self._late_until = outbox.last_seq
        self._replayed_until = 0  # late ones up to here were published
        self._replay_from_s = 0.0  # what may be replayed now counts from here
        self._connected_s = -math.inf
        self._suspects = Suspects(clock_s)
        self._kept: set[int] = set()  # neither sent nor removed: the broker cannot be sent them, and they have no place
        self.acknowledged: list[int] = []  # still in the outbox
        self.has_more = False  # more would have gone, had there been room

    def begin_replay(self) -> Entry | None:
        """A new connection: what is stored by now is late, and what was on its way goes again. The entry, if there is
        one, that the broker hangs up on.
        """
        on_their_way = [entry for entry, _ in self._in_flight.values()]
        was_young = self._clock_s() - self._connected_s < YOUNG_S
        is_suspicious = was_young or any(entry.seq in self._suspects.seqs for entry in on_their_way)
        guilty = self._suspects.note_broken(on_their_way) if is_suspicious else None
        self._in_flight, self._connected_s = {}, self._clock_s()
        self._fresh_until = self._late_until = self._outbox.last_seq
        self._replayed_until = 0
        return guilty

    def next(self, room: int = MAX_IN_FLIGHT) -> list[Entry]:
        """To be published now, in this order; `note_published`, `note_set_aside` or `note_kept` follows for each.
        `room` is what the broker takes beside what is on its way.
        """
        room = min(room, MAX_IN_FLIGHT - len(self._in_flight))
        suspect = self._suspects.next()
        if suspect is not None:
            self.has_more = True
            return self._outbox.read_after(suspect - 1, 1) if room > 0 and not self._in_flight else []
        fresh = self._outbox.read_after(self._fresh_until, room) if room > 0 else []
        if fresh:
            self._fresh_until = fresh[-1].seq
        entries = fresh + self._next_late(room - len(fresh))
        self.has_more = len(fresh) >= room or self._replayed_until < self._late_until
        return entries

    @property
    def is_overdue(self) -> bool:
        """A verdict waits for its acknowledgement for longer than any that comes."""
        first_s = next((published_s for _, published_s in self._in_flight.values()), math.inf)
        return self._clock_s() - first_s > ACKNOWLEDGED_WITHIN_S

    def note_published(self, message_id: int, entry: Entry) -> None:
        self._in_flight[message_id] = (entry, self._clock_s())

    def note_unpublished(self, entry: Entry) -> None:
        """It could not go, and comes again."""
        self._replayed_until = min(self._replayed_until, entry.seq - 1)
        self._late_until = self._fresh_until

    def note_acknowledged(self, message_id: int) -> None:
        entry, _ = self._in_flight.pop(message_id, (None, 0.0))
        if entry is not None:
            self._suspects.note_acknowledged(entry)
            self.acknowledged.append(entry.seq)

    def note_refused(self, message_id: int) -> Entry | None:
        """The entry, which comes again."""
        entry, _ = self._in_flight.pop(message_id, (None, 0.0))
        if entry is not None:
            self._suspects.forget(entry.seq)
            self.note_unpublished(entry)
            self._replay_from_s = self._clock_s() + RETRY_REFUSED_S
        return entry

    def note_set_aside(self, seq: int) -> None:
        """It has another place, and leaves the outbox."""
        self._suspects.forget(seq)
        self.acknowledged.append(seq)

    @property
    def kept(self) -> int:
        return len(self._kept)

    def note_kept(self, seq: int) -> None:
        """It stays where it is until the next start."""
        self._suspects.forget(seq)
        self._kept.add(seq)

    def _next_late(self, room: int) -> list[Entry]:
        room = min(room, self._late_room(), self._allowance())
        if room <= 0 or self._replayed_until >= self._late_until:
            return []
        passed_over = self._passed_over()
        stored = self._outbox.read_after(self._replayed_until, room + len(passed_over))
        late = [entry for entry in stored if entry.seq <= self._late_until and entry.seq not in passed_over][:room]
        self._replayed_until = late[-1].seq if late else self._late_until
        self._replay_from_s += len(late) / self._replay_per_s
        return [Entry(entry.seq, mark_late(entry.payload)) for entry in late]

    def _passed_over(self) -> set[int]:
        on_their_way = (entry.seq for entry, _ in self._in_flight.values())
        return {*on_their_way, *self.acknowledged, *self._suspects.seqs, *self._kept}

    def _late_room(self) -> int:
        late = sum(entry.seq <= self._late_until for entry, _ in self._in_flight.values())
        return MAX_LATE_IN_FLIGHT - late

    def _allowance(self) -> int:
        """How many the pace lets go now; what was not used for long is no burst later."""
        now_s = self._clock_s()
        self._replay_from_s = max(self._replay_from_s, now_s - MAX_LATE_IN_FLIGHT / self._replay_per_s)
        return int((now_s - self._replay_from_s) * self._replay_per_s + 1e-6)  # a whole number may come a hair below


def mark_late(payload: bytes) -> bytes:
    """The verdict with `late` true. Bytes that are no JSON, out of a file that was damaged, go as they are."""
    if payload.endswith(FRESH):
        return payload[: -len(FRESH)] + b'"late":true}'
    try:
        record = json.loads(payload)
        late = {**record, "late": True} if isinstance(record, dict) else None
        return payload if late is None else json.dumps(late, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return payload
