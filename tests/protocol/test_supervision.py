"""No thread, loop or task ends or hangs unseen."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from protocol.supervision import Supervised, Supervisor, Trouble
from tests.examples import watch_threads


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


class Odd(BaseException):
    """What no `except Exception` catches."""

    def __str__(self) -> str:
        raise RuntimeError("not even words")


def failing(error: BaseException) -> Callable[[Supervised], None]:
    def run(_: Supervised) -> None:
        raise error

    return run


def waiting_for(event: threading.Event) -> Callable[[Supervised], None]:
    def run(_: Supervised) -> None:
        event.wait(10.0)

    return run


def ended(supervisor: Supervisor, target: Callable[[Supervised], None]) -> Trouble | None:
    supervisor.start("camera", target, silent_s=1.0).wait(5.0)
    return supervisor.trouble()


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), SystemExit(0), KeyboardInterrupt(), Odd()])
def test_an_end_by_any_exception_is_trouble(error: BaseException) -> None:
    trouble = ended(Supervisor(), failing(error))
    assert trouble is not None
    assert trouble.name == "camera"
    assert re.match(rf"ended: ([a-z_.]+\.)?{type(error).__name__}.* \(test_supervision.py:\d+\)", trouble.what)
    assert trouble.has_ended


def test_a_return_that_nobody_asked_for_is_trouble() -> None:
    assert str(ended(Supervisor(), lambda _: None)) == "camera ended: it returned unasked"


def test_a_thread_that_its_owner_stops_is_none() -> None:
    supervisor, closing = Supervisor(), threading.Event()
    thread = supervisor.start("gate", waiting_for(closing), silent_s=20.0)
    assert supervisor.trouble() is None
    assert thread.stop(closing.set, 5.0)
    assert supervisor.trouble() is None


def test_a_thread_that_does_not_stop_is_told() -> None:
    hanging = threading.Event()
    thread = Supervisor().start("gate", waiting_for(hanging), silent_s=20.0)
    assert not thread.stop(lambda: None, 0.01)
    hanging.set()


def test_silence_is_trouble_until_it_beats_again() -> None:
    clock = Clock()
    supervisor = Supervisor(clock)
    with supervisor.watch("line", silent_s=0.5) as loop:
        clock.s += 0.5
        assert supervisor.trouble() is None
        clock.s += 0.1
        assert str(supervisor.trouble()) == "line silent for more than 0.5 s"
        loop.beat()
        assert supervisor.trouble() is None
    clock.s += 10
    assert supervisor.trouble() is None


def test_who_is_busy_has_a_limit_of_its_own() -> None:
    clock = Clock()
    supervisor = Supervisor(clock)
    with supervisor.watch("line", silent_s=0.5) as loop:
        be_busy(clock, supervisor, loop)


def be_busy(clock: Clock, supervisor: Supervisor, loop: Supervised) -> None:
    with loop.busy(3.0):
        clock.s += 2.9
        loop.beat()
        clock.s += 2.9
        assert supervisor.trouble() is None
        with loop.busy(0.1):  # does not shorten what is around it
            clock.s += 2.9
            assert supervisor.trouble() is None
        clock.s += 3.1
        assert str(supervisor.trouble()) == "line silent for more than 3 s"
    clock.s += 0.6
    assert supervisor.trouble() is not None


def test_one_without_a_limit_may_be_silent_but_not_end() -> None:
    clock = Clock()
    supervisor = Supervisor(clock)
    with supervisor.watch("accept", silent_s=None):
        clock.s += 1e6
        assert supervisor.trouble() is None


def test_what_is_needed_is_named_first() -> None:
    supervisor = Supervisor()
    supervisor.start("recorder", failing(OSError("disk")), silent_s=1.0, is_needed=False).wait(5.0)
    supervisor.start("gate", failing(OSError("pin")), silent_s=1.0).wait(5.0)
    assert [trouble.name for trouble in supervisor.troubles()] == ["recorder", "gate"]
    trouble = supervisor.trouble()
    assert trouble is not None
    assert (trouble.name, trouble.is_needed) == ("gate", True)


def test_work_that_failed_is_forgotten_when_it_was_done_well() -> None:
    supervisor = Supervisor()
    for _ in range(3):
        supervisor.start("connect", failing(ValueError("odd")), silent_s=1.0, is_once=True).wait(5.0)
    assert len(supervisor.troubles()) == 1
    supervisor.start("connect", lambda _: None, silent_s=1.0, is_once=True).wait(5.0)
    assert supervisor.troubles() == []


def test_an_owner_may_say_himself_what_became_of_it() -> None:
    supervisor = Supervisor()
    work = supervisor.start("open", failing(ValueError("odd")), silent_s=1.0, is_once=True)
    work.wait(5.0)
    assert work.ended.startswith("ValueError: odd")
    supervisor.leave(work)
    assert supervisor.trouble() is None


def test_a_task_is_watched_like_a_thread() -> None:
    supervisor = Supervisor()

    async def fail(_: Supervised) -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    async def run() -> None:
        _, task = supervisor.start_task("hub", fail, silent_s=1.0)
        await asyncio.wait([task])

    asyncio.run(run())
    assert str(supervisor.trouble()).startswith("hub ended: KeyError: 'x'")


@pytest.mark.parametrize("wanted", [True, False])
def test_a_cancelled_task_is_trouble_unless_wanted(wanted: bool) -> None:
    supervisor = Supervisor()

    async def wait(_: Supervised) -> None:
        await asyncio.sleep(10)

    async def run() -> None:
        supervised, task = supervisor.start_task("hub", wait, silent_s=1.0)
        await asyncio.sleep(0)
        if wanted:
            supervised.let_end()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
    assert (supervisor.trouble() is None) == wanted


def test_map_keeps_the_order_and_hands_on_the_error() -> None:
    supervisor = Supervisor()
    assert supervisor.map("square", lambda n: n * n, range(20), at_once=3) == [n * n for n in range(20)]

    def fail(n: int) -> int:
        raise IndexError(n)

    with pytest.raises(IndexError):
        supervisor.map("fail", fail, range(5), at_once=2)
    assert supervisor.trouble() is None


def test_the_watch_acts_within_a_second() -> None:
    supervisor, seen = Supervisor(), threading.Event()
    with supervisor.keep_watch(lambda trouble: seen.set() if trouble else None):
        supervisor.start("gate", failing(KeyError("x")), silent_s=1.0)
        assert seen.wait(1.0)
    assert [trouble.name for trouble in supervisor.troubles()] == ["gate"]


def test_a_watch_that_ends_is_itself_trouble() -> None:
    supervisor = Supervisor()

    def act(_: Trouble | None) -> None:
        raise KeyError("x")

    with supervisor.keep_watch(act):
        until_s = time.monotonic() + 5.0
        while not supervisor.trouble() and time.monotonic() < until_s:
            time.sleep(0.01)
    assert str(supervisor.trouble()).startswith("watch ended: KeyError")


def test_the_end_of_the_watch_is_acted_on_by_the_second() -> None:
    supervisor, seen, told = Supervisor(), threading.Event(), []

    def act(trouble: Trouble | None) -> None:
        told.append(trouble)
        if len(told) == 1:
            raise KeyError("x")
        seen.set()

    with supervisor.keep_watch(act):
        assert seen.wait(5.0)
    assert str(told[1]).startswith("watch ended: KeyError")


STRANGERS = """
import threading
from protocol.supervision import SUPERVISOR
SUPERVISOR.see_everything()
class Odd:
    def __del__(self):
        raise KeyError("clean")
