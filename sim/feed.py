"""The belt's side of the wire: triggers and frames leave for the board, in real time or as fast as it takes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import zmq
from numpy.typing import NDArray

from protocol.errors import BeltsightError
from protocol.messages import Trigger, clock_id
from protocol.sockets import Socket, open_socket
from protocol.wire import EndOfRun, encode_message, encode_raw_frame

QUEUED_MESSAGES = 2  # beyond the ones on their way; more would only age in the queue
SEND_TIMEOUT_MS = 100
LINGER_MS = 2000


@dataclass(frozen=True)
class Exposure:
    """One frame to send. `number` counts parts (triggered) or camera frames (free-running)."""

    number: int
    image: NDArray[np.uint8]
    readings: dict[str, float]


class Feed:
    """Sends exposures from a thread. In real time a frame that the board does not take is dropped, as a camera does."""

    def __init__(self, endpoint: str, run: str, *, triggered: bool, rate_hz: float | None) -> None:
        """`rate_hz` None: as fast as possible, waiting for the board. Raises: InputError for a malformed endpoint."""
        self.run = run
        self.started_ns = 0
        self.finished = threading.Event()
        self.error: BeltsightError | None = None  # why it finished early
        self.triggered = triggered
        self._rate_hz = rate_hz
        self._clock = clock_id()
        self._stopping = threading.Event()
        self._socket: Socket = open_socket(
            "PUSH",
            endpoint,
            bind=False,
            high_water_mark=QUEUED_MESSAGES,
            linger_ms=LINGER_MS,
            timeout_ms=SEND_TIMEOUT_MS,
        )
        self._thread: threading.Thread | None = None

    def start(self, exposures: Iterator[Exposure], count: int) -> None:
        """Send `count` exposures and the end of the run in the background; `finished` is set at the end."""
        self._thread = threading.Thread(target=self._send_all, args=(exposures, count), name="feed", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread:
            self._thread.join()
        self._socket.close()

    def _send_all(self, exposures: Iterator[Exposure], count: int) -> None:
        try:
            prepared = next(exposures)
            self.started_ns = time.monotonic_ns()
            for index in range(count):
                self._wait_for(index)
                if self._stopping.is_set():
                    return
                self._send_exposure(prepared)
                if index + 1 < count:
                    prepared = next(exposures)  # drawn while the belt moves on
            if self.triggered:
                self._send(encode_message(EndOfRun(self.run, count)), patient=True)
        except BeltsightError as error:  # a picture that cannot be read, far from whoever can say so
            self.error = error
        finally:
            self.finished.set()

    def _wait_for(self, index: int) -> None:
        if self._rate_hz is not None:
            due_s = self.started_ns / 1e9 + index / self._rate_hz
            self._stopping.wait(max(0.0, due_s - time.monotonic()))

    def _send_exposure(self, exposure: Exposure) -> None:
        trigger = Trigger(self.run, exposure.number, time.monotonic_ns(), self._clock)
        patient = self._rate_hz is None
        if self.triggered:
            self._send(encode_message(trigger), patient=True)
        self._send(encode_raw_frame(trigger, exposure.image, exposure.readings), patient=patient)

    def _send(self, parts: list[bytes | bytearray | memoryview], *, patient: bool) -> None:
        """What the board does not take is dropped: at once, or, when patient, at the end of the run."""
        while not self._stopping.is_set():
            try:
                self._socket.send_multipart(parts, 0 if patient else zmq.NOBLOCK, copy=True)
                return
            except zmq.Again:
                if not patient:
                    return


def repeat(make: Callable[[int], Exposure], distinct: int | None) -> Iterator[Exposure]:
    """Exposures 0, 1, 2, …; with `distinct`, drawn once and then repeated under new numbers."""
    kept: list[Exposure] = []
    number = 0
    while True:
        if distinct is None:
            yield make(number)
        else:
            if len(kept) < distinct:
                kept.append(make(number))
            old = kept[number % distinct]
            yield Exposure(number, old.image, old.readings)
        number += 1
