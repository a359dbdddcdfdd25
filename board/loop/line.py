"""The line's loop: each part gets exactly one verdict, and trouble of any kind makes it UNKNOWN."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from board.alarms.alarms import Alarms
from board.alarms.challenge import Challenges
from board.commands import Commands
from board.condition import Complains, Complaint, judge
from board.config import LineConfig
from board.log import say
from board.loop.panel import Panel, Press
from board.loop.showing import Showing
from board.loop.watchdog import Watchdog
from board.models.change import Models
from board.models.inspector import Finding
from board.models.lessons import Lessons
from board.records.health import Health
from board.seams import Actuator, EndOfStream, FrameSource, ResultSink
from board.sinks.capture import CaptureSink
from board.sinks.mqtt import MqttSink
from protocol.commands import (
    Answer,
    Capture,
    ChallengeParts,
    Order,
    Pause,
    Resume,
    Rollback,
    SetThreshold,
    SwitchModel,
    Teach,
)
from protocol.errors import MessageError, SinkError
from protocol.messages import Decision, Frame, Verdict, rfc3339_now
from protocol.reports import LineCondition
from protocol.supervision import SUPERVISOR, Supervisor, Trouble
from protocol.units import NS_PER_MS

READ_TIMEOUT_S = 0.2
RETRY_SINK_S = 0.1
HELD_SHOWN_S = 5.0  # after a sink took nothing: a full disk takes a verdict now and then, as others are acknowledged
SILENT_S = 0.7  # of the loop, with the time until the watch looks: within a second the gate is closed


class Line:
    def __init__(
        self,
        *,
        config: LineConfig,
        models: Models,
        source: FrameSource,
        gate: Actuator,
        mqtt: MqttSink,
        capture: CaptureSink,
        others: Sequence[ResultSink],
        counters: Callable[[], Mapping[str, float]] = dict,
        complaints: Sequence[Complains] = (),
        watchdog: Watchdog | None = None,
        panel: Panel | None = None,
        lessons: Lessons | None = None,
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """`counters` of source and sinks go into the health report, `complaints` of anything into the state."""
        self._config, self._models = config, models
        self._source, self._gate = source, gate
        self._mqtt, self._capture = mqtt, capture
        self._sinks: tuple[ResultSink, ...] = (mqtt, capture, *others)
        self._counters = counters
        self._challenges = Challenges(config.challenge, mqtt.publish_challenge)
        self._window_s = config.gate.window_ns(config.belt_speed_mm_s) / 1e9
        self._showing = Showing(models, config.challenge.every)
        self._alarms = Alarms(config.alarms)
        models_and_broker = (self._engines, self._light, self._choice, self._broker)
        ours = (
            self._threads,
            self._held_up,
            self._pause,
            *([lessons.complaint] if lessons else []),
            *models_and_broker,
            gate.complaint,
            self._challenges.complaint,
            self._showing.complaint,
            self._alarms.complaint,
        )
        self._complaints: tuple[Complains, ...] = (*ours, *complaints)
        self._watchdog = watchdog or Watchdog({})
        self._panel, self._lessons = panel, lessons
        self._supervisor = supervisor
        self._announced: tuple[LineCondition, str] = ("stopped", "")
        self._health = Health()
        self._commands = Commands(self._act)
        self._paused_by = ""  # the command or button; empty while the line works
        self._sink_fault, self._sink_failed_s = "", 0.0
        self._stopping: Callable[[], bool] = lambda: False

    def run(self, stopping: Callable[[], bool]) -> None:
        """Judge parts until `stopping()` or the end of a finite source. Raises: SourceError."""
        self._stopping = stopping
        self._watchdog.ready()
        with (
            self._supervisor.watch("line", silent_s=SILENT_S) as self._loop,
            self._supervisor.keep_watch(self._guard),
            contextlib.suppress(EndOfStream),
        ):
            while not stopping():
                self._turn()
        self._watchdog.stopping()
        self._report()

    def _turn(self) -> None:
        self._beat()
        for received in self._mqtt.take_commands():
            self._answer(self._commands.obey(received))
        for press in self._panel.take_presses() if self._panel else ():
            self._press(press)
        self._hear(self._models.step())
        self._challenges.step(self._gate.distrust, self._models.current.manifest.id, self._models.threshold)
        self._say_state()
        frame = self._source.read(0 if self._showing.is_due else READ_TIMEOUT_S)
        if frame is not None:
            self._judge(frame)
        if frame is None or self._models.fault:
            with self._loop.busy(self._models.current.engines.most_s):
                self._answer(self._showing.step())
        self._report_when_due()

    def _beat(self) -> None:
        """A line that lacks a thread it needs is as good as hung: without the watchdog's beat it is started again."""
        self._loop.beat()
        if not self._obstacle():
            self._watchdog.beat()

    def _act(self, order: Order) -> bool:
        """What a command asks for; False while it is only begun. Raises: MessageError."""
        if isinstance(order, Pause):
            self._paused_by = f"command {order.id}"
        elif isinstance(order, Resume):
            self._resume()
        elif isinstance(order, SetThreshold):
            self._models.set_threshold(order.value, is_confirmed=order.confirmed)
        elif isinstance(order, ChallengeParts):
            self._require_none_learns()
            self._challenges.begin(order)
        elif isinstance(order, Capture):
            self._capture.begin(order)
        elif isinstance(order, Teach):
            self._teach(order)
            return False
        elif isinstance(order, (SwitchModel, Rollback)):
            return self._change_model(order)
        return True

    def _teach(self, order: Teach) -> None:
        """Raises: MessageError."""
        if not self._lessons:
            raise MessageError("this line teaches no models")
        if self._challenges.is_running:
            raise MessageError("a challenge with known-bad parts is under way: wait for its end, then put good ones")
        self._lessons.begin(order)

    def _change_model(self, order: SwitchModel | Rollback) -> bool:
        """Raises: MessageError."""
        if self._lessons and isinstance(order, Rollback) and self._lessons.cancel():
            return True
        self._require_none_learns()
        return self._models.begin(order)

    def _require_none_learns(self) -> None:
        """Raises: MessageError."""
        if self._learning:
            raise MessageError(f"the line is {self._learning}: wait, or end it with rollback")

    @property
    def _learning(self) -> str:
        """Why no part may pass while a lesson is under way; empty while none is."""
        return self._lessons.fault if self._lessons else ""

    def _hear(self, answer: Answer | None) -> None:
        """Of a model that was to be taken."""
        if self._lessons:
            self._lessons.hear(answer)
        self._answer(answer)

    def _press(self, press: Press) -> None:
        if press == "pause":
            self._paused_by = "button"
        else:
            self._resume()

    def _resume(self) -> None:
        """Whoever resumes has seen what was wrong."""
        self._paused_by = ""
        self._models.failed_trial = ""
        self._alarms.learn_anew()

    def _answer(self, answer: Answer | None) -> None:
        """To whoever commanded, and in the log; after a change of model the state names the new one."""
        if answer is None:
            return
        self._mqtt.publish_answer(answer)
        self._mqtt.set_model(self._models.current.package)
        text = f"{answer.command} {answer.id}: {answer.reason or 'done'}"
        say(text, level="WARNING" if answer.reason else "INFO", command=answer.command, id=answer.id)

    def _judge(self, frame: Frame) -> None:
        finding = self._inspect(frame)
        started_ns = time.monotonic_ns()
        deadline_ns = self._gate.deadline_ns(frame.trigger)
        decision, reason, missed = self._decide(finding, deadline_ns)
        gone_s = deadline_ns / 1e9 + self._window_s
        decision, reason = self._challenges.note(frame.trigger.part_id, decision, reason, gone_s)
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
            threshold=self._models.threshold,
            reason=reason,
            engine=finding.engine,
            model_id=self._models.current.manifest.id,
            degraded=self._models.current.engines.degraded,
            missed_deadline=missed,
            time=rfc3339_now(),
            latency_ms=round((decided_ns - frame.trigger.t_ns) / NS_PER_MS, 3),
            stages_ms={stage: round(value, 3) for stage, value in finding.stages_ms.items()},
            readings=frame.readings,
            location=frame.location,
        )
        self._showing.note_part(deadline_ns - decided_ns)
        self._publish(frame, verdict, finding.anomaly)
        self._health.note(verdict, (time.monotonic_ns() - decided_ns) / NS_PER_MS)
        self._alarms.note_part()
        if self._learning and self._lessons and not self._paused_by:
            self._answer(self._lessons.note(frame))
        elif not self._paused_by:
            self._alarms.note(verdict, self._models.current.manifest.calibrated_score)
        if frame.image is not None and not self._paused_by and not self._learning:
            self._hear(self._models.note(failed=finding.score is None, rejected=decision == "REJECT"))

    def _inspect(self, frame: Frame) -> Finding:
        finding = Finding(reason=frame.fault)
        started_ns = time.monotonic_ns()
        waited_ms = (started_ns - frame.trigger.t_ns) / NS_PER_MS - frame.decode_ms
        finding.stages_ms = {"wait": waited_ms, "decode": frame.decode_ms}
        if frame.image is None:
            return finding
        obstacle = self._obstacle() or (f"paused by {self._paused_by}" if self._paused_by else self._models.fault)
        obstacle = obstacle or self._challenges.fault or self._learning
        if obstacle:
            finding.reason = obstacle
        else:
            with self._loop.busy(self._models.current.engines.most_s):
                self._models.current.inspect(frame.image, finding)
        return finding

    def _decide(self, finding: Finding, deadline_ns: int) -> tuple[Decision, str, bool]:
        """Decision, the reason of an UNKNOWN, and whether the gate's deadline was missed."""
        late_ms = (time.monotonic_ns() - deadline_ns) / NS_PER_MS
        if late_ms > 0:
            return "UNKNOWN", finding.reason or f"{late_ms:.0f} ms too late for the gate", True
        if finding.score is None:
            return "UNKNOWN", finding.reason, False
        if self._gate.distrust:
            return "UNKNOWN", self._gate.distrust, False
        return ("REJECT" if finding.score >= self._models.threshold else "OK"), "", False

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
            self._sink_fault, self._sink_failed_s = str(error), time.monotonic()
            self._say_state()
            return False
        return True

    def _report_when_due(self) -> None:
        if self._health.is_due():
            self._report()

    def _report(self) -> None:
        counters = {**self._mqtt.counters(), **self._models.counters(), **self._counters()}
        counters["capture_parts_left"] = self._capture.parts_left
        counters["lesson_parts_left"] = self._lessons.parts_left if self._lessons else 0
        self._mqtt.publish_health(self._health.report(counters))

    def _threads(self) -> Complaint | None:
        trouble = self._supervisor.trouble()
        return Complaint("stopped" if trouble.is_needed else "degraded", str(trouble)) if trouble else None

    def _guard(self, trouble: Trouble | None) -> None:
        """From the watch's thread, ten times a second: closes the gate, and says why where the loop itself cannot."""
        is_needed = trouble is not None and trouble.is_needed
        self._gate.hold(is_needed or self._stopping())
        if trouble and is_needed and self._loop.trouble:
            self._announce("stopped", str(trouble))

    def _obstacle(self) -> str:
        """Why no part can be judged: a thread that is needed has ended or hangs."""
        trouble = self._supervisor.trouble()
        return str(trouble) if trouble and trouble.is_needed else ""

    def _held_up(self) -> Complaint | None:
        if self._sink_fault and time.monotonic() - self._sink_failed_s > HELD_SHOWN_S:
            self._sink_fault = ""
        return Complaint("stopped", self._sink_fault) if self._sink_fault else None

    def _pause(self) -> Complaint | None:
        return Complaint("stopped", f"paused by {self._paused_by}") if self._paused_by else None

    def _engines(self) -> Complaint | None:
        engines = self._models.current.engines
        if engines.speaker is None:
            return Complaint("degraded", f"no engine: every part is rejected ({engines.trouble})")
        return Complaint("degraded", engines.trouble) if engines.degraded else None

    def _light(self) -> Complaint | None:
        trouble = self._models.current.light.trouble
        return Complaint("degraded", trouble) if trouble else None

    def _broker(self) -> Complaint | None:
        return Complaint("degraded", self._mqtt.complaint) if self._mqtt.complaint else None

    def _choice(self) -> Complaint | None:
        return Complaint("degraded", self._models.complaint) if self._models.complaint else None

    def _say_state(self) -> None:
        self._announce(*judge(said for complain in self._complaints if (said := complain())))

    def _announce(self, state: LineCondition, reason: str) -> None:
        """On the state topic, in the log and to systemd, when it is news."""
        if (state, reason) == self._announced:
            return
        self._announced = (state, reason)
        text = f"{state}: {reason}" if reason else state
        say(text, level="INFO" if state == "running" and not reason else "WARNING", state=state, reason=reason)
        self._watchdog.show(text)
        self._mqtt.set_state(state, reason)
        if self._panel:
            self._panel.show(state)