def leave():
    raise SystemExit
Odd()
thread = threading.Thread(target=leave, name="stranger")
thread.start()
thread.join()
print(*SUPERVISOR.troubles(), sep="\\n")
"""


def test_ends_of_threads_that_others_started_are_seen() -> None:
    done = subprocess.run([sys.executable, "-c", STRANGERS], capture_output=True, text=True, timeout=30, check=True)
    clean_up, stranger = done.stdout.splitlines()
    assert clean_up.startswith("clean-up ended: KeyError: 'clean'")
    assert stranger.startswith("stranger ended: SystemExit")


def test_without_trouble_it_may_be_asked_for_each_part() -> None:
    """What has ended is seen at once; what is silent, a moment later."""
    clock = Clock()
    supervisor = Supervisor(clock)
    with supervisor.watch("line", silent_s=0.01):
        assert supervisor.trouble() is None
        clock.s += 0.04
        assert supervisor.trouble() is None
        clock.s += 0.01
        assert str(supervisor.trouble()).startswith("line silent")
    assert supervisor.trouble() is None
    supervisor.start("gate", failing(KeyError("x")), silent_s=1.0).wait(5.0)
    assert str(supervisor.trouble()).startswith("gate ended")


def test_a_thread_that_dies_in_a_test_fails_that_test() -> None:
    supervisor = Supervisor()
    around_test = watch_threads(supervisor)
    next(around_test)
    supervisor.start("worker", failing(KeyError("x")), silent_s=None).wait(30)
    with pytest.raises(AssertionError, match="worker ended: KeyError: 'x'"):
        next(around_test)
