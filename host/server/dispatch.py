"""Who works on what: the server's state without its sockets. Times come from outside, in seconds, monotonic.

Every request that `submit` took leaves exactly once: in the pairs that `finish` returns, or through `refusals`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from host.server.catalogue import Catalogue, State
from host.server.models import Version
from host.server.orders import LOST_AFTER_S
from host.server.pending import FairQueue, Pending
from protocol.detection import RefusalCode

AHEAD = 2  # batches that a worker may have in hand: one runs, the next lies ready
MAX_BEGUN = 2
Loss = Literal[  # of a worker
    "died",
    "left",
    "cannot be reached",
    "speaks nonsense",
    "hangs over a batch",
    "hangs while loading a model",
    "is silent",
    "key was withdrawn",
]


@dataclass(frozen=True)
class Limits:
    max_batch: int = 4
    max_wait_ms: float = 2.0  # while every worker is busy: how long a batch that is not full waits to be sent ahead
    queue_per_client: int = 8
    queue_total: int = 256
    queue_bytes: int = 256 << 20
    batch_s: float = 10.0  # a worker that takes longer over a batch hangs
    load_s: float = 120.0  # the same for loading a model
    max_loaded: int = 8


@dataclass(eq=False)
class InHand:
    """A batch that a worker has."""

    pendings: list[Pending]
    sent_s: float


@dataclass(eq=False)
class Worker:
    name: bytes
    heard_s: float
    held: dict[str, State] = field(default_factory=dict)
    loading_since_s: float = 0.0
    batches: dict[int, InHand] = field(default_factory=dict)
    head_since_s: float = 0.0  # when the batch it works on came to its turn


@dataclass(frozen=True)
class Refused:
    pending: Pending
    code: RefusalCode
    text: str


class Dispatcher:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.queue = FairQueue(
            per_client=limits.queue_per_client, total=limits.queue_total, total_bytes=limits.queue_bytes
        )
        self.catalogue = Catalogue(limits.max_loaded)
        self.workers: dict[bytes, Worker] = {}
        self.refusals: list[Refused] = []  # for the front to send and clear
        self._keys: set[tuple[bytes, int]] = set()
        self._numbers = itertools.count(1)

    def submit(self, pending: Pending) -> None:
        """Take over a request that fits its model; a refusal may follow at once."""
        has_place = self.catalogue.demand(pending.version, pending.owner, pending.arrived_s)
        if pending.key in self._keys:
            self._refuse_unowned(pending, "duplicate", "a request of this number is being worked on: count up")
        elif pending.version.fault:
            self._refuse_unowned(pending, "broken-model", f"{pending.version.id}: {pending.version.fault}")
        elif not has_place:
            self._refuse_unowned(pending, "busy", f"other models take all places: ask for {pending.version.id} later")
        elif not self.queue.put(pending):
            self._refuse_unowned(pending, "busy", "the server's queue is full: ask again later, or add workers")
        else:
            self._keys.add(pending.key)
            pending.version.users += 1

    def add_worker(self, name: bytes, now_s: float) -> None:
        self.workers[name] = Worker(name, now_s)

    def remove_worker(self, name: bytes, now_s: float, *, died: bool) -> None:
        """What it had in hand is begun once more elsewhere, unless a worker has died over it before."""
        worker = self.workers.pop(name, None)
        if worker is None:
            return
        for digest, state in worker.held.items():
            if died and state == "loading":
                self.catalogue.note_death(digest)
        batches = list(worker.batches.values())
        for index, batch in reversed(list(enumerate(batches))):
            for pending in reversed(batch.pendings):
                # subtle: only the first batch was worked on; what lay ready behind it has killed nobody
                pending.begun += died and index == 0
                self._begin_again(pending, now_s)

    def note_loaded(self, name: bytes, digest: str, fault: str) -> None:
        worker = self.workers.get(name)
        if worker is not None and digest in worker.held:
            worker.held[digest] = "broken" if fault else "ready"

    def next_loads(self, now_s: float) -> list[tuple[Worker, Version | str]]:
        """Versions that workers have to load, digests that they may drop. One load at a time for each."""
        wanted = self.catalogue.wanted()
        loads: list[tuple[Worker, Version | str]] = []
        for worker in self.workers.values():
            for digest in [digest for digest in worker.held if digest not in wanted]:
                if worker.held[digest] != "loading":
                    del worker.held[digest]
                    loads.append((worker, digest))
            missing = next((version for digest, version in wanted.items() if digest not in worker.held), None)
            if missing is not None and "loading" not in worker.held.values():
                worker.held[missing.digest] = "loading"
                worker.loading_since_s = now_s
                loads.append((worker, missing))
        return loads

    def next_batch(self, now_s: float) -> tuple[Worker, int, InHand] | None:
        """A batch to send now: whatever waits to an idle worker, a full or overdue batch ahead to a busy one."""
        for worker in sorted(self.workers.values(), key=lambda worker: len(worker.batches)):
            if not self.queue.count or len(worker.batches) >= AHEAD:
                return None
            accepts = self._accepted_by(worker)
            if worker.batches and not self._is_worth_sending_ahead(accepts, now_s):
                continue
            pendings = self.queue.take(self._limits.max_batch, accepts)
            if pendings:
                number, batch = next(self._numbers), InHand(pendings, now_s)
                if not worker.batches:
                    worker.head_since_s = now_s
                worker.batches[number] = batch
                return worker, number, batch
        return None

    def finish(self, name: bytes, number: int, now_s: float, each_ms: Sequence[float] = ()) -> list[Pending]:
        """The requests of a batch whose result came, in order; none if nobody waits for it any more.

        `each_ms`: what each took of the worker's time.
        """
        worker = self.workers.get(name)
        batch = worker.batches.pop(number, None) if worker else None
        if worker is None or batch is None:
            return []
        worker.head_since_s = now_s
        each_s = [spent_ms / 1e3 for spent_ms in each_ms]
        if len(each_s) != len(batch.pendings):
            each_s = [(now_s - batch.sent_s) / len(batch.pendings)] * len(batch.pendings)
        for pending, spent_s in zip(batch.pendings, each_s, strict=True):
            self.queue.charge(pending, spent_s)
            self._release(pending)
        return batch.pendings

    def drop(self, source: int) -> None:
        """What waits for a connection that has gone. It is refused: the descriptor may be another's by now."""
        for pending in self.queue.remove(lambda one: one.source == source):
            self._refuse(pending, "late", "the connection that asked was closed")

    def expire(self, now_s: float) -> None:
        for pending in self.queue.remove(lambda one: one.expires_s <= now_s):
            self._refuse(pending, "late", "the deadline passed before a worker was free")

    def settle(self) -> tuple[list[Version], list[Version]]:
        """Versions that take over, and versions found broken; who waits for a broken one is told."""
        taken_over, broken = self.catalogue.settle([worker.held for worker in self.workers.values()])
        if broken:
            for pending in self.queue.remove(lambda one: one.version.fault != ""):
                self._refuse(pending, "broken-model", f"{pending.version.id}: {pending.version.fault}")
        return taken_over, broken

    def lost_workers(self, now_s: float) -> list[tuple[bytes, Loss]]:
        """Names of workers that are silent or hang, and how that shows."""
        lost: list[tuple[bytes, Loss]] = []
        for worker in self.workers.values():
            loading = "loading" in worker.held.values()
            if worker.batches and now_s - worker.head_since_s > self._limits.batch_s:
                lost.append((worker.name, "hangs over a batch"))
            elif loading and now_s - worker.loading_since_s > self._limits.load_s:
                lost.append((worker.name, "hangs while loading a model"))
            elif not loading and now_s - worker.heard_s > LOST_AFTER_S:
                lost.append((worker.name, "is silent"))
        return lost

    def is_ready(self, version: Version) -> bool:
        return any(worker.held.get(version.digest) == "ready" for worker in self.workers.values())

    def _accepted_by(self, worker: Worker) -> Callable[[Pending], bool]:
        return lambda pending: worker.held.get(pending.version.digest) == "ready"

    def _is_worth_sending_ahead(self, accepts: Callable[[Pending], bool], now_s: float) -> bool:
        if self.queue.count >= self._limits.max_batch:
            return True
        oldest = self.queue.oldest(accepts)
        return oldest is not None and (now_s - oldest.arrived_s) * 1e3 >= self._limits.max_wait_ms

    def _begin_again(self, pending: Pending, now_s: float) -> None:
        if pending.begun >= MAX_BEGUN:
            self._refuse(pending, "worker-lost", f"{MAX_BEGUN} workers died over this request")
        elif pending.expires_s <= now_s:
            self._refuse(pending, "late", "the deadline passed when a worker died")
        else:
            self.queue.put_back(pending)

    def _refuse(self, pending: Pending, code: RefusalCode, text: str) -> None:
        self._release(pending)
        self._refuse_unowned(pending, code, text)

    def _refuse_unowned(self, pending: Pending, code: RefusalCode, text: str) -> None:
        self.refusals.append(Refused(pending, code, text))

    def _release(self, pending: Pending) -> None:
        self._keys.discard(pending.key)
        pending.version.users -= 1
