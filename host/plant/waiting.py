"""Verdicts on their way through the bridge: each is handed on once, and acknowledged when the plant's broker has it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from host.plant.inbox import Arrival
from protocol.messages import Verdict

REMEMBERED = 100_000  # events that were handed on: an hour of 27 parts/s, about 20 MB


@dataclass(eq=False)
class Parcel:
    verdict: Verdict
    arrivals: list[Arrival] = field(default_factory=list)  # it may have come more than once
    was_sent: bool = False  # it may have arrived before, over a connection that broke


class Waiting:
    """Owned by one thread."""

    def __init__(self, acknowledge: Callable[[Arrival], None]) -> None:
        self.duplicates = 0
        self._acknowledge = acknowledge
        self._known: dict[str, Parcel] = {}
        self._done: OrderedDict[str, None] = OrderedDict()
        self._queue: deque[Parcel] = deque()
        self._sent: list[Parcel] = []
        self._fenced: list[Parcel] = []
        self._fence = 0

    def take(self, verdict: Verdict, arrival: Arrival) -> None:
        known = self._known.get(verdict.event_id)
        if known is not None:
            self.duplicates += 1
            known.arrivals.append(arrival)
        elif verdict.event_id in self._done:
            self.duplicates += 1
            self._acknowledge(arrival)
        else:
            parcel = Parcel(verdict, [arrival])
            self._known[verdict.event_id] = parcel
            self._queue.append(parcel)

    def next(self) -> Parcel | None:
        """To be sent now; then it waits for a fence."""
        if not self._queue:
            return None
        parcel = self._queue.popleft()
        self._sent.append(parcel)
        return parcel

    def set_fence(self, fence: Callable[[], int]) -> None:
        """Behind what was sent, one at a time. `fence` gives its number, 0 where there is no connection."""
        if not self._sent or self._fence:
            return
        self._fence = fence()
        if self._fence:
            self._fenced, self._sent = self._sent, []

    def pass_fence(self, number: int) -> None:
        """The plant's broker has everything before it."""
        if number != self._fence:
            return
        for parcel in self._fenced:
            for arrival in parcel.arrivals:
                self._acknowledge(arrival)
            del self._known[parcel.verdict.event_id]
            self._remember(parcel.verdict.event_id)
        self._fence, self._fenced = 0, []

    def lose(self) -> None:
        """The connection is gone: what no fence has passed is sent again, in its order."""
        again = self._fenced + self._sent
        for parcel in again:
            parcel.was_sent = True
        self._queue.extendleft(reversed(again))
        self._fence, self._fenced, self._sent = 0, [], []

    def _remember(self, event_id: str) -> None:
        self._done[event_id] = None
        if len(self._done) > REMEMBERED:
            self._done.popitem(last=False)
