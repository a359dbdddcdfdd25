"""Frames over ZeroMQ: from the fake belt, or from anything else that speaks `protocol.wire`."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import zmq

from board.condition import Complaint
from board.pictures import decode_frame
from board.seams import Ahead, Deaf, LastPart
from board.sources.numbering import Numbering
from protocol.errors import MessageError
from protocol.messages import Frame, Trigger, clock_id
from protocol.sockets import open_socket
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervised, Supervisor
from protocol.units import NS_PER_MS
from protocol.wire import EndOfRun, FrameMessage, Motion, Passage, decode_message

POLL_MS = 10
POLL_S = POLL_MS / 1000
SILENT_S = 0.5  # of the thread that reads
COMPLAIN_S = 30.0  # after numbers that were not in order
UNREADABLE = "unreadable"  # the run of what may have been a trigger
FELL_BACK = "stale trigger: its stamp does not lie behind that of the part before it"


@dataclass(frozen=True)
class BeltSettings:
    endpoint: str = "tcp://127.0.0.1:5560"
    queue_frames: int = 4  # received ahead of the line; beyond it the belt is held back
    frame_timeout_ms: float = 200.0  # a trigger whose frame has not come by then is a lost frame
    transit_ms: float = 30.0  # a message is on its way for less

    def __post_init__(self) -> None:
        require(1 <= self.queue_frames <= 1000, "queue_frames", "must be 1..1000")
        require(self.frame_timeout_ms > 0, "frame_timeout_ms", "must be above 0")
        require(0 <= self.transit_ms <= 10_000, "transit_ms", "must be 0..10000")


@dataclass(frozen=True)
class Waiting:
    sent: Trigger  # as its maker names it
    trigger: Trigger
    arrived_ns: int  # what the belt was held back for does not count
    fault: str = ""  # whatever its frame shows


@dataclass(frozen=True)
class Arrived:
    """A part whose picture is decoded only when the line takes it: triggers behind it are not to wait."""

    trigger: Trigger
    message: FrameMessage | None
    fault: str = ""

    def decode(self) -> Frame:
        if self.message is None:
            return Frame(self.trigger, None, self.fault)
        readings = self.message.header.readings
        started_ns = time.monotonic_ns()
        try:
            image = decode_frame(self.message)
        except MessageError as error:
            return Frame(self.trigger, None, f"corrupt frame: {error}", readings)
        decode_ms = (time.monotonic_ns() - started_ns) / NS_PER_MS
        return Frame(self.trigger, image, "", readings, decode_ms=decode_ms)


class BeltSource:
    """Every part that triggered, or that is missing from the count, comes out of `read` exactly once.

    Messages are read as they come, by a thread of its own: the gate hears of a trigger while parts before it are
    still judged.
    """

    def __init__(
        self,
        settings: BeltSettings,
        last: LastPart | None = None,
        ahead: Ahead | None = None,
        *,
        counts_views: bool = False,
        now_s: Callable[[], float] = time.monotonic,
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """`last` has been judged already, before this start: parts of its run that follow it are owed a verdict.

        `counts_views`: of a free-running camera, which may lose some.
        """
        self._settings = settings
        self._counts_views = counts_views
        self._timeout_ns = int(settings.frame_timeout_ms * NS_PER_MS)
        self._transit_ns = int(settings.transit_ms * NS_PER_MS)
        self._ahead = ahead or Deaf()
        self._now_s = now_s
        self._clock = clock_id()
        self._numbering = Numbering(last, self._clock, time.monotonic_ns())
        self._waiting: deque[Waiting] = deque()  # triggers whose frame has not come
        self._ready: deque[Arrived] = deque()
        self._refused: Counter[str] = Counter()
        self._complain_until_s = -1.0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._socket = open_socket(
            "PULL", settings.endpoint, bind=True, high_water_mark=settings.queue_frames, timeout_ms=POLL_MS
        )
        self._thread = supervisor.start("belt", self._receive, silent_s=SILENT_S)

    def read(self, timeout_s: float) -> Frame | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._ready, timeout_s):
                return None
            arrived = self._ready.popleft()
            self._changed.notify_all()
        return arrived.decode()

    def close(self) -> None:
        self._thread.stop(self._closing.set, within_s=1.0)
        self._socket.close(0)

    @property
    def refused_messages(self) -> int:
        return sum(self._refused.values())

    def counters(self) -> dict[str, int]:
        return {
            "refused_messages": self.refused_messages,
            **{f"refused_{kind}": self._refused[kind] for kind in ("undecodable", "repeated", "late_frames")},
            "part_gaps": self._numbering.gaps,
            "parts_missing": self._numbering.missing,
            "part_restarts": self._numbering.restarts,
        }

    def complaint(self) -> Complaint | None:
        if self._counts_views or self._now_s() >= self._complain_until_s:
            return None
        return Complaint(
            "degraded",
            "part numbers jumped, repeated or began again, or cannot be read: check the belt's trigger and its count",
        )

    def _receive(self, supervised: Supervised) -> None:
        told_ns = 0
        while not self._closing.is_set():
            supervised.beat()
            if not self._wait_for_room():
                continue
            asked_ns = time.monotonic_ns()
            left_ms = POLL_MS - (asked_ns - told_ns) // NS_PER_MS
            if self._socket.poll(max(0, left_ms)):
                self._take(self._socket.recv_multipart(zmq.NOBLOCK, copy=False))
            elif left_ms <= 0:
                # only now: behind a slow engine, frames wait here that have long arrived, and triggers that nobody
                # knows; and not at once behind a frame, when the line has work
                self._give_up_frames()
                self._ahead.seen_until(max(0, asked_ns - self._transit_ns))
                told_ns = asked_ns

    def _wait_for_room(self) -> bool:
        if len(self._ready) < self._settings.queue_frames:  # of one thread that adds: no lock is needed
            return True
        with self._changed:
            return self._changed.wait_for(lambda: len(self._ready) < self._settings.queue_frames, POLL_S)

    def _take(self, parts: list[zmq.Frame]) -> None:
        try:
            message = decode_message([part.buffer for part in parts])
        except MessageError:
            self._refuse_unreadable()
            return
        if isinstance(message, FrameMessage):
            self._take_frame(message)
        elif isinstance(message, EndOfRun):
            self._take_end(message)
        elif isinstance(message, Motion):
            self._ahead.moved(message.position_um, self._on_our_clock(message))
        elif isinstance(message, Passage):
            self._ahead.at_gate(self._on_our_clock(message))
        elif not self._expect(message):
            self._refused["repeated"] += 1
            self._complain()

    def _refuse_unreadable(self) -> None:
        """subtle: it may have told of a part, which then has no verdict; the gate is closed for it."""
        self._refused["undecodable"] += 1
        number = self._refused["undecodable"]
        self._ahead.expect(Trigger(UNREADABLE, number, time.monotonic_ns(), self._clock))
        self._complain()

    def _expect(self, sent: Trigger, *, is_frame: bool = False) -> bool:
        """Note a part, and those that were skipped before it; False if it has been told before."""
        out_of_order = self._numbering.gaps + self._numbering.restarts
        stamped = replace(sent, t_ns=self._on_our_clock(sent)) if sent.clock == self._clock else sent
        fell_back = self._numbering.falls_back(stamped)
        placed = self._numbering.place(stamped, is_frame=is_frame)
        if self._numbering.gaps + self._numbering.restarts > out_of_order:
            self._complain()
        self._wait_for_frames(sent, placed)
        if fell_back and placed:
            self._distrust_stamp(placed[-1])
        return bool(placed)

    def _distrust_stamp(self, part: Trigger) -> None:
        """The part may be where its stamp says, or where one that comes now is: the gate is closed at both."""
        self._complain()
        self._waiting[-1] = replace(self._waiting[-1], fault=FELL_BACK)
        self._ahead.expect(replace(part, t_ns=time.monotonic_ns(), clock=self._clock))

    def _wait_for_frames(self, sent: Trigger, placed: list[Trigger]) -> None:
        for part in placed:
            trigger = replace(part, t_ns=self._on_our_clock(part), clock=self._clock)
            self._ahead.expect(trigger)
            self._waiting.append(Waiting(replace(sent, part_id=part.part_id), trigger, time.monotonic_ns()))

    def _take_frame(self, message: FrameMessage) -> None:
        """The frame of a waiting trigger; what waited before it in its run has lost its frame."""
        sent = message.header.trigger
        if not self._find(sent):
            self._expect(sent, is_frame=True)
        found = self._find(sent)
        if not found:
            self._refused["late_frames"] += 1  # its part was given up and judged already
            return
        for waiting in [waiting for waiting in self._waiting if waiting.sent.run == sent.run]:
            self._waiting.remove(waiting)
            if waiting is found:
                break
            self._add(Arrived(waiting.trigger, None, "frame lost"))
        if found.fault:
            self._add(Arrived(found.trigger, None, found.fault))
            return
        if sent.clock == found.sent.clock and sent.t_ns < found.sent.t_ns:
            self._add(Arrived(found.trigger, None, "stale frame: its stamp lies before its part's trigger"))
            return
        self._add(Arrived(found.trigger, message))

    def _find(self, sent: Trigger) -> Waiting | None:
        """Whose frame this is. A maker may stamp a frame anew: then the number decides."""
        same = [waiting for waiting in self._waiting if _number(waiting.sent) == _number(sent)]
        exact = [waiting for waiting in same if waiting.sent.t_ns == sent.t_ns]
        return next(iter(exact or same), None)

    def _take_end(self, end: EndOfRun) -> None:
        now = Trigger(end.run, end.parts, time.monotonic_ns(), self._clock)
        missing = self._numbering.end(end.run, end.parts, now)
        if missing:
            self._complain()
        self._wait_for_frames(now, missing)
        for waiting in [waiting for waiting in self._waiting if waiting.sent.run == end.run]:
            self._waiting.remove(waiting)
            self._add(Arrived(waiting.trigger, None, "frame lost"))

    def _on_our_clock(self, told: Trigger | Motion | Passage) -> int:
        """Another machine's time says nothing here, nor does one yet to come: it counts from its arrival."""
        now_ns = time.monotonic_ns()
        return told.t_ns if told.clock == self._clock and told.t_ns <= now_ns else now_ns

    def _give_up_frames(self) -> None:
        now_ns = time.monotonic_ns()
        while self._waiting and self._waiting[0].arrived_ns + self._timeout_ns <= now_ns:
            self._add(Arrived(self._waiting.popleft().trigger, None, "frame lost"))

    def _add(self, arrived: Arrived) -> None:
        with self._changed:
            self._ready.append(arrived)
            self._changed.notify_all()

    def _complain(self) -> None:
        self._complain_until_s = self._now_s() + COMPLAIN_S


def _number(trigger: Trigger) -> tuple[str, int]:
    return trigger.run, trigger.part_id
