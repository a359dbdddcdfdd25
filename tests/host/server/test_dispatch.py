"""Every request leaves the dispatcher exactly once, whatever becomes of the workers."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from host.server.dispatch import AHEAD, MAX_BEGUN, Dispatcher, Limits
from host.server.models import Version
from host.server.orders import LOST_AFTER_S
from host.server.pending import Pending
from tests.host.server.states import make_pending, make_version

LIMITS = Limits(max_batch=2, max_wait_ms=2.0, queue_per_client=3, queue_total=10, batch_s=10.0, load_s=60.0)
ONE, OTHER = b"1", b"2"


class Bench:
    """A dispatcher with one model, and the workers that are wanted."""

    def __init__(self, *workers: bytes, limits: Limits = LIMITS) -> None:
        self.version = make_version("v1")
        self.dispatcher = Dispatcher(limits)
        self.dispatcher.catalogue.update({"model": self.version})
        self.dispatcher.catalogue.demand(self.version)
        for name in workers:
            self.add(name)

    def add(self, name: bytes) -> None:
        self.dispatcher.add_worker(name, 0.0)
        self.load()

    def load(self, fault: str = "") -> None:
        for worker, version in self.dispatcher.next_loads(0.0):
            if isinstance(version, Version):
                self.dispatcher.note_loaded(worker.name, version.digest, fault)

    def submit(self, client: str = "a", number: int = 1, expires_s: float = 1e9) -> Pending:
        pending = make_pending(self.version, client=client, number=number, expires_s=expires_s)
        self.dispatcher.submit(pending)
        return pending

    def batch(self, now_s: float = 0.0) -> tuple[bytes, int, str] | None:
        """Worker, number and clients of the next batch."""
        job = self.dispatcher.next_batch(now_s)
        if job is None:
            return None
        return job[0].name, job[1], b"".join(one.client for one in job[2].pendings).decode()

    def refused(self) -> list[tuple[str, str]]:
        refused: list[tuple[str, str]] = [(one.pending.client.decode(), one.code) for one in self.dispatcher.refusals]
        self.dispatcher.refusals.clear()
        return refused


def test_an_idle_worker_gets_a_single_request_at_once() -> None:
    bench = Bench(ONE)
    bench.submit()
    assert bench.batch() == (ONE, 1, "a")


def test_what_waits_for_a_connection_that_has_gone_is_dropped() -> None:
    bench = Bench(ONE)
    for number, client in enumerate("abc", start=1):
        bench.submit(client, number).source = number
    bench.dispatcher.drop(2)
    assert bench.refused() == [("b", "late")]
    assert bench.batch() == (ONE, 1, "ac")


def test_requests_that_wait_for_a_busy_worker_go_together() -> None:
    bench = Bench(ONE)
    for client in "abc":
        bench.submit(client)
    assert bench.batch() == (ONE, 1, "ab")
    assert bench.batch() is None, "a batch that is not full waits"
    bench.submit("d")
    assert bench.batch() == (ONE, 2, "cd"), "a full one is sent ahead"
    bench.submit("e")
    bench.submit("f")
    assert bench.batch() is None, f"but no more than {AHEAD} batches in hand"
    assert [one.client for one in bench.dispatcher.finish(ONE, 1, 0.0)] == [b"a", b"b"]
    assert bench.batch() == (ONE, 3, "ef")


def test_a_batch_that_is_not_full_is_sent_ahead_after_its_wait() -> None:
    bench = Bench(ONE)
    for number, client in ((5, "a"), (5, "b"), (5, "c")):
        bench.submit(client, number)
    assert bench.batch(5.0) is not None
    assert bench.batch(5.001) is None
    assert bench.batch(5.0021) == (ONE, 2, "c")


def test_the_idle_one_of_two_workers_is_chosen() -> None:
    bench = Bench(ONE, OTHER)
    workers = []
    for client in "ab":
        bench.submit(client)
        job = bench.batch()
        assert job is not None
        workers.append(job[0])
    assert sorted(workers) == [ONE, OTHER]


def test_a_worker_without_the_model_gets_no_batch() -> None:
    bench = Bench()
    bench.dispatcher.add_worker(ONE, 0.0)
    bench.submit()
    assert bench.batch() is None
    ((worker, version),) = bench.dispatcher.next_loads(0.0)
    assert (worker.name, version) == (ONE, bench.version)
    assert bench.batch() is None, "it loads"
    bench.dispatcher.note_loaded(ONE, "v1", "")
    assert bench.batch() == (ONE, 1, "a")


def test_work_of_a_dead_worker_is_begun_again_alone_and_before_the_rest() -> None:
    bench = Bench(ONE)
    for client in "abc":
        bench.submit(client)
    bench.batch()
    bench.dispatcher.remove_worker(ONE, 0.0, died=True)
    bench.add(OTHER)
    assert bench.batch() == (OTHER, 2, "a")
    assert bench.dispatcher.finish(ONE, 1, 0.0) == [], "a dead worker's result is nobody's"
    bench.dispatcher.finish(OTHER, 2, 0.0)
    assert bench.batch() == (OTHER, 3, "b")
    bench.dispatcher.finish(OTHER, 3, 0.0)
    assert bench.batch() == (OTHER, 4, "c")


def test_a_request_over_which_workers_die_is_given_up_and_its_neighbours_are_not() -> None:
    bench = Bench(ONE)
    bench.submit("p")
    innocent = bench.submit("i")
    for death in range(MAX_BEGUN):
        job = bench.batch()
        assert job is not None
        assert job[2].startswith("p")
        bench.dispatcher.remove_worker(ONE, 0.0, died=True)
        assert bench.refused() == ([("p", "worker-lost")] if death == MAX_BEGUN - 1 else [])
        bench.add(ONE)
    assert bench.batch() == (ONE, MAX_BEGUN + 1, "i")
    assert bench.dispatcher.finish(ONE, MAX_BEGUN + 1, 0.0) == [innocent]


def test_what_lay_ready_behind_the_deadly_batch_is_not_blamed() -> None:
    bench = Bench(ONE)
    for client in "abcd":
        bench.submit(client)
    assert bench.batch()
    assert bench.batch()
    bench.dispatcher.remove_worker(ONE, 0.0, died=True)
    assert [(one.client, one.begun) for one in bench.dispatcher.queue] == [(b"a", 1), (b"b", 1), (b"c", 0), (b"d", 0)]


def test_a_worker_that_leaves_in_order_is_not_blamed() -> None:
    bench = Bench(ONE)
    pending = bench.submit()
    bench.batch()
    bench.dispatcher.remove_worker(ONE, 0.0, died=False)
    assert (pending.begun, bench.dispatcher.queue.count) == (0, 1)


def test_what_is_late_is_dropped_and_told() -> None:
    bench = Bench(ONE)
    bench.submit("a", expires_s=1.0)
    bench.submit("b", expires_s=2.0)
    bench.dispatcher.expire(0.9)
    assert bench.refused() == []
    bench.dispatcher.expire(1.0)
    assert bench.refused() == [("a", "late")]
    assert bench.batch() == (ONE, 1, "b")
    bench.dispatcher.remove_worker(ONE, 2.0, died=True)
    assert bench.refused() == [("b", "late")], "no use in beginning again"


def test_a_full_queue_and_a_number_in_use_are_refused() -> None:
    bench = Bench()
    for number in (1, 2, 3, 4, 3):
        bench.submit("a", number)
    assert bench.refused() == [("a", "busy"), ("a", "duplicate")]
    for client in "bcdefghi":
        bench.submit(client)
    assert bench.refused() == [("i", "busy")]


def test_a_broken_model_is_told_to_those_who_wait_and_to_those_who_come() -> None:
    bench = Bench()
    bench.submit("a")
    bench.dispatcher.add_worker(ONE, 0.0)
    bench.load(fault="golden maps differ")
    assert bench.dispatcher.settle() == ([], [bench.version])
    bench.submit("b")
    assert bench.refused() == [("a", "broken-model"), ("b", "broken-model")]


def test_a_model_over_whose_loading_workers_die_is_given_up() -> None:
    bench = Bench()
    for _ in range(3):
        bench.dispatcher.add_worker(ONE, 0.0)
        assert bench.dispatcher.next_loads(0.0)
        bench.dispatcher.remove_worker(ONE, 0.0, died=True)
    bench.dispatcher.add_worker(ONE, 0.0)
    assert bench.dispatcher.next_loads(0.0) == []
    assert "workers died" in bench.version.fault


def test_silent_and_hanging_workers_are_found() -> None:
    bench = Bench(ONE, OTHER)
    bench.submit()
    assert bench.batch(1.0)
    for worker in bench.dispatcher.workers.values():
        worker.heard_s = 11.0
    assert bench.dispatcher.lost_workers(11.0) == []
    assert [how for _, how in bench.dispatcher.lost_workers(11.1)] == ["hangs over a batch"]
    lost = dict(bench.dispatcher.lost_workers(11.1 + LOST_AFTER_S))
    assert sorted(lost.values()) == ["hangs over a batch", "is silent"]


def test_a_worker_that_loads_may_be_silent_for_longer() -> None:
    bench = Bench()
    bench.dispatcher.add_worker(ONE, 0.0)
    bench.dispatcher.next_loads(0.0)
    assert bench.dispatcher.lost_workers(60.0) == []
    assert bench.dispatcher.lost_workers(60.1) == [(ONE, "hangs while loading a model")]


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from("abc"), st.integers(1, 40)),
        st.tuples(st.sampled_from(["batch", "finish", "die", "leave", "add", "expire"]), st.sampled_from("12")),
    ),
    max_size=80,
)


@given(EVENTS)
def test_every_request_leaves_exactly_once(events: list[tuple[str, ...]]) -> None:
    bench = Bench(ONE)
    left: Counter[int] = Counter()
    submitted: dict[int, Pending] = {}
    for now_s, (kind, *what) in enumerate(events):
        name = str(what[0]).encode()
        if kind == "submit":
            pending = bench.submit(str(what[0]), now_s + 1, expires_s=now_s + float(what[1]))
            submitted[id(pending)] = pending
        elif kind == "batch":
            bench.batch(float(now_s))
        elif kind == "finish" and name in bench.dispatcher.workers:
            for number in list(bench.dispatcher.workers[name].batches)[:1]:
                left.update(id(one) for one in bench.dispatcher.finish(name, number, float(now_s)))
        elif kind in ("die", "leave"):
            bench.dispatcher.remove_worker(name, float(now_s), died=kind == "die")
        elif kind == "add" and name not in bench.dispatcher.workers:
            bench.add(name)
        elif kind == "expire":
            bench.dispatcher.expire(float(now_s))
        left.update(id(one.pending) for one in bench.dispatcher.refusals)
        bench.dispatcher.refusals.clear()
    for name in list(bench.dispatcher.workers):
        bench.dispatcher.remove_worker(name, 0.0, died=False)
    bench.dispatcher.expire(float("inf"))
    left.update(id(one.pending) for one in bench.dispatcher.refusals)
    assert left == Counter(dict.fromkeys(submitted, 1))
    assert (bench.dispatcher.queue.count, bench.dispatcher.queue.size_bytes, bench.version.users) == (0, 0, 0)
