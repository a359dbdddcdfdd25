"""The line's loop: each part gets exactly one verdict, and trouble of any kind makes it UNKNOWN."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from board.commands import Commands
from board.config import LineConfig
from board.engines.chain import EngineChain
from board.health import Health
from board.preprocess import preprocess
from board.score import score_map
from board.seams import Actuator, EndOfStream, FrameSource, ResultSink
from board.sinks.mqtt import LineCondition, MqttSink
from board.watchdog import Watchdog
from protocol.errors import EngineError, InputError, SinkError
from protocol.manifest import Manifest
from protocol.messages import Decision, Frame, Trigger, Verdict, rfc3339_now

READ_TIMEOUT_S = 0.2
RETRY_SINK_S = 0.1
NS_PER_MS = 1e6


@dataclass
class Finding:
    """What inspection of one frame brought; `reason` says why there is no score."""

    score: float | None = None
    anomaly: NDArray[np.int8] | None = None
    engine: str = ""
    reason: str = ""
    stages_ms: dict[str, float] = field(default_factory=dict)


class Line:
    def __init__(
        self,
        *,
        config: LineConfig,
        manifest: Manifest,
        source: FrameSource,
        engines: EngineChain,
        gate: Actuator,
        mqtt: MqttSink,
        others: Sequence[ResultSink],
        counters: Callable[[], dict[str, int]] = dict,
        watchdog: Watchdog | None = None,
    ) -> None:
        """`counters` of source and sinks go into the health report."""
        self._config, self._manifest = config, manifest
        self._source, self._engines, self._gate = source, engines, gate
        self._mqtt = mqtt
        self._sinks: tuple[ResultSink, ...] = (mqtt, *others)
        self._threshold = manifest.threshold.value if config.threshold is None else config.threshold
        self._counters = counters
        self._watchdog = watchdog or Watchdog({})
        self._announced: tuple[LineCondition, str] = ("stopped", "")
        self._health = Health()
        self._commands = Commands()
        self._stopping: Callable[[], bool] = lambda: False

    def run(self, stopping: Callable[[], bool]) -> None:
        """Judge parts until `stopping()` or the end of a finite source. Raises: SourceError."""
        self._stopping = stopping
        self._watchdog.ready()
        try:
            while not stopping():
                self._turn()
        except EndOfStream:
            pass
        self._watchdog.stopping()
        self._report()

    def _turn(self) -> None:
        self._beat()
        for received in self._mqtt.take_commands():
            self._mqtt.publish_answer(self._commands.obey(received))
        self._announce(*self._condition())
        frame = self._source.read(READ_TIMEOUT_S)
        if frame is not None:
            self._judge(frame)
        self._report_when_due()

    def _beat(self) -> None:
        """A line whose verdicts no longer go anywhere is as good as hung."""
        if self._mqtt.is_alive:
            self._watchdog.beat()

    def _judge(self, frame: Frame) -> None:
        finding = self._inspect(frame)
        started_ns = time.monotonic_ns()
        decision, reason, missed = self._decide(frame.trigger, finding)
        self._gate.apply(frame.trigger, decision)
        decided_ns = time.monotonic_ns()
        finding.stages_ms["decide"] = (decided_ns - started_ns) / NS_PER_MS
        verdict = Verdict(
            event_id=str(uuid.uuid4()),
            site=self._config.site,
            line=self._config.line,
            run=frame.trigger.run,
            part_id=frame.trigger.part_id,
            decision=decision,
            score=finding.score,
            threshold=self._threshold,
            reason=reason,
            engine=finding.engine,
            model_id=self._manifest.id,
            degraded=self._engines.degraded,
            missed_deadline=missed,
            time=rfc3339_now(),
            latency_ms=round((decided_ns - frame.trigger.t_ns) / NS_PER_MS, 3),
            stages_ms={stage: round(value, 3) for stage, value in finding.stages_ms.items()},
            readings=frame.readings,
            location=frame.location,
        )
        self._publish(frame, verdict, finding.anomaly)
        self._health.note(verdict, (time.monotonic_ns() - decided_ns) / NS_PER_MS)

    def _inspect(self, frame: Frame) -> Finding:
        finding = Finding(reason=frame.fault)
        started_ns = time.monotonic_ns()
        waited_ms = (started_ns - frame.trigger.t_ns) / NS_PER_MS - frame.decode_ms
        finding.stages_ms = {"wait": waited_ms, "decode": frame.decode_ms}
        if frame.image is None:
            return finding
        if self._commands.paused_by:
            finding.reason = self._pause()
            return finding
        try:
            image = preprocess(frame.image, self._manifest.preprocess)
            ready_ns = time.monotonic_ns()
            finding.stages_ms["preprocess"] = (ready_ns - started_ns) / NS_PER_MS
            finding.anomaly, finding.engine = self._engines.infer(image)
            finding.stages_ms["infer"] = (time.monotonic_ns() - ready_ns) / NS_PER_MS
        except (InputError, EngineError) as error:
            finding.reason = str(error)
            return finding
        finding.score = score_map(finding.anomaly, self._manifest.map)
        return finding

    def _decide(self, trigger: Trigger, finding: Finding) -> tuple[Decision, str, bool]:
        """Decision, the reason of an UNKNOWN, and whether the gate's deadline was missed."""
        late_ms = (time.monotonic_ns() - self._gate.deadline_ns(trigger)) / NS_PER_MS
        if late_ms > 0:
            return "UNKNOWN", finding.reason or f"{late_ms:.0f} ms too late for the gate", True
        if finding.score is None:
            return "UNKNOWN", finding.reason, False
        return ("REJECT" if finding.score >= self._threshold else "OK"), "", False

    def _publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:
        for sink in self._sinks:
            while not self._hand_over(sink, frame, verdict, anomaly) and not self._stopping():
                time.sleep(RETRY_SINK_S)
                self._health.note_held(RETRY_SINK_S)
                self._beat()
                self._report_when_due()

    def _hand_over(self, sink: ResultSink, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> bool:
        """False while the sink takes nothing. The line then stands still, and the closed gate rejects what passes."""
        try:
            sink.publish(frame, verdict, anomaly)
        except SinkError as error:
            self._announce("stopped", str(error))
            return False
        return True

    def _report_when_due(self) -> None:
        if self._health.is_due():
            self._report()

    def _report(self) -> None:
        self._mqtt.publish_health(self._health.report({**self._mqtt.counters(), **self._counters()}))

    def _condition(self) -> tuple[LineCondition, str]:
        if self._commands.paused_by:
            return "stopped", self._pause()
        if self._engines.speaker is None:
            return "degraded", f"no engine: every part is rejected ({self._engines.trouble})"
        trouble = self._engines.trouble if self._engines.degraded else self._mqtt.complaint
        return ("degraded", trouble) if trouble else ("running", "")

    def _pause(self) -> str:
        return f"paused by command {self._commands.paused_by}"

    def _announce(self, state: LineCondition, reason: str) -> None:
        """On the state topic, in the log and to systemd, when it is news."""
        if (state, reason) == self._announced:
            return
        self._announced = (state, reason)
        text = f"{state}: {reason}" if reason else state
        print(f"beltsight: {text}", file=sys.stderr, flush=True)
        self._watchdog.show(text)
        self._mqtt.set_state(state, reason)
