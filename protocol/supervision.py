"""Every thread, loop and task of a process under one eye: none of them ends or hangs unseen.

    def _run(self, supervised: Supervised) -> None:
        while not self._closing.wait(0.1):
            supervised.beat()
            ...

    self._thread = supervisor.start("gate", self._run, silent_s=0.5)
    ...
    self._thread.stop(self._closing.set, within_s=1.0)

Threads are started here and nowhere else (tests/test_threads.py). Who can act on it asks `trouble`, or has
`keep_watch` call when there is some.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeVar

LOOK_EVERY_S = 0.1
FINE_S = 0.05
MAX_STRANGERS = 16
MAX_WORDS = 300  # of an error
WATCH_SILENT_S = 0.7  # of the watch itself: whoever asks for trouble sees that, too
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Trouble:
    name: str
    what: str  # "ended: KeyError: 'x' (gate.py:97)", or "silent for more than 0.5 s"
    is_needed: bool  # the process cannot do its work without it
    has_ended: bool  # for good; a silent one may come back

    def __str__(self) -> str:
        return f"{self.name} {self.what}"


class Supervised:
    """One thread, loop or task. It beats; its owner stops it."""

    def __init__(self, name: str, silent_s: float | None, now_s: Callable[[], float], *, is_needed: bool) -> None:
        self.name, self.is_needed = name, is_needed
        self.ended = ""  # how, in words; empty while it lives, and after an end that was wanted
        self.error: BaseException | None = None
        self._now_s = now_s
        self._limit_s = math.inf if silent_s is None else silent_s
        self._due_s = now_s() + self._limit_s
        self._may_end = False
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """At each turn, from the thread itself."""
        self._due_s = self._now_s() + self._limit_s

    @contextlib.contextmanager
    def busy(self, within_s: float) -> Iterator[None]:
        """Around a call that may take longer, and has a deadline of its own. May stand within another."""
        before_s, self._limit_s = self._limit_s, max(within_s, self._limit_s)
        self.beat()
        try:
            yield
        finally:
            self._limit_s = before_s
            self.beat()

    def let_end(self) -> None:
        """From now on it may return."""
        self._may_end = True

    def stop(self, tell: Callable[[], object], within_s: float) -> bool:
        """`tell` makes the thread return; False if it has not done so in time."""
        self.let_end()
        tell()
        return self.wait(within_s)

    def wait(self, within_s: float) -> bool:
        """For the end of a thread that was told, or that ends by itself; False if it has not come in time."""
        if self._thread and self._thread.ident and self._thread is not threading.current_thread():
            self._thread.join(within_s)
        return not self.is_alive

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def trouble(self) -> Trouble | None:
        if self._thread and self._thread.ident and not self._thread.is_alive():
            self.ended = self.ended or "nobody knows why"
        if self.ended:
            return Trouble(self.name, f"ended: {self.ended}", self.is_needed, has_ended=True)
        if self._now_s() > self._due_s:
            return Trouble(self.name, f"silent for more than {self._limit_s:g} s", self.is_needed, has_ended=False)
        return None

    def launch(self, work: Callable[[], None]) -> None:
        """For `Supervisor` alone."""
        self._thread = threading.Thread(target=work, name=self.name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads, no more memory: as if it had ended at once
            self.ended = f"it cannot be started ({error})"

    @contextlib.contextmanager
    def record_end(self) -> Iterator[None]:
        """For `Supervisor` alone: around all that the thread does."""
        try:
            yield
        except asyncio.CancelledError:
            self.ended = "" if self._may_end else "cancelled"
            raise
        # The one place that catches everything: what passes here would end a thread and nobody would know. It
        # is kept for those who ask, SystemExit and KeyboardInterrupt too.
        except BaseException as error:  # noqa: BLE001
            self.error, self.ended = error, describe(error)
        else:
            self.ended = "" if self._may_end else "it returned unasked"


class Supervisor:
    """One for a process: `SUPERVISOR`. Tests that let threads die have their own."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._watched: list[Supervised] = []
        self._fine_until_s = -math.inf
        self._strangers: deque[Trouble] = deque(maxlen=MAX_STRANGERS)

    def start(
        self,
        name: str,
        target: Callable[[Supervised], None],
        *,
        silent_s: float | None,
        is_needed: bool = True,
        is_once: bool = False,
    ) -> Supervised:
        """Run `target` in a thread, which beats more often than every `silent_s`.

        `None` is for one that blocks in a call whose deadline is known, or that its owner ends: say which, there.
        `is_once`: a piece of work that ends by itself. It is forgotten when work of the same name was done well.
        """
        supervised = self._add(name, silent_s, is_needed=is_needed)
        if is_once:
            supervised.let_end()

        def work() -> None:
            with supervised.record_end():
                target(supervised)
            self._note_end(supervised)

        supervised.launch(work)
        return supervised

    @contextlib.contextmanager
    def watch(self, name: str, *, silent_s: float | None, is_needed: bool = True) -> Iterator[Supervised]:
        """A loop of the calling thread, which beats in it. An exception goes on to the caller, who says it."""
        supervised = self._add(name, silent_s, is_needed=is_needed)
        try:
            yield supervised
        finally:
            self.leave(supervised)

    def leave(self, supervised: Supervised) -> None:
        """Its end is no trouble (any more): it was wanted, or its owner says himself what became of it."""
        with self._lock:
            self._watched = [other for other in self._watched if other is not supervised]

    def start_task(
        self,
        name: str,
        target: Callable[[Supervised], Coroutine[Any, Any, None]],
        *,
        silent_s: float | None,
        is_needed: bool = True,
    ) -> tuple[Supervised, asyncio.Task[None]]:
        """The same for a task of the running event loop. Who cancels it calls `let_end` before."""
        supervised = self._add(name, silent_s, is_needed=is_needed)

        async def work() -> None:
            try:
                with supervised.record_end():
                    await target(supervised)
            finally:
                self._note_end(supervised)

        return supervised, asyncio.get_running_loop().create_task(work(), name=name)

    def map(
        self, name: str, function: Callable[[_Item], _Result], items: Iterable[_Item], *, at_once: int
    ) -> list[_Result]:
        """`function` of each item, `at_once` at a time; an exception of it reaches the caller."""
        waiting = iter(enumerate(list(items)))  # of a list: one step of it is not interrupted
        results: dict[int, _Result] = {}

        def work(_: Supervised) -> None:
            while (taken := next(waiting, None)) is not None:
                results[taken[0]] = function(taken[1])

        # None: as long as the function takes, for which the caller waits
        threads = [self.start(name, work, silent_s=None, is_once=True) for _ in range(at_once)]
        for thread in threads:
            thread.wait(threading.TIMEOUT_MAX)
            self.leave(thread)
        for thread in threads:
            if thread.error:
                raise thread.error
        return [results[number] for number in sorted(results)]

    def trouble(self) -> Trouble | None:
        """The first, of those that are needed if there is one of them. May be asked for each part: without trouble
        it looks anew only after `FINE_S`, or when something has ended.
        """
        if self._now_s() < self._fine_until_s:
            return None
        found = self.troubles()
        if not found:
            self._fine_until_s = self._now_s() + FINE_S
        return next((trouble for trouble in found if trouble.is_needed), found[0] if found else None)

    def troubles(self) -> list[Trouble]:
        with self._lock:
            watched = list(self._watched)
        ours = (supervised.trouble for supervised in watched)
        return [*self._strangers, *(trouble for trouble in ours if trouble)]

    @contextlib.contextmanager
    def keep_watch(self, act: Callable[[Trouble | None], None]) -> Iterator[None]:
        """Call `act` every `LOOK_EVERY_S` from a thread of its own, with the trouble that there is. A second thread
        does it when the first has ended or hangs.
        """
        closing = threading.Event()

        def look(supervised: Supervised) -> None:
            while not closing.wait(LOOK_EVERY_S):
                supervised.beat()
                act(self.trouble())

        def look_after(supervised: Supervised) -> None:
            while not closing.wait(2 * LOOK_EVERY_S):
                supervised.beat()
                if watch.trouble:
                    act(watch.trouble)

        watch = self.start("watch", look, silent_s=WATCH_SILENT_S)
        second = self.start("second watch", look_after, silent_s=WATCH_SILENT_S)
        try:
            yield
        finally:
            watch.let_end()  # both are told at once
            second.stop(closing.set, WATCH_SILENT_S)
            watch.wait(WATCH_SILENT_S)

    def see_everything(self) -> None:
        """For a program, once: also what ends in threads of others, and errors that Python can hand to nobody."""
        threading.excepthook = lambda args: self._note_stranger(
            args.thread.name if args.thread else "a thread", args.exc_value, is_needed=True
        )
        sys.unraisablehook = lambda args: self._note_stranger("clean-up", args.exc_value, is_needed=False)

    def _add(self, name: str, silent_s: float | None, *, is_needed: bool) -> Supervised:
        supervised = Supervised(name, silent_s, self._now_s, is_needed=is_needed)
        with self._lock:
            self._watched.append(supervised)
        return supervised

    def _note_stranger(self, name: str, error: BaseException | None, *, is_needed: bool) -> None:
        """subtle: without a lock, for an error that nobody can take may come while this thread holds it."""
        what = describe(error) if error else "nobody knows why"
        self._strangers.append(Trouble(name, f"ended: {what}", is_needed, has_ended=True))
        self._fine_until_s = -math.inf

    def _note_end(self, supervised: Supervised) -> None:
        """Of several ends of one name, the newest is kept, so that there is a bound."""
        with self._lock:
            self._watched = [
                other
                for other in self._watched
                if not (other.name == supervised.name and other.ended and other is not supervised)
            ]
        if not supervised.ended:
            self.leave(supervised)
        self._fine_until_s = -math.inf


def describe(error: BaseException) -> str:
    """In one line, for example "KeyError: 'x' (gate.py:97)"."""
    text = traceback.format_exception_only(type(error), error)[-1].strip().partition("\n")[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({PurePath(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{text[:MAX_WORDS]}{where}"


SUPERVISOR = Supervisor()
