"""Requests that wait: fair to every board, bounded, none past its deadline."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from host.server.models import Version
from protocol.detection import Request

FIRST_GUESS_S = 0.002  # what a request costs of whose owner nothing is known
MEAN_OVER = 8  # requests
MAX_REMEMBERED = 1024  # owners who do not wait


@dataclass(eq=False)
class Pending:
    """A request that the front has taken over and owes exactly one reply."""

    client: bytes  # the connection it came from
    request: Request
    header: bytes  # as it came: it travels on to the worker
    pixels: Any  # zmq.Frame, never copied, or bytes
    size_bytes: int
    version: Version
    arrived_s: float
    expires_s: float
    begun: int = 0  # how often a worker died over it
    owner: bytes = b""  # whose key it came with; where there is none, the connection
    source: int = -1  # descriptor of the connection, as ZeroMQ's monitor names it
    guessed_s: float = 0.0  # of the workers' time, when it was taken

    def __post_init__(self) -> None:
        self.owner = self.owner or self.client

    @property
    def key(self) -> tuple[bytes, int]:
        return self.client, self.request.id


@dataclass
class Share:
    """What one owner has had of the workers' time, and what of its requests waits."""

    spent_s: float
    mean_s: float = FIRST_GUESS_S  # of one request
    lines: OrderedDict[bytes, deque[Pending]] = field(default_factory=OrderedDict)  # by connection; the next one first
    count: int = 0


class FairQueue:
    """The next is whoever has had the least of the workers' time: an owner with many connections, or with pictures that
    take long, has no more of it than one with few. What would exceed a bound is not taken.

    Whoever has not asked for a while begins where the others are (start-time fair queueing, Goyal et al. 1996).
    """

    def __init__(self, *, per_client: int, total: int, total_bytes: int) -> None:
        self._per_client, self._total, self._total_bytes = per_client, total, total_bytes
        self._per_owner = max(per_client, total // 4)
        self._shares: OrderedDict[bytes, Share] = OrderedDict()  # of those who wait; served last, stands last
        self._gone: OrderedDict[bytes, Share] = OrderedDict()  # of those who do not; remembered for a while
        self._now_s = 0.0  # in terms of time spent: where the one stood that was served last
        self.count = 0
        self.size_bytes = 0

    def put(self, pending: Pending) -> bool:
        """False if there is no room."""
        share = self._shares.get(pending.owner)
        line = share.lines.get(pending.client, ()) if share else ()
        full = len(line) >= self._per_client or self.count >= self._total
        full = full or (share is not None and share.count >= self._per_owner)
        if full or self.size_bytes + pending.size_bytes > self._total_bytes:
            return False
        self._share(pending.owner).lines.setdefault(pending.client, deque()).append(pending)
        self._count(pending, 1)
        return True

    def put_back(self, pending: Pending) -> None:
        """To the head of everything: it was taken once already, so there is room."""
        share = self._share(pending.owner)
        share.lines.setdefault(pending.client, deque()).appendleft(pending)
        share.lines.move_to_end(pending.client, last=False)
        share.spent_s = min(share.spent_s, *(one.spent_s for one in self._shares.values())) if self._shares else 0.0
        self._shares.move_to_end(pending.owner, last=False)
        self._count(pending, 1)

    def take(self, most: int, accepts: Callable[[Pending], bool]) -> list[Pending]:
        """Up to `most` requests for one version. One that a worker died over comes alone."""
        first = self._next(accepts)
        if first is None:
            return []
        taken = [first]
        while len(taken) < most and not first.begun:
            more = self._next(lambda one: one.version is first.version and not one.begun)
            if more is None:
                break
            taken.append(more)
        return taken

    def charge(self, pending: Pending, spent_s: float) -> None:
        """What a request that was taken did cost, in place of what was guessed then."""
        share = self._shares.get(pending.owner) or self._gone.get(pending.owner)
        if share:
            share.spent_s += spent_s - pending.guessed_s
            share.mean_s += (spent_s - share.mean_s) / MEAN_OVER

    def oldest(self, accepts: Callable[[Pending], bool]) -> Pending | None:
        """Of the requests that could be taken, the one that has waited longest."""
        heads = (line[0] for share in self._shares.values() for line in share.lines.values())
        return min(filter(accepts, heads), key=lambda one: one.arrived_s, default=None)

    def remove(self, unwanted: Callable[[Pending], bool]) -> list[Pending]:
        removed = [pending for pending in self if unwanted(pending)]
        for pending in removed:
            line = self._shares[pending.owner].lines[pending.client]
            line.remove(pending)
            self._left(pending)
        return removed

    def __iter__(self) -> Iterator[Pending]:
        for share in self._shares.values():
            for line in share.lines.values():
                yield from line

    def _share(self, owner: bytes) -> Share:
        """Of an owner who waits from now on."""
        if owner not in self._shares:
            share = self._gone.pop(owner, None) or Share(self._now_s)
            share.spent_s = max(share.spent_s, self._now_s)
            self._shares[owner] = share
        return self._shares[owner]

    def _next(self, accepts: Callable[[Pending], bool]) -> Pending | None:
        # a stable order: of equals, who was served longest ago
        for owner, share in sorted(self._shares.items(), key=lambda one: one[1].spent_s):
            for client, line in share.lines.items():
                if accepts(line[0]):
                    return self._serve(owner, share, client)
        return None

    def _serve(self, owner: bytes, share: Share, client: bytes) -> Pending:
        pending = share.lines[client].popleft()
        share.lines.move_to_end(client)
        self._shares.move_to_end(owner)
        self._now_s = max(self._now_s, share.spent_s)
        pending.guessed_s = share.mean_s
        share.spent_s += pending.guessed_s
        self._left(pending)
        return pending

    def _left(self, pending: Pending) -> None:
        self._count(pending, -1)
        share = self._shares[pending.owner]
        if not share.lines[pending.client]:
            del share.lines[pending.client]
        if not share.lines:
            self._gone[pending.owner] = self._shares.pop(pending.owner)
            while len(self._gone) > MAX_REMEMBERED:
                self._gone.popitem(last=False)

    def _count(self, pending: Pending, sign: int) -> None:
        self._shares[pending.owner].count += sign
        self.count += sign
        self.size_bytes += sign * pending.size_bytes
