"""Frames over ZeroMQ: from the fake belt, or from anything else that speaks `protocol.wire`."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, replace

import zmq

from board.pictures import decode_frame
from board.seams import LastPart
from protocol.errors import MessageError
from protocol.messages import Frame, Trigger, clock_id
from protocol.sockets import open_socket
from protocol.strict import require
from protocol.wire import EndOfRun, FrameMessage, Message, Motion, Passage, decode_message

KEPT_RUNS = 64  # whose late messages are still known as such
MAX_GAP = 10_000  # parts; a larger jump of the part ids is a new count, not a loss
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class BeltSettings:
    endpoint: str = "tcp://127.0.0.1:5560"
    queue_frames: int = 4  # received ahead of the line; beyond it the belt is held back
    frame_timeout_ms: float = 200.0  # a trigger whose frame has not come by then is a lost frame

    def __post_init__(self) -> None:
        require(1 <= self.queue_frames <= 1000, "queue_frames", "must be 1..1000")
        require(self.frame_timeout_ms > 0, "frame_timeout_ms", "must be above 0")


class BeltSource:
    """Every part that triggered, or that is missing from the count, comes out of `read` exactly once, in order."""

    def __init__(self, settings: BeltSettings, last: LastPart | None = None) -> None:
        """`last` has been judged already, before this start: parts of its run that follow it are owed a verdict."""
        self._timeout_ns = int(settings.frame_timeout_ms * NS_PER_MS)
        self._clock = clock_id()
        self._run = last.run if last else ""
        self._past_runs: deque[str] = deque(maxlen=KEPT_RUNS)
        self._next_id = last.part_id + 1 if last else 0
        self._waiting: deque[Trigger] = deque()  # triggers whose frame has not come
        self._ready: deque[Frame] = deque()
        self.refused_messages = 0
        self._socket = open_socket("PULL", settings.endpoint, bind=True, high_water_mark=settings.queue_frames)

    def read(self, timeout_s: float) -> Frame | None:
        deadline_s = time.monotonic() + timeout_s
        while not self._ready:
            left_s = deadline_s - time.monotonic()
            if self._socket.poll(self._poll_ms(left_s), zmq.POLLIN):
                self._take(self._socket.recv_multipart(copy=False))
            else:
                self._give_up_frames()  # only now: behind a slow engine, frames wait here that have long arrived
            if left_s <= 0 and not self._ready:
                return None
        return self._ready.popleft()

    def close(self) -> None:
        self._socket.close(0)

    def _poll_ms(self, left_s: float) -> int:
        """Until the caller's deadline, or until the oldest trigger's frame is overdue."""
        until_s = left_s
        if self._waiting:
            until_s = min(until_s, (self._waiting[0].t_ns + self._timeout_ns - time.monotonic_ns()) / 1e9)
        return max(0, math.ceil(until_s * 1000))

    def _take(self, parts: list[zmq.Frame]) -> None:
        try:
            message = decode_message([part.buffer for part in parts])
        except MessageError:
            self.refused_messages += 1
            return
        if run_of(message) in self._past_runs:
            self.refused_messages += 1  # its parts have all been judged
        elif isinstance(message, FrameMessage):
            self._take_frame(message)
        elif isinstance(message, EndOfRun):
            self._take_end(message)
        elif not isinstance(message, (Motion, Passage)):
            self._expect(message)

    def _expect(self, trigger: Trigger) -> None:
        """Note a part if it is new. Ids that were skipped become lost parts."""
        if trigger.run != self._run:
            self._begin(trigger.run, trigger.part_id)
        gap = trigger.part_id - self._next_id
        if gap < 0:
            return
        trigger = self._on_our_clock(trigger)
        if gap <= MAX_GAP:
            for part_id in range(self._next_id, trigger.part_id):
                self._waiting.append(replace(trigger, part_id=part_id))
        self._waiting.append(trigger)
        self._next_id = trigger.part_id + 1

    def _begin(self, run: str, first_id: int) -> None:
        self._lose_all("the belt started a new run")
        self._past_runs.append(self._run)
        self._run, self._next_id = run, first_id

    def _take_frame(self, message: FrameMessage) -> None:
        """The frame of a waiting trigger; what waited before it has lost its frame."""
        header = message.header
        self._expect(header.trigger)
        while self._waiting and self._waiting[0].part_id < header.trigger.part_id:
            self._lose("frame lost")
        if not self._waiting or self._waiting[0].part_id != header.trigger.part_id:
            self.refused_messages += 1  # its part was given up and judged already
            return
        trigger = self._waiting.popleft()
        started_ns = time.monotonic_ns()
        try:
            image = decode_frame(message)
        except MessageError as error:
            self._ready.append(Frame(trigger, None, f"corrupt frame: {error}", header.readings))
            return
        decode_ms = (time.monotonic_ns() - started_ns) / NS_PER_MS
        self._ready.append(Frame(trigger, image, "", header.readings, decode_ms=decode_ms))

    def _take_end(self, end: EndOfRun) -> None:
        if end.run != self._run:
            self._begin(end.run, 0)
        if end.parts > self._next_id:
            self._expect(Trigger(end.run, end.parts - 1, time.monotonic_ns(), self._clock))
        self._lose_all("frame lost")

    def _on_our_clock(self, trigger: Trigger) -> Trigger:
        """Another machine's time says nothing here, nor does one yet to come: the trigger counts from its arrival."""
        now_ns = time.monotonic_ns()
        if trigger.clock == self._clock and trigger.t_ns <= now_ns:
            return trigger
        return replace(trigger, t_ns=now_ns, clock=self._clock)

    def _give_up_frames(self) -> None:
        now_ns = time.monotonic_ns()
        while self._waiting and self._waiting[0].t_ns + self._timeout_ns <= now_ns:
            self._lose("frame lost")

    def _lose_all(self, why: str) -> None:
        while self._waiting:
            self._lose(why)

    def _lose(self, why: str) -> None:
        self._ready.append(Frame(self._waiting.popleft(), None, why))


def run_of(message: Message) -> str:
    return message.header.trigger.run if isinstance(message, FrameMessage) else message.run
