"""What both drivers of the gate share: what they are told by the source and by the line, and the thread that acts."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from board.condition import Complaint
from board.gate.faults import Faults
from board.gate.keeper import Keeper
from protocol.messages import Decision, Trigger
from protocol.supervision import Supervised, Supervisor
from protocol.units import NS_PER_S

TURN_S = 0.1
SILENT_S = 0.5
CLOSE_WITHIN_S = 1.0


class Driver(ABC):
    """Tells the keeper what it is told, and lets `turn` act on it, in a thread once `start` was called."""

    plans_ahead = False  # what it does now depends on windows yet to come

    def __init__(self, keeper: Keeper, now_ns: Callable[[], int]) -> None:
        self._keeper, self._now_ns = keeper, now_ns
        self._faults = Faults()
        self._wake = threading.Condition()
        self._has_news = False
        self._closing = False
        self._is_held = False
        self.reservation = ""  # what people should know all the time
        self._thread: Supervised | None = None

    def start(self, supervisor: Supervisor) -> None:
        self._thread = supervisor.start("gate", self._run, silent_s=SILENT_S)

    @property
    def has_news(self) -> bool:
        """Something was told since the last turn: the next one must not wait."""
        return self._has_news

    @abstractmethod
    def turn(self) -> int:
        """Have the gate as it should be now; when to look again if nothing is told before."""

    def expect(self, trigger: Trigger) -> None:
        with self._wake:
            if self._keeper.expect(trigger, self._now_ns()) or self.plans_ahead:
                self._tell()

    def seen_until(self, t_ns: int) -> None:
        with self._wake:
            if self._keeper.seen_until(t_ns, self._now_ns()) or (self.plans_ahead and self._keeper.is_waiting):
                self._tell()

    def at_gate(self, t_ns: int) -> None:
        with self._wake:
            self._keeper.at_gate(t_ns)
            self._tell()

    def moved(self, position_um: int, t_ns: int) -> None:
        with self._wake:
            if self._keeper.moved(position_um, t_ns):
                self._tell()

    def deadline_ns(self, trigger: Trigger) -> int:
        with self._wake:
            return self._keeper.deadline_ns(trigger, self._now_ns())

    def apply(self, trigger: Trigger, decision: Decision) -> None:
        """subtle: before its window a verdict moves nothing, and at the window's edges `turn` looks anyway: to wake the
        thread now would have it work while the line publishes.
        """
        with self._wake:
            is_news = self._keeper.judge(trigger, self._now_ns(), is_ok=decision == "OK")
            if is_news or self.plans_ahead:
                self._tell()

    @property
    def distrust(self) -> str:
        """Why nothing can be said of where the gate stands; empty if it does as it is told."""
        return "the gate does not do what it is told" if self._faults.must_close else ""

    def complaint(self) -> Complaint | None:
        now_ns = self._now_ns()
        with self._wake:
            trouble = self._keeper.trouble(now_ns)
        trouble = trouble or self.reservation
        return self._faults.complaint(now_ns) or (Complaint("degraded", trouble) if trouble else None)

    def counters(self) -> dict[str, int | float]:
        """For the health report."""
        with self._wake:
            good_stopped, speed_mm_s = self._keeper.good_stopped, self._keeper.speed_mm_s
        counts: dict[str, int | float] = {"good_stopped": good_stopped, "gate_faults": self._faults.count}
        return counts if speed_mm_s is None else {**counts, "belt_speed_mm_s": speed_mm_s}

    def _tell(self) -> None:
        self._has_news = True
        self._wake.notify()

    def _end(self) -> None:
        """Without a thread there is nothing to end."""
        if self._thread:
            self._thread.stop(self._tell_to_end, CLOSE_WITHIN_S)

    def _tell_to_end(self) -> None:
        """subtle: without the lock, should a thread hang while it has it."""
        self._closing = True
        if self._wake.acquire(timeout=TURN_S):
            self._wake.notify()
            self._wake.release()

    def _run(self, supervised: Supervised) -> None:
        """subtle: moving takes time, and the lock is free meanwhile: what was told since is looked at first."""
        while not self._closing:
            supervised.beat()
            next_ns = self.turn()
            with self._wake:
                wait_s = (next_ns - self._now_ns()) / NS_PER_S
                if wait_s > 0 and not self._has_news and not self._closing:
                    self._wake.wait(min(wait_s, TURN_S))
