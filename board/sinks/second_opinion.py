"""A server's second opinion on parts near the threshold. The board has decided by then, and nothing waits for it.

A thread asks the server of `[engines.remote]`, one part after the other; the answer follows the verdict as a message of
its own, linked by `event_id` and part. Where the two disagree, frame and verdict are kept for retraining.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from board.engines.remote import RemoteServer, RemoteSettings
from board.log import say
from board.score import score_map
from board.seams import ResultSink
from protocol.errors import EngineError
from protocol.manifest import Package
from protocol.messages import Frame, Opinion, Verdict, rfc3339_now
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

LOOK_UP_S = 0.1  # how soon the thread notices that the station stops
SILENT_S = 0.7  # also beyond the deadline of a question
READING = "second_opinion"  # of a captured frame: the server's score


@dataclass(frozen=True)
class SecondOpinionSettings:
    model: str  # a folder under models_dir, the same as the server's; it takes frames of the size of the line's model
    low: float  # parts with scores of low..high, by the line's own model, are asked about
    high: float
    deadline_ms: float = 2000.0  # for the answer; nothing on the line waits for it
    queue_parts: int = 16  # waiting to be asked about; what comes on top is dropped and counted

    def __post_init__(self) -> None:
        require(bool(re.fullmatch(r"[\w][\w.-]*", self.model)), "model", "must be the name of a folder in models_dir")
        require(self.low <= self.high, "high", "must not be below low")
        require(1 <= self.deadline_ms <= 10_000, "deadline_ms", "must be 1..10000")
        require(1 <= self.queue_parts <= 1000, "queue_parts", "must be 1..1000")


class SecondOpinion:
    def __init__(
        self,
        settings: SecondOpinionSettings,
        remote: RemoteSettings,
        package: Package,
        publish: Callable[[Opinion], None],
        captures: ResultSink,
        *,
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """`captures` takes the parts over which the two disagree. Raises: InputError for keys or an endpoint."""
        self._settings, self._manifest = settings, package.manifest
        self._publish, self._captures = publish, captures
        remote = replace(remote, deadline_ms=settings.deadline_ms, attempts=1)
        self._server = RemoteServer(remote, package, content="frame")
        self._waiting: queue.Queue[tuple[Frame, Verdict, float]] = queue.Queue(settings.queue_parts)
        self._stop = threading.Event()
        self._trouble = ""
        self.given = self.dropped = self.failed = self.disagreements = 0
        self._most_s = SILENT_S + settings.deadline_ms / 1e3
        self._thread = supervisor.start("second opinion", self._run, silent_s=SILENT_S, is_needed=False)

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:  # noqa: ARG002
        """Ask about a part later, if it was near the threshold. Never waits."""
        if verdict.decision == "UNKNOWN" or verdict.score is None or frame.image is None:
            return
        if not self._settings.low <= verdict.score <= self._settings.high:
            return
        try:
            self._waiting.put_nowait((frame, verdict, time.monotonic()))
        except queue.Full:
            self.dropped += 1

    def counters(self) -> dict[str, int]:
        """For the health report."""
        return {
            "second_opinions": self.given,
            "second_opinions_dropped": self.dropped,
            "second_opinions_failed": self.failed,
            "second_opinion_disagreements": self.disagreements,
        }

    def close(self) -> None:
        """What still waits is not asked any more."""
        self._thread.stop(self._stop.set, self._most_s)
        self._server.close()
        self._captures.close()

    def _run(self, supervised: Supervised) -> None:
        while not self._stop.is_set():
            supervised.beat()
            try:
                frame, verdict, since_s = self._waiting.get(timeout=LOOK_UP_S)
            except queue.Empty:
                continue
            try:
                with supervised.busy(self._most_s):
                    score = self._ask(frame)
                self._take(frame, verdict, score, since_s)
            except EngineError as error:
                self.failed += 1
                self._say(str(error))

    def _ask(self, frame: Frame) -> float:
        """The server's score. Raises: EngineError."""
        if frame.image is None:
            raise EngineError("a frame without a picture")
        anomaly = self._server.ask(frame.image)
        if anomaly.shape != self._manifest.map.shape:
            raise EngineError(f"the server gave a map of {anomaly.shape}: copy the model folder to board and server")
        return score_map(anomaly, self._manifest.map)

    def _take(self, frame: Frame, verdict: Verdict, score: float, since_s: float) -> None:
        decision: Literal["OK", "REJECT"] = "REJECT" if score >= self._manifest.threshold.value else "OK"
        opinion = Opinion(
            event_id=verdict.event_id,
            site=verdict.site,
            line=verdict.line,
            run=verdict.run,
            part_id=verdict.part_id,
            decision=decision,
            score=score,
            threshold=self._manifest.threshold.value,
            agrees=decision == verdict.decision,
            model_id=self._manifest.id,
            time=rfc3339_now(),
            latency_ms=round((time.monotonic() - since_s) * 1e3, 3),
        )
        self.given += 1
        self._say("")
        if not opinion.agrees:
            self.disagreements += 1
            self._captures.publish(replace(frame, readings={**frame.readings, READING: score}), verdict, None)
        self._publish(opinion)

    def _say(self, trouble: str) -> None:
        """In the log, when it is news."""
        if trouble != self._trouble:
            self._trouble = trouble
            say(f"second opinion: {trouble or 'given again'}", level="WARNING" if trouble else "INFO")
