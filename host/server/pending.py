"""Requests that wait: fair to every board, bounded, none past its deadline."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from host.server.models import Version
from protocol.detection import Request


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

    @property
    def key(self) -> tuple[bytes, int]:
        return self.client, self.request.id


class FairQueue:
    """One line a client, served in turn. What would exceed a bound is not taken."""

    def __init__(self, *, per_client: int, total: int, total_bytes: int) -> None:
        self._per_client, self._total, self._total_bytes = per_client, total, total_bytes
        self._lines: OrderedDict[bytes, deque[Pending]] = OrderedDict()  # the next to be served stands first
        self.count = 0
        self.size_bytes = 0

    def put(self, pending: Pending) -> bool:
        """False if there is no room."""
        line = self._lines.get(pending.client, ())
        full = len(line) >= self._per_client or self.count >= self._total
        if full or self.size_bytes + pending.size_bytes > self._total_bytes:
            return False
        self._lines.setdefault(pending.client, deque()).append(pending)
        self._count(pending, 1)
        return True

    def put_back(self, pending: Pending) -> None:
        """To the head of everything: it was taken once already, so there is room."""
        self._lines.setdefault(pending.client, deque()).appendleft(pending)
        self._lines.move_to_end(pending.client, last=False)
        self._count(pending, 1)

    def take(self, most: int, accepts: Callable[[Pending], bool]) -> list[Pending]:
        """Up to `most` requests for one version, one a client and round. One that a worker died over comes alone."""
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

    def oldest(self, accepts: Callable[[Pending], bool]) -> Pending | None:
        """Of the requests that could be taken, the one that has waited longest."""
        heads = (line[0] for line in self._lines.values())
        return min(filter(accepts, heads), key=lambda one: one.arrived_s, default=None)

    def remove(self, unwanted: Callable[[Pending], bool]) -> list[Pending]:
        removed = [pending for pending in self if unwanted(pending)]
        for pending in removed:
            line = self._lines[pending.client]
            line.remove(pending)
            self._count(pending, -1)
            if not line:
                del self._lines[pending.client]
        return removed

    def __iter__(self) -> Iterator[Pending]:
        for line in self._lines.values():
            yield from line

    def _next(self, accepts: Callable[[Pending], bool]) -> Pending | None:
        for client, line in self._lines.items():
            if accepts(line[0]):
                pending = line.popleft()
                self._count(pending, -1)
                if line:
                    self._lines.move_to_end(client)
                else:
                    del self._lines[client]
                return pending
        return None

    def _count(self, pending: Pending, sign: int) -> None:
        self.count += sign
        self.size_bytes += sign * pending.size_bytes
